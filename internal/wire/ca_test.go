package wire_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/wire"
)

func TestCAIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(now time.Time, hosts ...string) (cert, key []byte) {
		t.Helper()
		ca, err := wire.OpenCA(dir, func() time.Time { return now }, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		cert, err = os.ReadFile(ca.CertFile())
		if err != nil {
			t.Fatal(err)
		}
		key, err = os.ReadFile(filepath.Join(dir, "ca.key"))
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	now := time.Now()
	cert, key := open(now)
	if again, sameKey := open(now); !bytes.Equal(cert, again) || !bytes.Equal(key, sameKey) {
		t.Error("a second start made another authority")
	}
	more, sameKey := open(now, "ml.example.com", "192.0.2.7")
	if bytes.Equal(cert, more) || !bytes.Equal(key, sameKey) {
		t.Error("a new host name wants a new certificate of the same key")
	}
	if again, _ := open(now, "ml.example.com"); !bytes.Equal(more, again) {
		t.Error("a certificate that covers more is good enough")
	}
	if late, sameKey := open(now.AddDate(9, 6, 0), "ml.example.com"); bytes.Equal(late, more) || !bytes.Equal(key, sameKey) {
		t.Error("a certificate that soon expires was kept")
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || info.Mode().Perm() != fs.FileMode(0o600) {
		t.Errorf("mode of the key = %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.OpenCA(dir, time.Now); err == nil {
		t.Error("a broken key was taken")
	}
}

// TestNames: which names the port's certificate holds for.
func TestNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := wire.OpenCA(dir, time.Now, "ml.example.com", "192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *wire.Config) { c.CA = ca; c.Hosts = []string{"ml.example.com", "192.0.2.7"} })
	for name, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "::1": true, "192.0.2.7": true, "ml.example.com": true, "x.tategu.internal": true,
		"us-central1-aiplatform.googleapis.com": true, "storage.googleapis.com": true, "b.storage.googleapis.com": true,
		"aiplatform.us.rep.googleapis.com": true, "console.cloud.google.com": true,
		"compute.googleapis.com": false, "example.com": false, "192.0.2.8": false, "mail.google.com": false, "evil.ml.example.com": false,
	} {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: ca.Pool(), ServerName: name, MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", f.addr)
		if (err == nil) != want {
			t.Errorf("%s: %v, want valid %v", name, err, want)
		}
		if err == nil {
			c.Close()
		}
	}
}

// TestConstraints: a leaf for a foreign name does not verify, even one signed
// with the authority's own key.
func TestConstraints(t *testing.T) {
	t.Parallel()
	ca, err := wire.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{"localhost": true, "a.googleapis.com": true, "example.com": false, "google.com": false} {
		leaf, err := wire.Issue(ca, host)
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: host})
		if (err == nil) != want {
			t.Errorf("%s: %v, want valid %v", host, err, want)
		}
	}
}

func TestLeavesAreRenewed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca, err := wire.OpenCA(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *wire.Config) { c.CA = ca })
	serial := func() string {
		t.Helper()
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12, Time: func() time.Time { return now }}}).DialContext(t.Context(), "tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tc, _ := c.(*tls.Conn)
		return tc.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	if serial() != first {
		t.Error("the leaf is not cached")
	}
	now = now.AddDate(0, 0, 80)
	if serial() == first {
		t.Error("a leaf about to expire is still served")
	}
	now = now.AddDate(0, 0, -79)
	serial() // the clock was set back: no leaf from the future is shown, which clients would refuse
}

func TestGivenCertificate(t *testing.T) {
	t.Parallel()
	other, err := wire.OpenCA(t.TempDir(), time.Now, "ml.example.com")
	if err != nil {
		t.Fatal(err)
	}
	given, err := wire.IssuePair(other, "ml.example.com")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *wire.Config) { c.Certificate = given })
	for _, tt := range []struct {
		name  string
		roots *x509.CertPool
	}{{"ml.example.com", other.Pool()}, {"localhost", f.ca.Pool()}, {"storage.googleapis.com", f.ca.Pool()}} {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: tt.roots, ServerName: tt.name, MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", f.addr)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		c.Close()
	}
}

func TestWriteBundle(t *testing.T) {
	t.Parallel()
	ca, err := wire.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := wire.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	extra, err := os.ReadFile(other.CertFile())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.pem")
	others, err := ca.WriteBundle(path, append(extra, extra...))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		count++
	}
	if others < 1 || count != others+1 || bytes.Count(data, bytes.TrimSpace(extra)) != 1 {
		t.Errorf("bundle holds %d certificates, %d not ours; the extra one belongs in once", count, others)
	}
	if _, err := ca.WriteBundle(filepath.Join(path, "x"), nil); err == nil {
		t.Error("a path below a file was written")
	}
}
