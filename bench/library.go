package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
)

// library is a session library, used as its own documentation shows.
type library interface {
	// wrap puts the library's middleware, if it has one, around the handlers.
	wrap(http.Handler) http.Handler
	visits(w http.ResponseWriter, r *http.Request) (int, error)
	setVisits(w http.ResponseWriter, r *http.Request, n int) error
	// page returns one of the values that fill sets: pageCount of them, of that size.
	page(w http.ResponseWriter, r *http.Request, i int) (string, error)
	fill(w http.ResponseWriter, r *http.Request, size int) error
	close() error
}

// The large sessions: 20 values of 1,000 or 50,000 bytes.
const (
	pageCount = 20
	pageSize  = 1000
	hugeSize  = 50_000
	pageAsked = 7
)

func pageName(i int) string { return "page" + strconv.Itoa(i) }

// pageText returns the i-th page: text without repetition, different for each
// page.
func pageText(i, size int) string {
	b := make([]byte, 0, size+16)
	for n := i * size; len(b) < size; n++ {
		b = strconv.AppendInt(b, int64(n)*7919, 36)
	}
	return string(b[:size])
}

// The handlers, by the request's path.
const (
	untouched = "/untouched" // never asks for the session
	read      = "/read"      // reads one small value
	write     = "/write"     // sets one small value to a new value
	count     = "/count"     // reads that value and sets it to one more
	fill      = "/fill"      // sets the pages
	fillHuge  = "/fill/huge" // sets large ones
	readPage  = "/page"      // reads one page
)

// handlers returns the same handlers for every library. Each answers 200 and
// the number that it read or wrote, or 500.
func handlers(lib library) http.Handler {
	var next atomic.Int64
	next.Store(1000)
	return lib.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		var err error
		switch r.URL.Path {
		case untouched:
		case read:
			n, err = lib.visits(w, r)
		case write:
			n = int(next.Add(1))
			err = lib.setVisits(w, r, n)
		case count:
			if n, err = lib.visits(w, r); err == nil {
				n++
				err = lib.setVisits(w, r, n)
			}
		case fill:
			err = lib.fill(w, r, pageSize)
		case fillHuge:
			err = lib.fill(w, r, hugeSize)
		case readPage:
			var text string
			text, err = lib.page(w, r, pageAsked)
			n = len(text)
		default:
			err = errors.New("no such path")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		var b [20]byte
		_, _ = w.Write(strconv.AppendInt(b[:0], int64(n), 10))
	}))
}

// none keeps nothing: the bare handler.
type none struct{}

func (none) wrap(h http.Handler) http.Handler                             { return h }
func (none) visits(http.ResponseWriter, *http.Request) (int, error)       { return 1, nil }
func (none) setVisits(http.ResponseWriter, *http.Request, int) error      { return nil }
func (none) page(http.ResponseWriter, *http.Request, int) (string, error) { return "", nil }
func (none) fill(http.ResponseWriter, *http.Request, int) error           { return nil }
func (none) close() error                                                 { return nil }

// closeAll closes in order and returns every error.
func closeAll(closers ...io.Closer) error {
	var errs []error
	for _, c := range closers {
		if err := c.Close(); err != nil {
			errs = append(errs, fmt.Errorf("closing %T: %w", c, err))
		}
	}
	return errors.Join(errs...)
}
