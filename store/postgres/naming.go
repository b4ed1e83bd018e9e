package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// naming says how statements are sent. Named, the pool by default prepares each
// statement once per connection, under the digest of its text. Without a name,
// a statement is described once per connection and planned each time.
type naming bool

const (
	asThePool naming = true
	unnamed   naming = false
)

// querier is a pool or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (n naming) through(db querier) querier {
	if n == asThePool {
		return db
	}
	return nameless{db}
}

// nameless sends statements without a name.
type nameless struct{ db querier }

func (n nameless) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return n.db.Exec(ctx, sql, describing(args)...)
}

func (n nameless) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return n.db.Query(ctx, sql, describing(args)...)
}

func (n nameless) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return n.db.QueryRow(ctx, sql, describing(args)...)
}

func describing(args []any) []any {
	return append([]any{pgx.QueryExecModeCacheDescribe}, args...)
}

// named runs do with prepared statements. If a statement is missing at the
// server, or exists already, a pooler works in transaction mode or another
// program has discarded the statements; from then on the store names no
// statements. These two errors, and the one for a changed result type, come
// before anything is carried out, so do is run again, a transaction as a whole.
// After a changed result type the connection prepares the statement again by
// itself.
func (s *Store) named(do func(naming) error) error {
	if !s.fallsBack || s.unnamed.Load() {
		return do(naming(!s.unnamed.Load()))
	}
	err := do(asThePool)
	refused, forGood := nameRefused(err)
	if !refused {
		return err
	}
	if forGood {
		s.unnamed.Store(true)
	}
	return do(unnamed)
}

// nameRefused reports whether a statement was refused because of its name, and
// whether this will happen again.
func nameRefused(err error) (refused, forGood bool) {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false, false
	}
	switch answer.Code {
	case "26000", "42P05": // no such prepared statement; duplicate prepared statement
		return true, true
	case "0A000": // cached plan must not change result type
		return true, false
	default:
		return false, false
	}
}
