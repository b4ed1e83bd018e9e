package main

import (
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// output is where results go. It remembers that one could not be written: who
// has not got the result has not got what was asked for, whether or not the
// command looks at the error.
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

// discreet is where errors, warnings and progress go. Whatever they are made of,
// the secrets of URLs do not get through.
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

// secretsIn returns what may be secret in the URLs among the texts, whether or not they can
// be parsed: all that stands before an @ and after the scheme, the
// password in there, and the values of certain options. Each also as it is when
// it is decoded.
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
