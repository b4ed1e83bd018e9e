package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// moveState is the state between passes, kept in the file that --state names.
// It contains no secrets.
type moveState struct {
	From   string `json:"from"` // names of the stores, without passwords
	To     string `json:"to"`
	Passes int    `json:"passes"` // number of finished passes
	// Started and Finished are those of the last finished pass before the
	// switch.
	Started  time.Time  `json:"started"`
	Finished time.Time  `json:"finished"`
	Switched bool       `json:"switched"` // a pass after the switch has begun
	Last     tally      `json:"last"`     // of the last finished pass
	Current  *passState `json:"current"`  // the pass under way; nil = none
}

// passState is the progress of a pass.
type passState struct {
	Started  time.Time `json:"started"`
	Switched bool      `json:"switched"`
	Step     string    `json:"step"`
	Cursor   string    `json:"cursor"` // "" = from the start
	Tally    tally     `json:"tally"`
}

// The steps of a pass, in their order.
const (
	stepCheck = "check" // walks the new store, for sessions that are no longer in the old one
	stepCopy  = ""      // walks the old store
)

// loadMove reads the state of a move, or returns the initial state.
func loadMove(path, from, to string) (*moveState, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &moveState{From: from, To: to}, nil
	}
	if err != nil {
		return nil, fileError("--state", err)
	}
	var m moveState
	if err := json.Unmarshal(b, &m); err != nil || m.From == "" {
		return nil, fmt.Errorf("--state: %s is not the state of a copy", path)
	}
	if m.From != from || m.To != to {
		return nil, usagef("--state: %s belongs to a copy from %s to %s", path, m.From, m.To)
	}
	return &m, nil
}

// mayPass refuses a pass that is out of order.
func (m *moveState) mayPass(switched bool) error {
	switch {
	case switched && m.Passes == 0:
		return usagef("--switched: no pass has been finished before the switch; copy without it first")
	case !switched && m.Switched:
		return usagef("a pass with --switched was made: the service uses the new store now, and only more of those make sense")
	}
	return nil
}

// finish records the end of the current pass.
func (m *moveState) finish(n tally) {
	m.Passes++
	m.Last = n
	if !m.Current.Switched {
		m.Started, m.Finished = m.Current.Started, time.Now().UTC()
	}
	m.Current = nil
}

// save writes the state atomically.
func (m *moveState) save(path string) (err error) {
	if m.Current != nil && m.Current.Switched {
		m.Switched = true
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("--state: %w", err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// storeName is a store's URL without possible secrets.
func storeName(text string) string {
	before, options, _ := strings.Cut(text, "?")
	if scheme, rest, ok := strings.Cut(before, "://"); ok {
		rest = rest[strings.LastIndexByte(rest, '@')+1:]
		before = scheme + "://" + rest
	}
	query, err := url.ParseQuery(options)
	if err != nil {
		return before
	}
	for name := range query {
		if strings.Contains(name, "pass") {
			query.Del(name)
		}
	}
	if len(query) > 0 {
		before += "?" + query.Encode()
	}
	return before
}
