package redis

import (
	"context"
	"crypto/sha1" // Redis names scripts by it; no security depends on it
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

// call calls a script by its digest, or with its text, which the server then
// caches.
func (c *client) call(s script, known bool, key string, args []string) valkey.Completed {
	if known {
		return c.build.Evalsha().Sha1(s.digest).Numkeys(1).Key(key).Arg(args...).Build()
	}
	return c.build.Eval().Script(s.text).Numkeys(1).Key(key).Arg(args...).Build()
}

// inText runs a script by its digest, and once more with its text on a server
// that does not know it: such as after a restart or a failover.
func inText(run func(known bool) error) error {
	err := run(true)
	var answer *valkey.ValkeyError
	if errors.As(err, &answer) && answer.IsNoScript() {
		return run(false)
	}
	return err
}

// run runs a script that writes, and whose answer is a reply, in one round trip, or
// in two on a server that does not know it.
func (c *client) run(ctx context.Context, s script, key string, args ...string) (r reply, err error) {
	err = inText(func(known bool) error {
		return c.patiently(ctx, false, func(l *link) (err error) {
			r, err = c.roundTrip(ctx, l, func() valkey.Completed { return c.call(s, known, key, args) })
			return err
		})
	})
	return r, err
}

// eval is run for answers of any kind.
func (c *client) eval(ctx context.Context, reads bool, s script, key string, args ...string) (m valkey.ValkeyMessage, err error) {
	err = inText(func(known bool) error {
		m, err = c.message(ctx, reads, func() valkey.Completed { return c.call(s, known, key, args) })
		return err
	})
	return m, err
}

// runKept is run, and then waits until enough replicas have the write. If they
// do not, it returns the script's answer together with an error.
func (s *Store) runKept(ctx context.Context, sc script, key string, args ...string) (reply, error) {
	if s.options.Replicas == 0 {
		return s.run(ctx, sc, key, args...)
	}
	m, err := s.evalKept(ctx, sc, key, args...)
	r, e := replyOf(m)
	if err == nil {
		err = e
	}
	return r, err
}

// evalKept is runKept for answers of any kind.
func (s *Store) evalKept(ctx context.Context, sc script, key string, args ...string) (m valkey.ValkeyMessage, err error) {
	replicas := int64(s.options.Replicas)
	if replicas == 0 {
		return s.eval(ctx, false, sc, key, args...)
	}
	var acknowledged int64
	err = inText(func(known bool) error {
		return s.patiently(ctx, false, func(l *link) (err error) {
			m, acknowledged, err = s.evalAndWait(ctx, l, sc, known, key, args)
			return err
		})
	})
	if err == nil && acknowledged < replicas {
		err = fmt.Errorf("%w: %d of %d", errTooFewReplicas, acknowledged, replicas)
	}
	return m, err
}

// evalAndWait runs a script and WAIT on the same connection: on another
// connection, WAIT would have nothing to wait for.
func (s *Store) evalAndWait(ctx context.Context, l *link, sc script, known bool, key string, args []string) (m valkey.ValkeyMessage, acknowledged int64, err error) {
	patience := s.options.ReplicaTimeout
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end))
	}
	wait := max(patience.Milliseconds(), 1) // 0 would wait without limit
	answers := s.together(ctx, l.rdb, func() valkey.Commands {
		return valkey.Commands{
			s.call(sc, known, key, args),
			s.build.Wait().Numreplicas(int64(s.options.Replicas)).Timeout(wait).Build(),
		}
	})
	if m, err = answers[0].ToMessage(); err != nil {
		return m, 0, err
	}
	acknowledged, err = answers[1].AsInt64()
	if err != nil {
		err = fmt.Errorf("%w: %s", errTooFewReplicas, err.Error()) // whatever the reason, it was written
	}
	return m, acknowledged, err
}

// together runs commands on one connection that no other call uses meanwhile.
// In a Cluster the library would follow redirections for each command
// separately, so together follows them itself, once for all commands.
func (c *client) together(ctx context.Context, rdb valkey.Client, commands func() valkey.Commands) []valkey.ValkeyResult {
	if !c.options.Cluster {
		return rdb.DoMulti(ctx, commands()...)
	}
	connection, release := rdb.Dedicate()
	answers := connection.DoMulti(ctx, commands()...)
	go release() // it resets the connection, which takes a round trip
	refused, ok := valkey.IsValkeyErr(answers[0].Error())
	if !ok {
		return answers
	}
	if addr, ok := refused.IsMoved(); ok {
		if node := rdb.Nodes()[addr]; node != nil {
			return node.DoMulti(ctx, commands()...)
		}
	}
	if addr, ok := refused.IsAsk(); ok {
		if node := rdb.Nodes()[addr]; node != nil {
			asking := append(valkey.Commands{c.build.Asking().Build()}, commands()...)
			return node.DoMulti(ctx, asking...)[1:]
		}
	}
	return answers
}

// errTooFewReplicas leaves the outcome of a save unknown: the master has it,
// but may lose it.
var errTooFewReplicas = errors.New("too few replicas have acknowledged it")
