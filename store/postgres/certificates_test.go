package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	form := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: fmt.Sprint("authority ", time.Now().UnixNano())}, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{cert, key}
}

// sign writes a certificate, its key and the authority's certificate as
// name.crt, name.key and name.ca into a folder.
func (a *authority) sign(t *testing.T, folder, name, subject string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	form := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: subject},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, form, a.cert, &key.PublicKey, a.key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: pkcs8},
		name + ".ca":  {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		path := filepath.Join(folder, file)
		must(t, os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600))
		if info, err := os.Stat(filepath.Dir(path)); err == nil {
			must(t, servers.OwnAs(path+".new", info))
		}
		must(t, os.Rename(path+".new", path))
	}
}

// The server asks for certificates of another authority, and has one of it itself:
// those that the files hold then are used, by the URL's and by an application's pool.
func TestCertificatesMayChangeWhileTheStoreIsUsed(t *testing.T) {
	server := servers.Postgres(t)
	server.SQL("CREATE ROLE app LOGIN", "GRANT ALL ON SCHEMA public TO app")
	data, mine := filepath.Join(server.Dir, "data"), t.TempDir()
	renew := func() {
		a := newAuthority(t)
		a.sign(t, data, "server", "127.0.0.1")
		a.sign(t, mine, "client", "app")
	}
	renew()
	must(t, os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte("local all all trust\nhostssl all all 127.0.0.1/32 cert\n"), 0o600))
	server.SQL("ALTER SYSTEM SET ssl_ca_file = 'server.ca'", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")

	path := func(suffix string) string { return filepath.Join(mine, "client"+suffix) }
	url := fmt.Sprintf("postgres://app@%s/postgres?sslmode=verify-full&sslcert=%s&sslkey=%s&sslrootcert=%s", server.Addr, path(".crt"), path(".key"), path(".ca"))
	cfg, err := pgxpool.ParseConfig(url)
	must(t, err)
	cfg.ConnConfig.TLSConfig = &tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(path(".crt"), path(".key"))
			return &pair, err
		},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, against the authority of that time
		VerifyConnection: func(state tls.ConnectionState) error {
			pool, text := x509.NewCertPool(), must1(os.ReadFile(path(".ca")))
			pool.AppendCertsFromPEM(text)
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: "127.0.0.1"})
			return err
		},
	}
	var pool *pgxpool.Pool
	eventually(t, "the server has reloaded", func() bool {
		if pool, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
			return false
		}
		if err = pool.Ping(t.Context()); err != nil {
			pool.Close()
		}
		return err == nil
	})
	t.Cleanup(pool.Close)
	own, err := New(t.Context(), pool, Options{})
	must(t, err)
	rec := session()
	must(t, own.Save(t.Context(), rec, store.Base{}))
	stores := map[string]*Store{"an application's pool": own, "a URL": opened(t, url, Options{})}

	renew()
	server.SQL("SELECT pg_reload_conf()", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
	var wg sync.WaitGroup
	for name, s := range stores {
		wg.Go(func() {
			if err := settles(func(ctx context.Context) error { return s.Save(ctx, session(), store.Base{}) }); err != nil {
				t.Errorf("%s: save: %v", name, err)
			}
			if _, err := s.Load(t.Context(), rec.ID); err != nil {
				t.Errorf("%s: load: %v", name, err)
			}
		})
	}
	wg.Wait()
}

func must1(text []byte, _ error) []byte { return text }
