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

// readAll reads the whole input, but for what is longer than the limit.
func readAll(ctx context.Context, in io.Reader, limit int64) ([]byte, error) {
	return interruptibly(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, limit)) })
}

// readLine reads a line that somebody types.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	return interruptibly(ctx, func() (string, error) { return bufio.NewReader(in).ReadString('\n') })
}

// interruptibly returns what a read does, or when ctx is over: nothing else ends
// a read from a keyboard.
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

// fileError is the error for a file that was named on the command line and could
// not be read. The name of a file that does not exist is not repeated: somebody
// may have given a key or a cookie in its place.
func fileError(what string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		if _, missing := os.Stat(at.Path); missing != nil {
			err = at.Err
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
