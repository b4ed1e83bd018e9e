package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

var (
	errEmailTaken = errors.New("a customer with that address exists")
	errNoCustomer = errors.New("no such customer")
	errNoOrder    = errors.New("no such order")
)

// ledger keeps customers and orders, which outlive sessions. It has its own
// file, because sessions may be kept elsewhere.
type ledger struct{ db *sql.DB }

const ledgerSchema = `
CREATE TABLE IF NOT EXISTS customers (
	id       TEXT PRIMARY KEY,
	email    TEXT NOT NULL UNIQUE,
	name     TEXT NOT NULL,
	password TEXT NOT NULL         -- hash; '' = signs in with OpenID Connect
) STRICT;
CREATE TABLE IF NOT EXISTS identities (
	issuer   TEXT NOT NULL,        -- of OpenID Connect; a subject is unique to it
	subject  TEXT NOT NULL,
	customer TEXT NOT NULL UNIQUE REFERENCES customers(id),
	PRIMARY KEY (issuer, subject)
) STRICT;
CREATE TABLE IF NOT EXISTS orders (
	number   TEXT PRIMARY KEY,
	token    TEXT NOT NULL UNIQUE, -- of the checkout form; sent twice, ordered once
	customer TEXT NOT NULL REFERENCES customers(id),
	placed   INTEGER NOT NULL,     -- Unix milliseconds
	name     TEXT NOT NULL,
	street   TEXT NOT NULL,
	city     TEXT NOT NULL,
	payment  TEXT NOT NULL,
	total    INTEGER NOT NULL      -- cents
) STRICT;
CREATE INDEX IF NOT EXISTS orders_by_customer ON orders(customer, placed);
CREATE TABLE IF NOT EXISTS order_lines (
	number   TEXT NOT NULL REFERENCES orders(number),
	slug     TEXT NOT NULL,
	quantity INTEGER NOT NULL,
	cents    INTEGER NOT NULL,     -- each, on that day
	PRIMARY KEY (number, slug)
) STRICT;`

// openLedger opens or makes the database file. Its folder must exist.
func openLedger(path string) (*ledger, error) {
	// It holds password hashes: readable by its owner only.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	file.Close()
	// Write transactions take their lock at the start and wait for it.
	query := url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	if _, err := db.Exec(ledgerSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", path, err), db.Close())
	}
	return &ledger{db}, nil
}

func (l *ledger) close() error { return l.db.Close() }

// addCustomer returns the new customer's id, or errEmailTaken.
func (l *ledger) addCustomer(ctx context.Context, name, email, passwordHash string) (string, error) {
	id := rand.Text()
	res, err := l.db.ExecContext(ctx,
		`INSERT INTO customers (id, email, name, password) VALUES (?, ?, ?, ?) ON CONFLICT (email) DO NOTHING`,
		id, email, name, passwordHash)
	if err != nil {
		return "", fmt.Errorf("adding a customer: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(err, errEmailTaken)
	}
	return id, nil
}

// customerOf returns the id of a provider's user, or errNoCustomer.
func (l *ledger) customerOf(ctx context.Context, issuer, subject string) (id string, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT customer FROM identities WHERE issuer = ? AND subject = ?`, issuer, subject).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", errNoCustomer
	}
	if err != nil {
		return "", fmt.Errorf("finding a customer: %w", err)
	}
	return id, nil
}

// addCustomerOf returns the id of a provider's user, who becomes a customer without
// a password unless another request was faster; or errEmailTaken.
func (l *ledger) addCustomerOf(ctx context.Context, issuer, subject, name, email string) (id string, err error) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("adding a customer: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a Commit it does nothing
	err = tx.QueryRowContext(ctx, `SELECT customer FROM identities WHERE issuer = ? AND subject = ?`, issuer, subject).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	id = rand.Text()
	res, err := tx.ExecContext(ctx,
		`INSERT INTO customers (id, email, name, password) VALUES (?, ?, ?, '') ON CONFLICT (email) DO NOTHING`, id, email, name)
	if err != nil {
		return "", fmt.Errorf("adding a customer: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(err, errEmailTaken)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO identities (issuer, subject, customer) VALUES (?, ?, ?)`, issuer, subject, id); err != nil {
		return "", fmt.Errorf("adding a customer: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return "", fmt.Errorf("adding a customer: %w", err)
	}
	return id, nil
}

// issuerOf returns the provider that a customer signs in with; "" = a password.
func (l *ledger) issuerOf(ctx context.Context, customer string) (issuer string, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT issuer FROM identities WHERE customer = ?`, customer).Scan(&issuer)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("finding a customer's provider: %w", err)
	}
	return issuer, nil
}

// customerByEmail returns errNoCustomer, and an empty hash, if there is none.
func (l *ledger) customerByEmail(ctx context.Context, email string) (id, name, passwordHash string, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT id, name, password FROM customers WHERE email = ?`, email).Scan(&id, &name, &passwordHash)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", "", errNoCustomer
	}
	if err != nil {
		return "", "", "", fmt.Errorf("finding a customer: %w", err)
	}
	return id, name, passwordHash, nil
}

// customer returns the name, address and password hash of a customer, or
// errNoCustomer.
func (l *ledger) customer(ctx context.Context, id string) (c Customer, passwordHash string, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT name, email, password FROM customers WHERE id = ?`, id).Scan(&c.Name, &c.Email, &passwordHash)
	if errors.Is(err, sql.ErrNoRows) {
		return Customer{}, "", errNoCustomer
	}
	if err != nil {
		return Customer{}, "", fmt.Errorf("finding a customer: %w", err)
	}
	return c, passwordHash, nil
}

// setPassword gives a customer another password.
func (l *ledger) setPassword(ctx context.Context, id, passwordHash string) error {
	if _, err := l.db.ExecContext(ctx, `UPDATE customers SET password = ? WHERE id = ?`, passwordHash, id); err != nil {
		return fmt.Errorf("changing a password: %w", err)
	}
	return nil
}

// delivery is the input of the checkout form.
type delivery struct{ Name, Street, City, Payment string }

// order is a placed order.
type order struct {
	Number string
	Placed time.Time
	delivery
	bill
}

// placeOrder writes an order and returns its number. For a used token it
// returns the number of the existing order.
func (l *ledger) placeOrder(ctx context.Context, customer, token string, d delivery, b bill) (string, error) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("placing an order: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a Commit it does nothing
	var number string
	err = tx.QueryRowContext(ctx, `SELECT number FROM orders WHERE token = ? AND customer = ?`, token, customer).Scan(&number)
	if !errors.Is(err, sql.ErrNoRows) {
		return number, err
	}
	number = "FW-" + rand.Text()[:8]
	_, err = tx.ExecContext(ctx,
		`INSERT INTO orders (number, token, customer, placed, name, street, city, payment, total) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		number, token, customer, time.Now().UnixMilli(), d.Name, d.Street, d.City, d.Payment, b.Total)
	if err != nil {
		return "", fmt.Errorf("placing an order: %w", err)
	}
	for _, line := range b.Lines {
		_, err := tx.ExecContext(ctx, `INSERT INTO order_lines (number, slug, quantity, cents) VALUES (?, ?, ?, ?)`,
			number, line.Slug, line.Quantity, line.Cents)
		if err != nil {
			return "", fmt.Errorf("placing an order: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return "", fmt.Errorf("placing an order: %w", err)
	}
	return number, nil
}

// orderByToken returns the number of the order that a checkout made, or
// errNoOrder.
func (l *ledger) orderByToken(ctx context.Context, customer, token string) (string, error) {
	var number string
	err := l.db.QueryRowContext(ctx, `SELECT number FROM orders WHERE token = ? AND customer = ?`, token, customer).Scan(&number)
	if errors.Is(err, sql.ErrNoRows) {
		return "", errNoOrder
	}
	if err != nil {
		return "", fmt.Errorf("finding an order: %w", err)
	}
	return number, nil
}

// orders returns a customer's orders, newest first, without their lines.
func (l *ledger) orders(ctx context.Context, customer string) ([]order, error) {
	rows, err := l.db.QueryContext(ctx,
		`SELECT number, placed, name, street, city, payment, total FROM orders WHERE customer = ? ORDER BY placed DESC, number`, customer)
	if err != nil {
		return nil, fmt.Errorf("listing orders: %w", err)
	}
	defer rows.Close()
	var all []order
	for rows.Next() {
		o, err := scanOrder(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing orders: %w", err)
	}
	return all, nil
}

// order returns one of a customer's orders, or errNoOrder, also for another
// customer's.
func (l *ledger) order(ctx context.Context, customer, number string) (order, error) {
	o, err := scanOrder(l.db.QueryRowContext(ctx,
		`SELECT number, placed, name, street, city, payment, total FROM orders WHERE customer = ? AND number = ?`, customer, number))
	if err != nil {
		return order{}, err
	}
	rows, err := l.db.QueryContext(ctx, `SELECT slug, quantity, cents FROM order_lines WHERE number = ? ORDER BY rowid`, number)
	if err != nil {
		return order{}, fmt.Errorf("reading an order: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var line billLine
		if err := rows.Scan(&line.Slug, &line.Quantity, &line.Cents); err != nil {
			return order{}, fmt.Errorf("reading an order: %w", err)
		}
		if p, ok := find(line.Slug); ok {
			line.Shelf = p.Shelf
		}
		line.Total = line.Cents * line.Quantity
		o.Lines = append(o.Lines, line)
	}
	if err := rows.Err(); err != nil {
		return order{}, fmt.Errorf("reading an order: %w", err)
	}
	return o, nil
}

func scanOrder(row interface{ Scan(...any) error }) (order, error) {
	var o order
	var placed int64
	err := row.Scan(&o.Number, &placed, &o.Name, &o.Street, &o.City, &o.Payment, &o.Total)
	if errors.Is(err, sql.ErrNoRows) {
		return order{}, errNoOrder
	}
	if err != nil {
		return order{}, fmt.Errorf("reading an order: %w", err)
	}
	o.Placed = time.UnixMilli(placed)
	return o, nil
}
