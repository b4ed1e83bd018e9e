package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/store"
)

// master is a server with its own keys.
type master struct {
	rdb valkey.Client
	run string // the server's run ID, new with each start
}

// masters returns the servers that together have all keys, in an order that
// lasts as long as they do.
func (s *Store) masters(ctx context.Context, rdb valkey.Client) ([]master, error) {
	if s.options.Cluster {
		text, err := rdb.Do(ctx, s.build.ClusterInfo().Build()).ToString()
		if err != nil {
			return nil, err
		}
		if infoField(text, "cluster_slots_ok") != "16384" {
			return nil, errors.New("some slots of the Cluster have no server")
		}
	}
	var found []master
	for _, node := range rdb.Nodes() {
		answers := node.DoMulti(ctx, node.B().Info().Section("server").Build(), node.B().Info().Section("replication").Build())
		server, err := answers[0].ToString()
		if err != nil {
			return nil, err
		}
		replication, err := answers[1].ToString()
		if err != nil {
			return nil, err
		}
		if infoField(replication, "role") == "master" {
			found = append(found, master{node, infoField(server, "run_id")})
		}
	}
	if len(found) == 0 {
		return nil, errors.New("none of the servers is a master")
	}
	slices.SortFunc(found, func(a, b master) int { return cmp.Compare(a.run, b.run) })
	return found, nil
}

// infoField returns a field of the answer to INFO or CLUSTER INFO.
func infoField(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// ErrScanCursor means that a scan cannot continue: the cursor is not from this
// store, or one of the servers has restarted or lost its role since the scan
// began. Start the scan again.
var ErrScanCursor = errors.New("redis: the cursor is of no use with these servers")

// Scan returns the next records; see [store.Scanner]. It runs SCAN on one
// master after the other, which visits all keys of the database, including
// those of other programs. If a server restarts or fails over during a scan,
// the scan ends with ErrScanCursor. A record that a Cluster moves to another
// node during the scan may be missing.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	var ids []store.ID
	next, known := "", true
	err := s.patiently(ctx, true, func(l *link) (err error) {
		ids, next, known, err = s.scanOn(ctx, l.rdb, cursor, limit)
		return err
	})
	if !known {
		return nil, "", ErrScanCursor
	}
	var recs []store.Record
	if err == nil {
		recs, err = s.loadAll(ctx, ids)
	}
	if err != nil {
		return nil, "", failed("scan", err)
	}
	return recs, next, nil
}

// scanOn returns the next IDs and the next cursor; or false if the cursor is
// invalid.
func (s *Store) scanOn(ctx context.Context, rdb valkey.Client, cursor string, limit int) (ids []store.ID, next string, known bool, err error) {
	masters, err := s.masters(ctx, rdb)
	if err != nil {
		return nil, "", true, err
	}
	servers := fnv.New64a()
	for _, m := range masters {
		_, _ = servers.Write([]byte(m.run)) // never fails
	}
	// The cursor has a hash of the servers, the index of the current one, and
	// SCAN's own cursor there.
	begun, at, inner := servers.Sum64(), 0, uint64(0)
	if cursor != "" {
		n, _ := fmt.Sscanf(cursor, "%x-%d-%d", &begun, &at, &inner) // fewer than three if it fails
		if n != 3 || at < 0 || at >= len(masters) || begun != servers.Sum64() {
			return nil, "", false, nil //nolint:nilerr // the caller returns ErrScanCursor
		}
	}
	ids, inner, err = s.scanKeys(ctx, masters[at].rdb, inner, limit)
	if err != nil {
		return nil, "", true, err
	}
	if inner == 0 {
		if at++; at == len(masters) {
			return ids, "", true, nil
		}
	}
	return ids, fmt.Sprintf("%x-%d-%d", begun, at, inner), true, nil
}

// scanRounds is how often one page reads more keys if few of them are sessions.
const scanRounds = 16

// scanKeys returns about limit distinct IDs and the next cursor; 0 is the end.
func (s *Store) scanKeys(ctx context.Context, rdb valkey.Client, from uint64, limit int) ([]store.ID, uint64, error) {
	prefix := s.options.Prefix + sessionKeys
	pattern := globEscape.Replace(prefix) + "*"
	seen := map[store.ID]bool{}
	var ids []store.ID
	for range scanRounds {
		entry, err := rdb.Do(ctx, rdb.B().Scan().Cursor(from).Match(pattern).Count(int64(max(limit, 1))).Build()).AsScanEntry()
		if err != nil {
			return nil, 0, err
		}
		for _, key := range entry.Elements {
			if id, err := store.ParseID(strings.TrimPrefix(key, prefix)); err == nil && !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		if from = entry.Cursor; from == 0 || len(ids) >= limit {
			break
		}
	}
	return ids, from, nil
}

var globEscape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
