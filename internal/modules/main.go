// Command modules keeps the modules of this repository consistent. They require
// each other's next release, which is not published yet; go.work maps it to
// this repository. The command uses the list of go.mod files, so a new module
// only needs its go.mod.
//
//	modules tidy [-version v1.2.3]   writes go.work, every go.mod and go.sum, and go.work.sum
//	modules check                    fails where go.work, a go.mod or go.work.sum is not as tidy writes it
//	modules alone FOLDER             writes what each module needs to be built without go.work
//	modules rehearse FOLDER          makes a release in FOLDER, builds each module of it, and uses it
//	modules release FOLDER           rehearse, and keeps the go.sum files that a release needs
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "modules:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("tidy, check, alone, rehearse or release?")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	version := flags.String("version", "", "the next release; empty: as go.work has it")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("git rev-parse: %w", err)
	}
	r, err := open(strings.TrimSpace(string(top)), *version)
	if err != nil {
		return err
	}
	switch folder := flags.Arg(0); {
	case args[0] == "tidy":
		return r.tidy()
	case args[0] == "check":
		return r.check()
	case folder == "":
		return fmt.Errorf("%s: which folder?", args[0])
	case args[0] == "alone":
		return r.alone(absolute(r.top, folder))
	case args[0] == "rehearse", args[0] == "release":
		return r.rehearse(absolute(r.top, folder), args[0] == "release")
	}
	return fmt.Errorf("%s: no such command", args[0])
}

func absolute(top, folder string) string {
	if filepath.IsAbs(folder) {
		return folder
	}
	return filepath.Join(top, folder)
}
