package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/keyfile"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/keys"
)

// keysVariable is the environment variable with the text of the keys.
const keysVariable = "SOJOURN_KEYS"

// keysFlags are the flags of commands that open sealed values.
type keysFlags struct {
	Keys string `placeholder:"FILE" help:"Key file. Without it the keys are taken from the environment variable SOJOURN_KEYS."`
	Name string `default:"session" help:"Name of the sessions, as in the service's Config.Name."`

	Tenant string `help:"Tenant of the sessions, as the service's Config.Tenant returns it. Needed for a service with tenants only."`
}

// unsealer opens records with these keys.
func (f *keysFlags) unsealer(ring *seal.Ring) unsealer { return unsealer{ring, f.Name, f.Tenant} }

// given reports whether there are keys, on the command line or in the environment.
func (f *keysFlags) given() bool { return f.Keys != "" || os.Getenv(keysVariable) != "" }

// read returns the text of the keys, and its name for errors. Unlike a service,
// it never creates a key file.
func (f *keysFlags) read(term terminal) (text, name string, err error) {
	if f.Keys == "" {
		if text = os.Getenv(keysVariable); text == "" {
			return "", "", usagef("which keys? Give the key file with --keys FILE, or the keys in the environment variable %s", keysVariable)
		}
		return text, "the keys in the environment variable " + keysVariable, nil
	}
	info, text, err := readKeyFile(f.Keys)
	if err != nil {
		return "", "", err
	}
	if err := keyfile.Access(f.Keys, info); err != nil {
		fmt.Fprintf(term.messages, "warning: services refuse the key file: %v\n", err)
	}
	return text, "the key file " + f.Keys, nil // it exists, so its name is not a secret
}

// ring returns the keys, for opening sealed values.
func (f *keysFlags) ring(term terminal) (*seal.Ring, error) {
	ring, _, err := f.rings(term)
	return ring, err
}

// rings returns the keys, also for a manager.
func (f *keysFlags) rings(term terminal) (*seal.Ring, *sojourn.KeyRing, error) {
	text, name, err := f.read(term)
	if err != nil {
		return nil, nil, err
	}
	ring, err := seal.ParseKeys(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	keys, err := sojourn.ParseKeys(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return ring, keys, nil
}

type keygen struct {
	File  string `placeholder:"PATH" help:"Make a new key file there instead. A file that exists is left alone."`
	State string `enum:"active,published,index" default:"active" help:"What the key is for: active, published or index."`
}

func (keygen) Help() string {
	return `Prints one new key as an entry for SOJOURN_KEYS, or for a text in a secrets manager. It is a secret.

Several entries need their number in front, as in the example below. Without it, a text that was cut short would be a smaller set of keys, and visitors would be logged out.

An active key seals and opens. An index key finds the sessions of a user; there is one, and it stays when the others change. To change the keys of a running service, see sojourn keys.

Examples:

    sojourn keygen --file data/session.keys
    export SOJOURN_KEYS="entries:2 $(sojourn keygen) $(sojourn keygen --state index)"
`
}

func (c *keygen) Run(term terminal) error {
	if c.File == "" {
		_, secret, _ := strings.Cut(keys.Generate(), ":")
		_, err := fmt.Fprintf(term.out, "%s:%s\n", c.State, secret)
		return err
	}
	if c.State != "active" {
		return usagef("--state is for a single key; a new key file gets an active key and an index key")
	}
	made, err := keyfile.Make(c.File)
	if err != nil {
		return fmt.Errorf("making a key file: %w", err)
	}
	if !made {
		return fmt.Errorf("%s exists; a key file is never overwritten, because every session sealed with its keys would be lost", c.File)
	}
	_, err = fmt.Fprintf(term.out, "made %s, with a new key for sealing and one for finding users' sessions; keep a backup of it\n", c.File)
	return err
}
