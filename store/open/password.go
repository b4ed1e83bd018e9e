package open

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// The options of a URL for the source of its password, so that the URL need not
// contain it, and it may change while the program runs.
const (
	passwordFile    = "password-file"
	passwordCommand = "password-command"
)

// PasswordSource takes the options password-file and password-command out of a
// URL's query, for engines that have passwords. It returns the function to call
// for each new connection, or nil if the query has neither option:
//
//   - password-file=PATH: the function returns what is in that file.
//   - password-command=COMMAND: the function runs COMMAND, with sh -c (cmd /C on
//     Windows), and returns what it writes to its standard output. When the
//     function's context ends, the command is killed.
//
// The function removes one line ending from the end. An empty password is an error.
//
// PasswordSource returns an error that wraps [ErrURL] if an option is given
// twice or is empty, or if both are given. The function's errors contain
// neither the password, nor other output of the command, nor the command.
func PasswordSource(query url.Values) (func(context.Context) (string, error), error) {
	file, command := query[passwordFile], query[passwordCommand]
	query.Del(passwordFile)
	query.Del(passwordCommand)
	switch given := append(file, command...); {
	case len(given) == 0:
		return nil, nil
	case len(given) > 1 || given[0] == "":
		return nil, urlError("%s and %s: one of them, once, and not empty", passwordFile, passwordCommand)
	case len(file) == 1:
		return func(ctx context.Context) (string, error) {
			if err := ctx.Err(); err != nil {
				return "", fmt.Errorf("%s: %w", passwordFile, err)
			}
			text, err := os.ReadFile(file[0])
			return password(passwordFile, text, err)
		}, nil
	}
	return func(ctx context.Context) (string, error) {
		text, err := run(ctx, command[0])
		return password(passwordCommand, text, err)
	}, nil
}

func run(ctx context.Context, command string) ([]byte, error) {
	shell := []string{"sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C"}
	}
	var out bytes.Buffer // Output would put the command's standard error into its error
	c := exec.CommandContext(ctx, shell[0], append(shell[1:], command)...)
	c.Stdout = &out
	c.WaitDelay = time.Second // for processes that outlive the shell
	err := c.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.Bytes(), err
}

func password(option string, text []byte, err error) (string, error) {
	word := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if err == nil && word == "" {
		err = errors.New("the password is empty")
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", option, err)
	}
	return word, nil
}
