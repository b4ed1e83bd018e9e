//go:build !linux

package main

import (
	"context"
	"errors"
)

// Processes are watched the way Linux does it.
var errLinux = errors.New("real servers are only measured on Linux")

func benchEngines(context.Context, []string) error { return errLinux }
func measureSizes(context.Context, []string) error { return errLinux }
func serveSide(context.Context, []string) error    { return errLinux }
