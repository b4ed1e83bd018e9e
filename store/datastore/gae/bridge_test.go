package gae_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// bridged starts Google's Datastore emulator, and points the App Engine library
// at a bridge to it: the emulator answers the bundled datastore's calls, but
// only by gRPC. It has no other services.
func bridged(t *testing.T) *servers.Server {
	t.Helper()
	emulator := servers.Datastore(t)
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &h2c}}
	t.Cleanup(client.CloseIdleConnections)
	bridge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := handleCall(client, emulator.Addr, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = w.Write(answer)
	}))
	t.Cleanup(bridge.Close)
	u, err := url.Parse(bridge.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("API_HOST", u.Hostname())
	t.Setenv("API_PORT", u.Port())
	t.Setenv("GAE_APPLICATION", "dev~"+project)
	t.Setenv("GAE_ENV", "standard")
	return emulator
}

// project is the emulator's project.
const project = "sojourn-test"

// handleCall forwards a call of the App Engine library as a unary gRPC call
// with the same messages.
func handleCall(client *http.Client, addr string, r *http.Request) ([]byte, error) {
	message, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) // not compressed
	frame = append(frame, message...)
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost,
		"http://"+addr+"/apphosting.tools.devappserver2.CallHandler/HandleCall", bytes.NewReader(frame))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	status := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
	if status != "0" || len(answer) < 5 {
		return nil, fmt.Errorf("gRPC status %q: %q", status, resp.Trailer.Get("Grpc-Message")+resp.Header.Get("Grpc-Message"))
	}
	return answer[5:], nil
}
