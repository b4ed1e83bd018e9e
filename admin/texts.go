package admin

import (
	"reflect"
	"strconv"
	"time"
)

// DevicesTexts is every text of the page of [Devices], for applications in
// another language or with other words. An empty or nil field keeps the English
// text of [EnglishDevices].
type DevicesTexts struct {
	Language string // of the texts, as in <html lang>, such as "de" (BCP 47)

	Skip     string // link to the content, for keyboards
	Messages string // name of the region with messages, for screen readers

	Title, Lead              string
	ThisDevice, OtherDevices string
	ActiveNow                string // beside this device
	LastUsed, SignedIn, IP   string // before a time, a time, and an address
	Unknown                  string // instead of one of these
	SignOut, SignOutOthers   string // buttons
	WillConfirm              string // signing out asks for the password first
	NowhereElse              string // there are no other devices
	Copied                   string // title of the warning about a session whose cookie was copied
	CopiedHere, CopiedThere  string // what to do about that, on this and on another device
	More, Newer, Older       string // name of the links to other pages of the list, and the links

	// Messages after an action.
	SignedOut, AlreadySignedOut, NotThisDevice string

	// Titles and texts of error pages.
	NotSignedIn, NotSignedInText   string // status 401
	OtherSite, OtherSiteText       string // status 403: a form of another site
	NotFound, NotFoundText         string // statuses 404 and 405
	NotAvailable, NotAvailableText string // status 501: the store has no index by user
	TryAgain, TryAgainText         string // status 503: the store did not answer

	// Device names a device. Both are "" if the browser did not send them.
	Device func(browser, system string) string
	// Time writes a time with its time zone. The server does not know the
	// visitor's.
	Time func(time.Time) string
	// Ago says how long ago something was. It is never negative.
	Ago func(time.Duration) string
	// Number writes a number of devices.
	Number func(int) string
	// Range describes the part of a list that is shown; it counts from 1.
	Range func(first, last, total int) string
	// OthersSignedOut is the message after signing n other devices out; n may be 0.
	OthersSignedOut func(n int) string
}

// EnglishDevices returns the default texts of [Devices]. Times are in UTC.
func EnglishDevices() DevicesTexts {
	return DevicesTexts{
		Language: "en",
		Skip:     "Skip to the content", Messages: "Messages",
		Title: "Your devices", Lead: "These devices are signed in to your account. Sign out the ones that you no longer use or do not recognize.",
		ThisDevice: "This device", OtherDevices: "Other devices", ActiveNow: "Active now",
		LastUsed: "Last used", SignedIn: "Signed in", IP: "IP address", Unknown: "unknown",
		SignOut: "Sign out", SignOutOthers: "Sign out all others",
		WillConfirm: "Before a device is signed out, you will be asked to confirm that it is you.",
		NowhereElse: "No other device is signed in.",
		Copied:      "Possibly copied.",
		CopiedHere:  "Somebody else may have used this sign-in. Sign out here and in again, and change your password.",
		CopiedThere: "Somebody else may have used this sign-in. Sign it out, and change your password.",
		More:        "More devices", Newer: "Newer", Older: "Older",
		SignedOut: "The device is signed out.", AlreadySignedOut: "That device was signed out already.",
		NotThisDevice: "This is the device that you are using. To leave it, sign out as usual.",
		NotSignedIn:   "You are not signed in", NotSignedInText: "Sign in to see your devices.",
		OtherSite: "Nothing was changed", OtherSiteText: "The form came from another site.",
		NotFound: "Page not found", NotFoundText: "There is no page at this address.",
		NotAvailable: "Not available", NotAvailableText: "This site cannot list your devices.",
		TryAgain: "Please try again", TryAgainText: "Your devices could not be looked up or changed just now.",
		Device: func(browser, system string) string { return agent{Browser: browser, System: system}.Name() },
		Time:   moment,
		Ago:    func(d time.Duration) string { now := time.Now(); return ago(now, now.Add(-d)) },
		Number: func(n int) string { return group(strconv.Itoa(n)) },
		Range: func(first, last, total int) string {
			return strconv.Itoa(first) + " to " + strconv.Itoa(last) + " of " + group(strconv.Itoa(total))
		},
		OthersSignedOut: func(n int) string {
			if n == 0 {
				return "No other device was signed in."
			}
			return "You signed " + plural(n, "other device") + " out."
		},
	}
}

// complete fills empty fields with English.
func (t DevicesTexts) complete() *DevicesTexts {
	english := reflect.ValueOf(EnglishDevices())
	fields := reflect.ValueOf(&t).Elem()
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			fields.Field(i).Set(english.Field(i))
		}
	}
	return &t
}
