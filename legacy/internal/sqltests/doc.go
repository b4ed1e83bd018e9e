// Package sqltests holds the tests of package sqldb on real databases. It is a
// module of its own, so that package legacy requires no driver.
package sqltests
