package admin

import "github.com/sojourn-go/sojourn/ops"

// statGroup is a group of counters with a heading.
type statGroup struct {
	Title string
	Stats []stat
}

type stat struct {
	Name  string // of the field of ops.Stats
	Label string
	Text  string
	Value uint64
	Do    string // what to do about an alarm
	Alarm bool   // it should be 0, and is not
}

// statGroups explains every counter.
func statGroups(s ops.Stats) []statGroup {
	counter := func(name string, value uint64, label, text string) stat {
		return stat{Name: name, Label: label, Text: text, Value: value}
	}
	// alarming is a counter that should stay at 0.
	alarming := func(name string, value uint64, label, text, do string) stat {
		c := counter(name, value, label, text)
		c.Alarm, c.Do = c.Value > 0, do
		return c
	}
	return []statGroup{
		{"Trouble", []stat{
			alarming("FailedCommits", s.FailedCommits, "Failed commits", "Changes could not be saved; visitors got an error instead of the page",
				"The log has the error of each one. Those that say that the session has ended are harmless."),
			alarming("LateChanges", s.LateChanges, "Late changes", "Handlers changed a session after the response had started; these changes are lost",
				"The log has the error of each one. Change the session before the first byte of the response."),
			alarming("UnreadableValue", s.UnreadableValue, "Unreadable values", "Values in sessions did not decode into the type of their key",
				"The log names the keys. Usually a type has changed: give the new one a key with another name."),
			alarming("DamagedRecords", s.DamagedRecords, "Damaged records", "Records in the store did not open although their key is there",
				"Check the store's disk and its backups. The visitors concerned have to sign in again."),
			alarming("LostVersions", s.LostVersions, "Lost versions", "The store answered with an older state than the browser had seen",
				"Check whether the store lost writes: after a failover or a restore, run sojourn restored."),
		}},
		{"Sessions", []stat{
			counter("Created", s.Created, "Created", "got their first value, in a cookie or in the store"),
			counter("Promoted", s.Promoted, "Promoted", "moved from the cookie to the store"),
			counter("Logins", s.Logins, "Logins", "logins kept"),
			counter("Logouts", s.Logouts, "Logouts", "logouts kept"),
			counter("Rotations", s.Rotations, "Rotations", "cookies replaced by fresh ones"),
			counter("Revoked", s.Revoked, "Revoked", "ended from elsewhere: by their user, an operator, or the limit per user"),
		}},
		{"Store", []stat{
			counter("Loads", s.Loads, "Loads", "answers of the store to a load"),
			counter("Saves", s.Saves, "Saves", "records written, including those of sessions that end"),
			counter("Touches", s.Touches, "Touches", "activity noted without writing the record"),
			counter("Conflicts", s.Conflicts, "Conflicts", "saves that another process overtook; each was tried again"),
			counter("Retries", s.Retries, "Retries", "saves sent again because their outcome was unknown"),
			counter("Swept", s.Swept, "Swept", "old records removed"),
			counter("StoreErrors", s.StoreErrors, "Failures", "calls that the store failed to answer"),
		}},
		{"Caches", []stat{
			counter("CacheHits", s.CacheHits, "Hits", "loads answered by a cache"),
			counter("CacheMisses", s.CacheMisses, "Misses", "loads that no cache could answer"),
			counter("VolatileSaves", s.VolatileSaves, "Volatile saves", "changes kept in a cache only"),
		}},
		{"Cookies", []stat{
			counter("RejectedCookies", s.RejectedCookies, "Rejected", "damaged, foreign or expired; a jump means that somebody guesses, or that a key is missing"),
			counter("UnknownKeys", s.UnknownKeys, "Unknown keys", "of those, sealed with a key that is not in the key ring"),
			counter("StaleReferences", s.StaleReferences, "Stale", "of sessions that ended or expired, or outdated"),
			alarming("TheftsSuspected", s.TheftsSuspected, "Suspected thefts", "Outdated cookies of sessions turned up, as they do when somebody has copied them",
				"Find the sessions in the audit log (Config.Events), end them, and ask their users to change their passwords."),
		}},
	}
}
