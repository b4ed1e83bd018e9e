// Package page compiles the programs of README.md, docs/start.md, docs/build and
// docs/run. It is in a module of the workspace, where the compiler sees every
// framework and every adapter.
package page
