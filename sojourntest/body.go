package sojourntest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// typedBody is a request body with its content type.
type typedBody struct {
	io.Reader
	contentType string
}

// Form returns a body for [Request], [LoggedIn], [Browser.Request] and the like:
// the request gets the Content-Type of a form.
func Form(values url.Values) io.Reader {
	return typedBody{strings.NewReader(values.Encode()), "application/x-www-form-urlencoded"}
}

// JSON returns v as a body, as Form does for a form. It panics if v cannot be
// encoded by [encoding/json].
func JSON(v any) io.Reader {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sojourntest.JSON: %v", err))
	}
	return typedBody{bytes.NewReader(b), "application/json"}
}

// Fields of requests and responses with a token; see Session.Token.
const (
	tokenField = "Sojourn-Token"
	bearer     = "Bearer "
)

func tokenOf(header http.Header) string {
	token, _ := strings.CutPrefix(header.Get("Authorization"), bearer)
	return token
}

func setToken(header http.Header, token string) {
	if token != "" {
		header.Set("Authorization", bearer+token)
	}
}
