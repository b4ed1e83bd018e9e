package redis

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// permissions are the README's permissions for an ACL user, followed by also.
func permissions(t testing.TB, also ...string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	must(t, err)
	_, rule, ok := strings.Cut(string(readme), "ACL SETUSER sojourn on >PASSWORD ")
	rule, _, _ = strings.Cut(rule, "\n")
	for _, words := range also {
		_, more, found := strings.Cut(string(readme), words)
		more, _, _ = strings.Cut(more, "`")
		rule, ok = rule+" "+more, ok && found
	}
	if !ok {
		t.Fatal("the README does not say it")
	}
	return rule
}

// certificate makes a self-signed certificate for 127.0.0.1.
func certificate(t testing.TB) (certFile, keyFile string, authority *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	authority = x509.NewCertPool()
	authority.AddCert(cert)
	return certFile, keyFile, authority
}

// tlsServer starts a server with TLS at another address.
func tlsServer(t testing.TB, certFile, keyFile string, args ...string) (server *servers.Server, addr string) {
	t.Helper()
	port := strconv.Itoa(servers.Port(t))
	return servers.Redis(t, append([]string{"--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-ca-cert-file", certFile}, args...)...),
		net.JoinHostPort("127.0.0.1", port)
}

func TestAnACLUserOverTLSCanDoEverything(t *testing.T) {
	certFile, keyFile, authority := certificate(t)
	server, addr := tlsServer(t, certFile, keyFile, "--tls-auth-clients", "no")
	rule := append([]string{"ACL", "SETUSER", "sojourn", "on", ">hunter2"}, strings.Fields(permissions(t))...)
	if got := server.RedisCommand(rule...); got != "OK\n" {
		t.Fatalf("the README's ACL rule: %s", got)
	}
	o := Options{Addrs: []string{addr}, Username: "sojourn", Password: "hunter2", TLS: &tls.Config{RootCAs: authority}}
	s := opened(t, o)
	rec := inserted(t, s, session(ann))
	must(t, s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline))
	must(t, s.Save(t.Context(), next(rec), rec.Base()))
	has(t, s, ann, rec.ID)
	age(t, s, ann, newID(), time.Hour, time.Hour)
	has(t, s, ann, rec.ID)
	if len(listed(t, s, ann)) != 1 || len(scanAll(t, s)) != 1 {
		t.Error("something was not allowed")
	}
	must(t, s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)))
	for range 20 {
		inserted(t, s, session(ann)) // the index makes room
	}
	c := cacheAt(t, o)
	token, err := c.Add(t.Context(), rec.ID, []byte("one"), time.Hour)
	must(t, err)
	must(t, c.Swap(t.Context(), rec.ID, token, []byte("two"), time.Hour))
	must(t, c.Delete(t.Context(), rec.ID))
	if denied := server.RedisCommand("ACL", "LOG"); strings.TrimSpace(denied) != "" {
		t.Errorf("denied:\n%s", denied)
	}

	o.Replicas = 1
	if err := opened(t, o).Save(t.Context(), session(ann), store.Base{}); !errors.Is(err, errTooFewReplicas) {
		t.Errorf("WAIT: %v", err)
	}
	o.Prefix = "other:"
	if err := opened(t, o).Save(t.Context(), session(ann), store.Base{}); err == nil {
		t.Error("a key outside of the rule was written")
	}
}

func TestWhoIsNotTrustedIsRefused(t *testing.T) {
	certFile, keyFile, _ := certificate(t)
	_, _, stranger := certificate(t)
	_, addr := tlsServer(t, certFile, keyFile, "--tls-auth-clients", "no")
	var unknown x509.UnknownAuthorityError
	if _, err := Open(t.Context(), Options{Addrs: []string{addr}, TLS: &tls.Config{RootCAs: stranger}}); !errors.As(err, &unknown) {
		t.Errorf("a certificate of somebody else: %v", err)
	}
	if _, err := Open(t.Context(), Options{Addrs: []string{addr}}); err == nil {
		t.Error("plain TCP to a TLS port: it was opened")
	}

	guarded := servers.Redis(t)
	guarded.RedisCommand("CONFIG", "SET", "requirepass", "hunter2")
	o := at(guarded)
	o.Password = "hunter2"
	opened(t, o)
	for _, password := range []string{"", "wrong hunter3"} {
		o.Password = password
		_, err := Open(t.Context(), o)
		if err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("with the wrong password: %v", err)
		}
	}
}
