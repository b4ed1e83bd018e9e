package sojourngrpc

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Jar keeps the cookies of one server for a Go client, which is one visitor.
// The zero value is an empty Jar. It ignores the expiry of cookies, because the
// server checks it. It is safe for concurrent use.
type Jar struct {
	mu   sync.Mutex
	kept *kept // nil: nothing
}

// kept are cookies by name, behind a pointer so that they are not printed.
type kept struct{ cookies map[string]string }

// Format prints the type, whatever the verb, and no cookie.
func (j *Jar) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "sojourngrpc.Jar") }

// LogValue is what Format prints.
func (j *Jar) LogValue() slog.Value { return slog.StringValue("sojourngrpc.Jar") }

// DialOptions returns the interceptors that send and keep the cookies.
func (j *Jar) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(j.unary), grpc.WithChainStreamInterceptor(j.stream)}
}

func (j *Jar) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var header metadata.MD
	err := invoke(j.outgoing(ctx), method, req, reply, cc, append(slices.Clip(opts), grpc.Header(&header))...)
	j.keep(header)
	return err
}

func (j *Jar) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(j.outgoing(ctx), desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &clientStream{ClientStream: s, jar: j}, nil
}

func (j *Jar) outgoing(ctx context.Context) context.Context {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.kept == nil || len(j.kept.cookies) == 0 {
		return ctx
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(j.kept.cookies)) {
		pairs = append(pairs, name+"="+j.kept.cookies[name])
	}
	return metadata.AppendToOutgoingContext(ctx, "cookie", strings.Join(pairs, "; "))
}

func (j *Jar) keep(header metadata.MD) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.kept == nil {
		j.kept = &kept{map[string]string{}}
	}
	for _, line := range header[setCookie] {
		c, err := http.ParseSetCookie(line)
		switch {
		case err != nil: // not our cookie
		case c.MaxAge < 0:
			delete(j.kept.cookies, c.Name)
		default:
			j.kept.cookies[c.Name] = c.Value
		}
	}
}

// clientStream keeps the cookies when the header arrives.
type clientStream struct {
	grpc.ClientStream
	jar  *Jar
	once sync.Once
}

// Header implements [grpc.ClientStream].
func (s *clientStream) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	s.once.Do(func() { s.jar.keep(header) })
	return header, err
}

// RecvMsg implements [grpc.ClientStream].
func (s *clientStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	_, _ = s.Header() // the header has arrived; without one, err is set
	return err
}
