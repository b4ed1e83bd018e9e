package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sojourn-go/sojourn/store"
)

// A verdict is what an error says about the statement that met it.
type verdict struct {
	// refused: the statement was not carried out and never will be. Otherwise
	// nobody knows.
	refused bool
	// again: the reason passes by itself, so waiting is worth while.
	again bool
	// discard: the reason lies in the connection, which must not be used again.
	discard bool
	// row: if the statement was for many rows, one of them may be the reason.
	row bool
}

var (
	lost      = verdict{discard: true}
	elsewhere = verdict{refused: true, again: true, discard: true} // another connection may do it, now or soon
	soon      = verdict{refused: true, again: true, row: true}
	oneRow    = verdict{refused: true, row: true}
	never     = verdict{refused: true}
)

// verdicts say what SQLSTATEs mean, by code or by class. A statement of the store
// is a transaction of its own, and an ERROR says that it was rolled back: the
// server commits first and then answers, and what fails after that is no ERROR.
// Whatever is in neither table may be one row's fault.
var verdicts = map[string]verdict{
	// Not the server's word on the statement, but somebody's in between.
	"08":    lost, // connection exception
	"08007": lost, // transaction resolution unknown
	"40003": lost, // statement completion unknown

	// The server or this session of it does not write.
	"25":    {refused: true, discard: true}, // invalid transaction state
	"25006": elsewhere,                      // read only: a standby, or default_transaction_read_only
	"25P02": elsewhere,                      // somebody left the session within a transaction that failed
	"55000": elsewhere,                      // not in the required state: recovery is in progress

	// Another transaction was in the way.
	"40":    soon,   // transaction rollback
	"40001": soon,   // serialization failure
	"40P01": soon,   // deadlock detected
	"55P03": oneRow, // lock not available: lock_timeout
	"57014": oneRow, // query canceled: statement_timeout, or the store has taken it back

	// What an operator has to see to.
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

// refusedSessions are the SQLSTATEs with which the server ends a session before
// it has carried out anything of it, or after nothing was asked of it for long.
// Every other FATAL or PANIC may have come after a commit whose answer was still
// to be sent.
var refusedSessions = map[string]bool{
	"53300": true, // too many connections
	"57P03": true, // cannot connect now: starting up, shutting down, in recovery
	"57P05": true, // idle_session_timeout
	"28000": true, // invalid authorization
	"28P01": true, // wrong password
	"3D000": true, // no such database
	"42501": true, // no right to connect
}

// poolerRefusals begin what PgBouncer, with SQLSTATE 08P01, tells clients that
// wait for a connection to the server: nothing they sent has been passed on.
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

// errStandby says that a server answered which only follows another one. What it
// knows is old: a session that has ended may be live there.
var errStandby = errors.New("the server is a standby, which must not be read from")

// judge returns the verdict on an error of a statement that was given to a
// connection.
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

// errNotSent says that there was no connection to send a statement on.
var errNotSent = errors.New("no connection to the database")

// told is the error of a call that met err.
func told(err error) error {
	if err != nil && judge(err).refused && !errors.Is(err, store.ErrRefused) {
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	return err
}
