package main

import (
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// output is the writer for results. It records a failed write, which fails the
// command even if the command ignores the error.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.Writer.Write(b)
	o.err = err
	return n, err
}

// discreet is the writer for errors, warnings and progress. It removes the
// secrets of URLs.
type discreet struct {
	io.Writer
	secrets []string // the longest first
}

func (d *discreet) Write(b []byte) (int, error) {
	text := string(b)
	for _, s := range d.secrets {
		text = strings.ReplaceAll(text, s, "…")
	}
	if _, err := io.WriteString(d.Writer, text); err != nil {
		return 0, err
	}
	return len(b), nil
}

// secretOption is the name of an option of a URL whose value is a secret.
var secretOption = regexp.MustCompile(`(?i)pass|secret|token|credential`)

// secretsIn returns the possible secrets of the URLs among the texts, even if
// these cannot be parsed: the part between the scheme and an @, the password in
// it, and the values of certain options, each also in decoded form.
func secretsIn(texts []string) (secrets []string) {
	add := func(s string) {
		if s == "" {
			return
		}
		secrets = append(secrets, s)
		if decoded, err := url.PathUnescape(s); err == nil && decoded != s {
			secrets = append(secrets, decoded)
		}
	}
	for _, text := range texts {
		_, rest, ok := strings.Cut(text, ":")
		if !ok {
			continue
		}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			user := strings.TrimLeft(rest[:at], "/")
			if name, password, ok := strings.Cut(user, ":"); ok && password != "" {
				add(name + ":" + password)
				add(password)
			} else if strings.HasPrefix(rest, "//") {
				add(user + "@")
			}
		}
		_, options, _ := strings.Cut(rest, "?")
		for _, option := range strings.FieldsFunc(options, func(c rune) bool { return c == '&' || c == ';' }) {
			if name, value, _ := strings.Cut(option, "="); secretOption.MatchString(name) {
				add(value)
			}
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(secrets)
}
