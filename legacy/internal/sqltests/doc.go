// Package sqltests holds the tests of package sqldb on real databases. It is a
// separate module, so that module legacy requires no driver.
package sqltests
