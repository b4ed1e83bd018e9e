// Package page compiles the programs of docs/frameworks.md. It is in a module of
// the workspace, where the compiler sees every framework and every adapter.
package page
