// Package page compiles the programs of README.md, docs/start.md, docs/build
// and docs/run, and runs that of docs/start.md. It is in a module that requires every framework and every
// adapter.
package page
