package admin

import (
	"strings"
	"unicode"

	"github.com/mileusna/useragent"
)

// agent is the device information of a User-Agent header. It is unverified: a
// client may send anything.
type agent struct {
	Browser string // with the major version; "" = not known
	System  string // "" = not known
	Icon    string // of the templates: "computer", "phone", "tablet" or "program"
}

// Name is the name for users: "Firefox 133 on Linux".
func (a agent) Name() string {
	switch {
	case a.Browser == "" && a.System == "":
		return "Unknown device"
	case a.System == "":
		return a.Browser
	case a.Browser == "":
		return "Unknown browser on " + a.System
	}
	return a.Browser + " on " + a.System
}

// parseAgent reads a User-Agent header.
func parseAgent(header string) agent {
	ua := useragent.Parse(header)
	var a agent
	if plausible(ua.Name) {
		a.Browser = ua.Name
		if major, _, _ := strings.Cut(ua.Version, "."); a.Browser != "" && digits(major) {
			a.Browser += " " + major
		}
	}
	// Browsers send frozen system versions (every Windows is 10, every macOS
	// 10.15.7), so only that of iOS is shown.
	switch ua.OS {
	case useragent.IOS:
		a.System = "iOS"
		if ua.Device == "iPad" {
			a.System = "iPadOS"
		}
		if major, _, _ := strings.Cut(ua.OSVersion, "."); digits(major) {
			a.System += " " + major
		}
	default:
		a.System = ua.OS
	}
	switch {
	case ua.Tablet:
		a.Icon = "tablet"
	case ua.Mobile:
		a.Icon = "phone"
	case ua.Desktop:
		a.Icon = "computer"
	default:
		a.Icon = "program"
	}
	return a
}

// plausible rejects texts that are not names: for an unknown header, the parser
// returns its best guess.
func plausible(name string) bool {
	if name == "" || len(name) > 40 {
		return false
	}
	for i, r := range name {
		switch {
		case unicode.IsLetter(r):
		case i > 0 && (unicode.IsDigit(r) || strings.ContainsRune(" .-_", r)):
		default:
			return false
		}
	}
	return true
}

func digits(s string) bool {
	return s != "" && len(s) <= 4 && strings.Trim(s, "0123456789") == ""
}
