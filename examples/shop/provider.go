package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// startProvider starts the example server of zitadel/oidc as a provider that knows
// the shop and one user. What it holds is gone when it stops. Its logger becomes that
// of the process.
func startProvider(address, shopURL string, logger *slog.Logger) (p provider, stop func() error, err error) {
	listener, err := listenNear(address)
	if err != nil {
		return p, nil, err
	}
	p = provider{urlOf(listener.Addr()), "shop", rand.Text(), true}
	clients := map[string]*storage.Client{p.clientID: storage.WebClient(p.clientID, p.secret, shopURL+"/auth/callback")}
	handler := exampleop.SetupServer(p.issuer, &registered{storage.NewStorageWithClients(users{}, clients), shopURL + "/"}, logger, false)
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Its keys change at each start, so it cannot check a hint from before.
		query := r.URL.Query()
		query.Del("id_token_hint")
		r.URL.RawQuery = query.Encode()
		handler.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }() // until stop
	return p, server.Close, nil
}

// listenNear takes the next port if one is in use. A random port would be another
// issuer at each start, and its user another person.
func listenNear(address string) (listener net.Listener, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	first, err := net.LookupPort("tcp", port)
	for n := first; err == nil && n < first+20; n++ {
		listener, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(n)))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return listener, err
		}
		err = nil
	}
	return nil, cmp.Or(err, fmt.Errorf("%s and the ports after it are in use", address))
}

// users is everybody whom the provider knows.
type users struct{}

func ada() *storage.User {
	return &storage.User{
		ID: "1815", Username: "ada", Password: "engine",
		FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", EmailVerified: true,
	}
}

func (users) ExampleClientID() string { return storage.ServiceUserID }

func (users) GetUserByID(id string) *storage.User {
	if u := ada(); u.ID == id {
		return u
	}
	return nil
}

func (users) GetUserByUsername(name string) *storage.User {
	if u := ada(); u.Username == name {
		return u
	}
	return nil
}

// registered says of the shop what the example leaves out: where browsers go after
// a logout, and that name and address belong into the ID token.
type registered struct {
	*storage.Storage
	after string
}

func (s *registered) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	return client{c, s.after}, err
}

type client struct {
	op.Client
	after string
}

func (c client) PostLogoutRedirectURIs() []string     { return []string{c.after} }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }
