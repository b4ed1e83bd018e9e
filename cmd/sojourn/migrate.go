package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sojourn-go/sojourn/store/open"
)

type migrate struct {
	storeFlag
	Check bool `help:"Change nothing; the exit status is 1 if there is something to do."`
	JSON  bool `name:"json" help:"Print JSON."`
}

func (migrate) Help() string {
	return `Brings the schema of a store up to date; for PostgreSQL it also creates a missing table. A service does the same when it opens its store. Use this command for services without the permission to change schemas, or before the roll-out of a new release. The previous release keeps working. Redis, memcached and Cloud Datastore have no schema.

Examples:

    sojourn migrate --store postgres://owner@db/app
    sojourn migrate --check --store sqlite:data/sessions.db
`
}

// schemaJSON is the output of migrate with --json.
type schemaJSON struct {
	Schema bool `json:"schema"` // whether this kind of store has one
	Before int  `json:"before"` // 0 = none yet
	After  int  `json:"after"`
	Newest int  `json:"newest"` // that this program supports
}

func (c *migrate) Run(ctx context.Context, term terminal) error {
	if err := c.named(); err != nil {
		return err
	}
	before, newest, err := open.Schema(ctx, c.Store)
	if errors.Is(err, errors.ErrUnsupported) {
		if c.JSON {
			return printJSON(term.out, schemaJSON{})
		}
		_, err := fmt.Fprintln(term.out, "this kind of store has no schema: there is nothing to do")
		return err
	}
	if err != nil {
		return storeError("--store", err)
	}
	if before > newest {
		return fmt.Errorf("the schema has version %d, and this program knows up to %d: use a newer one", before, newest)
	}
	result := schemaJSON{Schema: true, Before: before, After: before, Newest: newest}
	if !c.Check && before < newest {
		// Opening the store migrates it.
		_, closer, err := open.Store(ctx, c.Store)
		if err != nil {
			return storeError("--store", err)
		}
		if err := closer.Close(); err != nil {
			return err
		}
		if result.After, _, err = open.Schema(ctx, c.Store); err != nil {
			return storeError("--store", err)
		}
	}
	if c.JSON {
		err = printJSON(term.out, result)
	} else {
		_, err = fmt.Fprintln(term.out, result.text())
	}
	if err == nil && result.After < newest {
		err = errors.New("the schema is not up to date")
	}
	return err
}

func (s schemaJSON) text() string {
	switch {
	case s.After < s.Newest && s.Before == 0:
		return fmt.Sprintf("no schema yet; %d is the newest", s.Newest)
	case s.After < s.Newest:
		return fmt.Sprintf("schema version %d; %d is the newest", s.Before, s.Newest)
	case s.Before == s.After:
		return fmt.Sprintf("schema version %d is up to date", s.After)
	case s.Before == 0:
		return fmt.Sprintf("made schema version %d", s.After)
	default:
		return fmt.Sprintf("brought the schema from version %d to %d", s.Before, s.After)
	}
}
