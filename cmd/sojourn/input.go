package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// readAll reads the whole input, up to the limit.
func readAll(ctx context.Context, in io.Reader, limit int64) ([]byte, error) {
	return interruptibly(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, limit)) })
}

// readLine reads a line from a keyboard.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	return interruptibly(ctx, func() (string, error) { return bufio.NewReader(in).ReadString('\n') })
}

// interruptibly returns the result of a read, or returns when ctx ends: a read
// from a keyboard cannot be interrupted otherwise.
func interruptibly[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// fileError is the error for a file that was named on the command line and
// could not be read. The name of a missing file is not repeated: it may be a
// key or a cookie by mistake.
func fileError(what string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		if _, missing := os.Stat(at.Path); missing != nil {
			err = at.Err
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
