package sojournecho_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/sojourn-go/sojourn"
	sojournecho "github.com/sojourn-go/sojourn/adapter/echo"
)

func TestWhichErrorsAreAnsweredAsSojournsOwn(t *testing.T) {
	for err, want := range map[error]int{ // 0: returned as it is
		sojourn.ErrHasCookie: 409, sojourn.ErrTaken: 409, sojourn.ErrUnavailable: 503, sojourn.ErrClosed: 503,
		sojourn.ErrTooLarge: 413, sojourn.ErrNotFound: 404,
		fmt.Errorf("%w: %w", sojourn.ErrTooLate, context.DeadlineExceeded): 503,
		sojourn.ErrTooLate: 0, sojourn.ErrNoMiddleware: 0, sojourn.ErrNoValue: 0, sojourn.ErrBadValue: 0,
		errors.New("mine"): 0, context.DeadlineExceeded: 0,
	} {
		got := sojournecho.Error(fmt.Errorf("wrapped: %w", err))
		var answer *echo.HTTPError
		status := 0
		if errors.As(got, &answer) {
			status = answer.Code
		}
		if status != want || !errors.Is(got, err) {
			t.Errorf("%v: %d, %v; want %d", err, status, got, want)
		}
	}
}
