// Command sojourn manages session keys and session stores. README.md describes
// its output and exit statuses; "sojourn --help" and "sojourn COMMAND --help"
// describe its usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/mattn/go-isatty"
)

// Exit statuses, part of the command's interface.
const (
	exitOK     = 0 // success
	exitFailed = 1 // failure, or nothing to act on
	exitUsage  = 2 // the command line is wrong, and nothing was done
)

// commandLine is the command's arguments and subcommands.
type commandLine struct {
	Keygen   keygen         `cmd:"" help:"Make a key, or a file of keys."`
	Keys     keysCommands   `cmd:"" help:"Change the keys of a service that runs, without logging anybody out."`
	Inspect  inspect        `cmd:"" help:"Open a cookie or a stored session with the keys."`
	Ls       ls             `cmd:"" help:"List stored sessions."`
	Show     show           `cmd:"" help:"Show the record of one session, without keys."`
	Stats    stats          `cmd:"" help:"Count what a store holds."`
	Sweep    sweep          `cmd:"" help:"Remove sessions that have been over for a while."`
	Migrate  migrate        `cmd:"" help:"Bring a store's schema up to date."`
	User     userCommands   `cmd:"" help:"List, export, revoke or erase the sessions of a user."`
	End      end            `cmd:"" help:"End one session: log its browser out."`
	Restored restored       `cmd:"" help:"After a backup was restored: end all logged-in sessions, because it has undone logouts."`
	Copy     copyStores     `cmd:"" help:"Copy live sessions to another store while a service uses them."`
	Legacy   legacyCommands `cmd:"" help:"Look at sessions of other libraries."`
	Version  version        `cmd:"" help:"Print the version."`
	Help     help           `cmd:"" help:"Print this, or the help of a command: sojourn help user revoke."`
}

// help only adds "help" to the list of commands: run turns "help COMMAND" into
// "COMMAND --help".
type help struct{}

const description = `sojourn looks after the sessions that Go services keep with Sojourn.

Give the URL of the store, such as sqlite:data/sessions.db, with --store or in the environment variable SOJOURN_STORE. A service may use the store meanwhile. Keys come from the file given with --keys, or from the environment variable SOJOURN_KEYS, which holds the keys themselves.

Exit status: 0 when what was asked for has happened, 1 when it has not, or when nothing was found to do it to, 2 for a mistake on the command line. Flags may be written with one dash or two.

Secrets are read from files, standard input or the environment. No argument is repeated in an error where it may be one.`

// usageError is a mistake on the command line that the parser cannot see.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// terminal is a command's input and output.
type terminal struct {
	in       io.Reader
	out      io.Writer
	messages io.Writer // prompts, progress, warnings
	// typing means that in is a keyboard, watching that messages go to a
	// screen.
	typing, watching bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills the process
	// Then writing to a closed pipe is an error, and stores are closed as usual.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], terminal{
		in: os.Stdin, out: os.Stdout, messages: os.Stderr,
		typing:   isatty.IsTerminal(os.Stdin.Fd()),
		watching: isatty.IsTerminal(os.Stderr.Fd()),
	}))
}

// oneLine joins the lines of several errors. The errors of pgx indent theirs.
var oneLine = strings.NewReplacer(":\n\t", ": ", "\n\t", "; ", "\n", "; ")

func run(ctx context.Context, args []string, term terminal) int {
	out := &output{Writer: term.out}
	term.out = out
	term.messages = &discreet{term.messages, secretsIn(append(slices.Clone(args), os.Getenv(storeVariable), os.Getenv(toVariable)))}
	help, err := perform(ctx, args, term)
	if out.err != nil { // whatever the command returned
		err = fmt.Errorf("standard output: %w", out.err)
	}
	text := ""
	if err != nil {
		text = oneLine.Replace(err.Error())
	}
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, new(usageError)):
		fmt.Fprintf(term.messages, "sojourn: %s (see %s)\n", text, help)
		return exitUsage
	case errors.Is(out.err, syscall.EPIPE): // the reader has closed the pipe
	case ctx.Err() != nil:
		fmt.Fprintf(term.messages, "sojourn: interrupted: %s\n", text)
	default:
		fmt.Fprintf(term.messages, "sojourn: %s\n", text)
	}
	return exitFailed
}

// perform carries out the command line. It also returns how to get help for the
// command, if known.
func perform(ctx context.Context, args []string, term terminal) (help string, err error) {
	var cli commandLine
	helped := false
	parser, err := kong.New(&cli,
		kong.Name("sojourn"),
		kong.Description(description),
		kong.Writers(term.out, term.messages),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(term),
	)
	if err != nil {
		panic(err) // the command line's own description is wrong
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	args = doubleDashes(args)
	command, err := parser.Parse(args)
	if helped {
		return "", nil
	}
	help = "sojourn --help"
	if err == nil {
		return command.Selected().FullPath() + " --help", command.Run()
	}
	node := parser.Model.Node
	var where *kong.ParseError
	if errors.As(err, &where) && where.Context != nil && where.Context.Selected() != nil {
		node = where.Context.Selected()
		help = node.FullPath() + " --help"
	}
	return help, usageError{misuse(err, node, args)}
}

// doubleDashes lets -flag stand for --flag, as in Go's own tools. Only -h has a
// single letter.
func doubleDashes(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if arg == "--" {
			copy(out[i:], args[i:])
			break
		}
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' && !strings.ContainsAny(arg[1:2], "0123456789") {
			arg = "-" + arg
		}
		out[i] = arg
	}
	return out
}
