package main

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// misuse describes a mistake on the command line. It does not use the parser's
// texts, because they repeat arguments, which may be a cookie, a key or a URL
// with a password. All names in the result are the command's own, except that
// of an unknown flag.
func misuse(err error, node *kong.Node, args []string) error {
	text := err.Error()
	suggestion := ""
	if at := strings.LastIndex(text, ", did you mean "); at >= 0 && ownNames.MatchString(text[at:]) {
		suggestion = text[at:]
	}
	switch {
	case strings.HasPrefix(text, "unknown flag "):
		return errors.New("there is no flag " + unknownFlag(text, args) + suggestion)
	case strings.HasPrefix(text, "unexpected argument ") && len(node.Children) > 0:
		return errors.New("there is no such command" + suggestion)
	case strings.HasPrefix(text, "unexpected argument "):
		return fmt.Errorf("there is one argument too many: use %s. A store is named with --store, and an argument that begins with a dash comes after --", node.Summary())
	case strings.HasPrefix(text, "missing flags: "), strings.HasPrefix(text, "expected ") && !strings.Contains(text, " but got "):
		return errors.New(text) // has only the command's own names
	}
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if rest, ok := strings.CutPrefix(text, "--"+flag.Name); ok && (rest == "" || !isNamePart(rest[0])) {
				return fmt.Errorf("--%s: %s", flag.Name, wanted(flag))
			}
		}
	}
	return errors.New("the arguments cannot be understood")
}

func isNamePart(c byte) bool { return c == '-' || 'a' <= c && c <= 'z' }

// ownNames matches the parser's suggestions of existing flags and commands.
var ownNames = regexp.MustCompile(`^, did you mean (one of )?"-{0,2}[a-z-]+"(, "-{0,2}[a-z-]+")*\?$`)

// looksLikeAFlag distinguishes a flag from a cookie or a key that begins with a dash.
var looksLikeAFlag = regexp.MustCompile(`^--?[a-z]{1,12}(-[a-z]{1,12}){0,2}$`)

// unknownFlag returns the flag in the parser's text, if it looks like one.
func unknownFlag(text string, args []string) string {
	flag := func(arg string) string {
		name, _, _ := strings.Cut(arg, "=")
		return name
	}
	i := slices.IndexFunc(args, func(arg string) bool {
		return strings.HasPrefix(arg, "-") && strings.HasPrefix(text, "unknown flag "+flag(arg))
	})
	if i < 0 {
		return "of that name"
	}
	if name := flag(args[i]); looksLikeAFlag.MatchString(name) {
		return name
	}
	return fmt.Sprintf("of the name that is given as argument %d; what begins with a dash and is no flag comes after --", i+1)
}

// wanted describes the expected value of a flag.
func wanted(flag *kong.Flag) string {
	if flag.Enum != "" {
		return "use one of " + strings.ReplaceAll(flag.Enum, ",", ", ")
	}
	switch flag.Target.Interface().(type) {
	case time.Duration:
		return "use a duration, such as 90s, 10m or 24h"
	case time.Time:
		return "use a time, such as 2026-11-20T15:00:00Z"
	}
	switch flag.Target.Kind() {
	case reflect.Int:
		return "use a whole number"
	case reflect.Bool:
		return "it takes no value, or true or false"
	case reflect.Map:
		return "use " + flag.FormatPlaceHolder()
	default:
		return "it needs a value; one that begins with a dash is given as --" + flag.Name + "=VALUE"
	}
}
