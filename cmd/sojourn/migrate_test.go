package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/sojourn-go/sojourn"
)

// older downgrades a database to the schema of the first release.
func older(t *testing.T, url string) {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(url, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec("DROP TRIGGER sessions_end; DROP TRIGGER sessions_insert_end; DROP TABLE ends; PRAGMA user_version=1")
	if err != nil {
		t.Fatal(err)
	}
}

func migrated(t *testing.T, r result) (m schemaJSON) {
	t.Helper()
	r.ok(t).json(t, &m)
	return m
}

func TestMigrateBringsTheSchemaUpToDate(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	ada, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	older(t, s.store)

	sojournCommand(t, "ls", "--store", s.store).refused(t, exitFailed, "sojourn migrate")
	for range 2 {
		r := sojournCommand(t, "migrate", "--check", "--store", s.store)
		if r.status != exitFailed || !strings.Contains(r.stdout, "schema version 1;") || !strings.Contains(r.stderr, "not up to date") {
			t.Errorf("--check: %+v", r)
		}
	}
	m := migrated(t, sojournCommand(t, "migrate", "-json", "--store", s.store))
	if !m.Schema || m.Before != 1 || m.After != m.Newest || m.Newest < 2 {
		t.Errorf("migrate: %+v", m)
	}
	if r := sojournCommand(t, "migrate", "--store", s.store).ok(t); !strings.Contains(r.stdout, "is up to date") {
		t.Errorf("migrate again: %s", r.stdout)
	}
	sojournCommand(t, "migrate", "--check", "--store", s.store).ok(t)
	if rows := listed(t, "--store", s.store); len(rows) != 1 || rows[0].Handle != ada {
		t.Errorf("then there are %+v", rows)
	}
}

func TestMigrateMakesTheTableOfPostgreSQL(t *testing.T) {
	t.Parallel()
	url := postgres().NewDatabase(t)
	r := sojournCommand(t, "migrate", "--check", "--store", url)
	if r.status != exitFailed || !strings.Contains(r.stdout, "no schema yet") {
		t.Errorf("--check: %+v", r)
	}
	m := migrated(t, sojournCommand(t, "migrate", "-json", "--store", url))
	if m.Before != 0 || m.After != m.Newest || m.Newest < 1 {
		t.Errorf("migrate: %+v", m)
	}
	sojournCommand(t, "migrate", "--check", "--store", url).ok(t)
	if rows := listed(t, "--store", url); len(rows) != 0 {
		t.Errorf("then there are %+v", rows)
	}
}

func TestMigrateOfAStoreWithoutASchemaSaysSo(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"redis://127.0.0.1:1", "memcached://127.0.0.1:1", "datastore://project"} {
		if r := sojournCommand(t, "migrate", "--store", url).ok(t); !strings.Contains(r.stdout, "no schema") {
			t.Errorf("%s: %s", url, r.stdout)
		}
		if m := migrated(t, sojournCommand(t, "migrate", "-json", "--store", url)); m != (schemaJSON{}) {
			t.Errorf("%s: %+v", url, m)
		}
	}
}

func TestMigrateMakesNoFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	sojournCommand(t, "migrate", "--store", "sqlite:"+path).refused(t, exitFailed, "no such store")
	sojournCommand(t, "migrate").refused(t, exitUsage, "SOJOURN_STORE")
	sojournCommand(t, "migrate", "--store", "floppy:a").refused(t, exitUsage, "opens no stores of that kind")
}
