package main

import (
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/admin"
)

// openDevices makes the page of package admin on which customers see where they are
// signed in. A stylesheet cannot depend on the session, so there is one handler for
// each theme.
func (s *shop) openDevices() error {
	s.devices = map[string]http.Handler{}
	for _, theme := range themes() {
		h, err := admin.Devices(s.sessions, admin.DevicesOptions{
			Path:         "/account/devices/",
			LoginURL:     "/login",
			ConfirmURL:   "/confirm",
			RecentWithin: s.recent,
			Site:         "Fernweg",
			Home:         "/account",
			Stylesheet:   "/static/" + s.pages.build + "/devices-" + theme + ".css",
			Texts:        s.deviceTexts,
			Logger:       s.logger,
		})
		if err != nil {
			return err
		}
		s.devices[theme] = h
	}
	return nil
}

func (s *shop) showDevices(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.devices[theme(session)].ServeHTTP(w, r)
}

// deviceTexts has every text that can be shown here; the others stay English.
func (s *shop) deviceTexts(r *http.Request) admin.DevicesTexts {
	t := s.pages.preferred(r)
	if session, err := s.sessions.Get(r.Context()); err == nil {
		t = s.pages.language(r, session)
	}
	return admin.DevicesTexts{
		Language: t.Code,
		Skip:     t.T("layout.skip"), Messages: t.T("layout.messages"),
		Title: t.T("devices.title"), Lead: t.T("devices.lead"),
		ThisDevice: t.T("devices.this"), OtherDevices: t.T("devices.others"), ActiveNow: t.T("devices.now"),
		LastUsed: t.T("devices.used"), SignedIn: t.T("devices.since"), IP: t.T("devices.ip"), Unknown: t.T("devices.unknown"),
		SignOut: t.T("devices.end"), SignOutOthers: t.T("devices.endothers"),
		WillConfirm: t.T("devices.confirm"),
		NowhereElse: t.T("devices.none"),
		Copied:      t.T("devices.copied"), CopiedHere: t.T("devices.copied.here"), CopiedThere: t.T("devices.copied.there"),
		More: t.T("devices.more"), Newer: t.T("devices.newer"), Older: t.T("devices.older"),
		SignedOut: t.T("devices.ended"), AlreadySignedOut: t.T("devices.gone"), NotThisDevice: t.T("devices.notthis"),
		OtherSite: t.T("error.title"), OtherSiteText: t.T("error.foreign"),
		NotFound: t.T("error.404.title"), NotFoundText: t.T("error.404"),
		TryAgain: t.T("error.title"), TryAgainText: t.T("error.unavailable"),
		Device: func(browser, system string) string {
			switch {
			case browser == "" && system == "":
				return t.T("devices.unknown.device")
			case system == "":
				return browser
			case browser == "":
				return system
			}
			return t.T("devices.device", browser, system)
		},
		Time: func(at time.Time) string { return t.Moment(at) + at.Local().Format(" MST") },
		Ago: func(d time.Duration) string {
			switch {
			case d < time.Minute:
				return t.T("devices.ago.now")
			case d < time.Hour:
				return t.T("devices.ago.minutes", int(d.Minutes()))
			case d < 24*time.Hour:
				return t.T("devices.ago.hours", int(d.Hours()))
			}
			return t.Moment(time.Now().Add(-d))
		},
		Range:           func(first, last, total int) string { return t.T("devices.range", first, last, total) },
		OthersSignedOut: func(n int) string { return t.T("devices.ended.others", n) },
	}
}
