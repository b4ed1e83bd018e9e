package redis

import (
	"context"
	"crypto/sha1" // by which Redis names scripts; it protects nothing here
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/valkey-io/valkey-go"
)

// script is a program that runs on the server, on one key, in one step.
type script struct{ text, digest string }

func newScript(text string) script {
	sum := sha1.Sum([]byte(text))
	return script{text, hex.EncodeToString(sum[:])}
}

// command calls a script by its digest or, for a server that does not know it
// yet, with its text, from which the server learns it.
func (c *client) command(s script, known bool, key string, args []string) valkey.Completed {
	if known {
		return c.rdb.B().Evalsha().Sha1(s.digest).Numkeys(1).Key(key).Arg(args...).Build()
	}
	return c.rdb.B().Eval().Script(s.text).Numkeys(1).Key(key).Arg(args...).Build()
}

// eval runs a script in one round trip, or in two on a server that does not
// know it: one that has just been started, or has just become the master.
func (c *client) eval(ctx context.Context, s script, key string, args ...string) (valkey.ValkeyMessage, error) {
	run := func(known bool) (valkey.ValkeyMessage, error) {
		return c.do(ctx, func() valkey.Completed { return c.command(s, known, key, args) })
	}
	m, err := run(true)
	if isNoScript(err) {
		return run(false)
	}
	return m, err
}

// evalKept is eval, and waits until enough replicas have what was written. It
// returns the script's answer even when they do not, together with an error.
func (s *Store) evalKept(ctx context.Context, sc script, key string, args ...string) (valkey.ValkeyMessage, error) {
	if s.replicas == 0 {
		return s.eval(ctx, sc, key, args...)
	}
	m, acknowledged, err := s.evalAndWait(ctx, sc, true, key, args)
	if isNoScript(err) {
		m, acknowledged, err = s.evalAndWait(ctx, sc, false, key, args)
	}
	if err == nil && acknowledged < int64(s.replicas) {
		err = fmt.Errorf("%w: %d of %d", errTooFewReplicas, acknowledged, s.replicas)
	}
	return m, err
}

// evalAndWait runs a script and WAIT on the same connection: on another one,
// WAIT would have nothing to wait for.
func (s *Store) evalAndWait(ctx context.Context, sc script, known bool, key string, args []string) (m valkey.ValkeyMessage, acknowledged int64, err error) {
	if err := ctx.Err(); err != nil {
		return m, 0, err
	}
	patience := s.replicaTimeout
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end))
	}
	wait := max(patience.Milliseconds(), 1) // 0 would wait for ever
	answers := s.together(ctx, func() valkey.Commands {
		return valkey.Commands{
			s.command(sc, known, key, args),
			s.rdb.B().Wait().Numreplicas(int64(s.replicas)).Timeout(wait).Build(),
		}
	})
	if m, err = answers[0].ToMessage(); err != nil {
		return m, 0, err
	}
	acknowledged, err = answers[1].AsInt64()
	return m, acknowledged, err
}

// together runs commands on one connection that nobody else uses meanwhile. In
// a Cluster the library follows redirections command by command, which would
// tear them apart; so there they are followed here, once.
func (c *client) together(ctx context.Context, commands func() valkey.Commands) []valkey.ValkeyResult {
	if !c.cluster {
		return c.rdb.DoMulti(ctx, commands()...)
	}
	connection, release := c.rdb.Dedicate()
	answers := connection.DoMulti(ctx, commands()...)
	go release() // it asks the server to reset the connection
	refused, ok := valkey.IsValkeyErr(answers[0].Error())
	if !ok {
		return answers
	}
	if addr, ok := refused.IsMoved(); ok {
		if node := c.rdb.Nodes()[addr]; node != nil {
			return node.DoMulti(ctx, commands()...)
		}
	}
	if addr, ok := refused.IsAsk(); ok {
		if node := c.rdb.Nodes()[addr]; node != nil {
			asking := append(valkey.Commands{c.rdb.B().Asking().Build()}, commands()...)
			return node.DoMulti(ctx, asking...)[1:]
		}
	}
	return answers
}

// errTooFewReplicas leaves the outcome of a save open, as every error does: the
// master has it, and may lose it.
var errTooFewReplicas = errors.New("too few replicas have acknowledged it")

func isNoScript(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	return ok && e.IsNoScript()
}
