package admin

import "github.com/sojourn-go/sojourn/ops"

// statGroup is some of the counters, under one heading.
type statGroup struct {
	Title string
	Stats []stat
}

type stat struct {
	Name  string // of the field of ops.Stats
	Label string
	Text  string
	Value uint64
	Alarm bool // it should be 0, and is not
}

// statGroups explains every counter.
func statGroups(s ops.Stats) []statGroup {
	counter := func(name string, value uint64, label, text string) stat {
		return stat{Name: name, Label: label, Text: text, Value: value}
	}
	// alarming is a counter that should stay at 0.
	alarming := func(name string, value uint64, label, text string) stat {
		c := counter(name, value, label, text)
		c.Alarm = c.Value > 0
		return c
	}
	return []statGroup{
		{"Sessions", []stat{
			counter("Created", s.Created, "Created", "got their first value, in a cookie or in the store"),
			counter("Promoted", s.Promoted, "Promoted", "moved from the cookie to the store"),
			counter("Logins", s.Logins, "Logins", "logins kept"),
			counter("Logouts", s.Logouts, "Logouts", "logouts kept"),
			counter("Rotations", s.Rotations, "Rotations", "credentials replaced by a fresh one"),
			counter("Revoked", s.Revoked, "Revoked", "ended from elsewhere: by their user, an operator, or the limit per user"),
		}},
		{"Store", []stat{
			counter("Loads", s.Loads, "Loads", "answers of the store to a load"),
			counter("Saves", s.Saves, "Saves", "records written, tombstones included"),
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
			counter("UnknownKeys", s.UnknownKeys, "Unknown keys", "of those, sealed with a key that the key ring lacks"),
			counter("StaleReferences", s.StaleReferences, "Stale", "of sessions that ended or expired, or outdated"),
			alarming("TheftsSuspected", s.TheftsSuspected, "Suspected thefts", "sessions of which an outdated cookie turned up"),
		}},
		{"Trouble", []stat{
			alarming("FailedCommits", s.FailedCommits, "Failed commits", "responses replaced by an error"),
			alarming("LateChanges", s.LateChanges, "Late changes", "lost, because the response had already started"),
			alarming("UnreadableValue", s.UnreadableValue, "Unreadable values", "values that did not decode into their key's type"),
			alarming("DamagedRecords", s.DamagedRecords, "Damaged records", "did not open although their key is there"),
			alarming("LostVersions", s.LostVersions, "Lost versions", "the store answered with less than the browser had seen"),
		}},
	}
}
