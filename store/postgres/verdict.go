package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sojourn-go/sojourn/store"
)

// A verdict is the meaning of an error for its statement.
type verdict struct {
	// refused: the statement was not carried out and never will be. Otherwise
	// that is unknown.
	refused bool
	// again: the cause is temporary, so it is worth waiting.
	again bool
	// discard: the cause is the connection, which must not be used again.
	discard bool
	// row: if the statement was for many rows, one of them may be the cause.
	row bool
}

var (
	lost      = verdict{discard: true}
	elsewhere = verdict{refused: true, again: true, discard: true} // another connection may succeed, now or soon
	soon      = verdict{refused: true, again: true, row: true}
	oneRow    = verdict{refused: true, row: true}
	never     = verdict{refused: true}
)

// verdicts has the meaning of SQLSTATEs, by code or by class. Each statement of
// the store is a separate transaction, and an ERROR means that it was rolled
// back: the server answers after the commit, and a later failure is not an
// ERROR. A code in neither table may be caused by one row.
var verdicts = map[string]verdict{
	// These may come from a pooler, and say nothing about the statement.
	"08":    lost, // connection exception
	"08007": lost, // transaction resolution unknown
	"40003": lost, // statement completion unknown

	// The server, or this session, is read-only.
	"25":    {refused: true, discard: true}, // invalid transaction state
	"25006": elsewhere,                      // read only: a standby, or default_transaction_read_only
	"25P02": elsewhere,                      // another client left the session in a failed transaction
	"55000": elsewhere,                      // not in the required state: recovery is in progress

	// Another transaction conflicted.
	"40":    soon,   // transaction rollback
	"40001": soon,   // serialization failure
	"40P01": soon,   // deadlock detected
	"55P03": oneRow, // lock not available: lock_timeout
	"57014": oneRow, // query canceled: statement_timeout, or canceled by the store

	// Errors that an operator must fix.
	"26": never, // an unknown prepared statement
	"28": never, // invalid authorization
	"3D": never, // no such database
	"3F": never, // no such schema
	"42": never, // access rule violation, a missing table
	"53": never, // insufficient resources: disk full, out of memory
	"57": never, // operator intervention
	"58": never, // system error
	"F0": never, // configuration file error
	"XX": never, // internal error

	"XX001": oneRow, // data corrupted
	"XX002": oneRow, // index corrupted
}

// refusedSessions are the SQLSTATEs with which the server ends a session that
// has not begun or is idle. Any other FATAL or PANIC may have come after a
// commit and before its answer.
var refusedSessions = map[string]bool{
	"53300": true, // too many connections
	"57P03": true, // cannot connect now: starting up, shutting down, in recovery
	"57P05": true, // idle_session_timeout
	"28000": true, // invalid authorization
	"28P01": true, // wrong password
	"3D000": true, // no such database
	"42501": true, // no right to connect
}

// poolerRefusals are the beginnings of PgBouncer's errors, with SQLSTATE 08P01,
// for clients that wait for a server connection: nothing they sent was
// forwarded.
var poolerRefusals = []string{
	"query_wait_timeout",
	"client_login_timeout",
	"no more connections allowed",
	"server login has been failing",
	"server login failed",
	"server DNS lookup failed",
	"pgbouncer cannot connect to server",
	"cannot connect to server",
}

// errStandby means that a standby answered. Its data is outdated: an ended
// session may be live there.
var errStandby = errors.New("the server is a standby, which must not be read from")

// judge returns the verdict on an error of a statement on a connection.
func judge(err error) verdict {
	var answer *pgconn.PgError
	switch {
	case err == nil:
		return verdict{}
	case errors.Is(err, errNotSent), errors.Is(err, errStandby), pgconn.SafeToRetry(err):
		return elsewhere
	case errors.Is(err, errNotARecord):
		return oneRow
	case errors.As(err, &answer):
		return judgeAnswer(answer)
	default:
		return lost
	}
}

func judgeAnswer(answer *pgconn.PgError) verdict {
	severity := answer.SeverityUnlocalized
	if severity == "" { // a pooler's
		severity = answer.Severity
	}
	if severity != "ERROR" {
		if refusedSessions[answer.Code] || answer.Code == "08P01" && isPoolerRefusal(answer.Message) {
			return elsewhere
		}
		return lost
	}
	if v, ok := verdicts[answer.Code]; ok {
		return v
	}
	if len(answer.Code) == 5 {
		if v, ok := verdicts[answer.Code[:2]]; ok {
			return v
		}
	}
	return oneRow
}

func isPoolerRefusal(message string) bool {
	for _, begin := range poolerRefusals {
		if strings.HasPrefix(message, begin) {
			return true
		}
	}
	return false
}

// errNotSent means that a statement was not sent.
var errNotSent = errors.New("no connection to the database")

// told returns a call's error for err.
func told(err error) error {
	if err != nil && judge(err).refused && !errors.Is(err, store.ErrRefused) {
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	return err
}
