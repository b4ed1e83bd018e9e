//go:build !linux

package main

import (
	"context"
	"errors"
)

// The measurement of processes requires Linux.
var errLinux = errors.New("real servers are only measured on Linux")

func benchEngines(context.Context, []string) error { return errLinux }
func measureSizes(context.Context, []string) error { return errLinux }
func serveSide(context.Context, []string) error    { return errLinux }
