package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"tategu/internal/torchserve"
)

func TestBindings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		inference, management, metrics string
		off                            bool // the metrics API
		want                           string
	}{
		{"http://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1:8082", false, "http://127.0.0.1:8080 inference; http://127.0.0.1:8081 management; http://127.0.0.1:8082 metrics"},
		{"https://0.0.0.0", "http://localhost/", "http://[::1]:9", true, "https://0.0.0.0:443 inference; http://localhost:80 management"},
		{"http://127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1", false, "http://127.0.0.1:1 inference, management, metrics"},
		{"unix:/a", "unix:///a", "unix:b", false, "unix:/a inference, management; unix:b metrics"},
		{"http://127.0.0.1:1", "https://127.0.0.1:1", "unix:b", false, "another scheme"},
		{"tcp://x", "unix:a", "unix:b", false, "inference_address=tcp://x: the scheme is not known"},
		{"unix:a", "http://:80", "unix:b", false, "management_address=http://:80: there is no host"},
		{"unix:a", "unix:b", "http://a/b", false, "metrics_address=http://a/b: there is more"},
		{"unix:", "unix:b", "unix:c", false, "there is no path"},
	} {
		got, err := bindings(torchserve.Listen{Inference: tt.inference, Management: tt.management, MetricsAddress: tt.metrics, MetricsAPI: !tt.off})
		var s []string
		for _, b := range got {
			s = append(s, b.String()+" "+b.names())
		}
		if text := strings.Join(s, "; "); err == nil && text != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %s, %v; want %s", tt, text, err, tt.want)
		}
	}
}

func TestGRPCBinding(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{"127.0.0.1": "127.0.0.1:7070", "[::1]": "[::1]:7070", "0.0.0.0": "0.0.0.0:7070", "": "", "[]": ""} {
		if b, err := grpcBinding("inference", host, 7070); (err == nil) != (want != "") || b.address != want {
			t.Errorf("%q: %+v, %v", host, b, err)
		}
	}
}

// FuzzBinding: an address that is read is read the same again from how it is shown.
func FuzzBinding(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1:8080", "https://[::1]", "unix:/a", "unix://a", "unix:////a", "unix:.", "http://a:b", "http://u@h", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseBinding("key", s)
		if err != nil {
			return
		}
		again, err := parseBinding("key", b.String())
		if err == nil && again != b {
			t.Errorf("%q is %+v, shown as %q, which is %+v", s, b, b.String(), again)
		}
	})
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	own, err := ownCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil || leaf.VerifyHostname("localhost") != nil {
		t.Errorf("a certificate of our own: %v, %v", leaf, err)
	}
	store := filepath.Join(t.TempDir(), "keystore.p12")
	data, err := pkcs12.Modern.Encode(own.PrivateKey, leaf, nil, "changeit")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(store, data, 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*torchserve.Listen)) (*tls.Config, error) {
		l := torchserve.Defaults().Listen
		change(&l)
		return tlsConfig(l)
	}
	got, err := with(func(l *torchserve.Listen) { l.Keystore = store })
	if err != nil || string(got.Certificates[0].Certificate[0]) != string(own.Certificate[0]) {
		t.Errorf("of a key store: %v", err)
	}
	for want, change := range map[string]func(*torchserve.Listen){
		"password":                   func(l *torchserve.Listen) { l.Keystore, l.KeystorePass = store, "other" },
		"keystore_type=JKS":          func(l *torchserve.Listen) { l.Keystore, l.KeystoreType = store, "JKS" },
		"one of them is not set":     func(l *torchserve.Listen) { l.CertificateFile = store },
		"certificate_file and priva": func(l *torchserve.Listen) { l.CertificateFile, l.PrivateKeyFile = store, store },
	} {
		if _, err := with(change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestRollingLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.log")
	l := &rolling{path: path, limit: 10}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	for i := range rollKeep + 3 {
		if _, err := fmt.Fprintf(l, "line number %d\n", i); err != nil {
			t.Fatal(err)
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"": "last", ".1": "line number 7\n", ".5": "line number 3\n"} {
		if got, err := os.ReadFile(path + name); err != nil || string(got) != want {
			t.Errorf("a.log%s is %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(path + ".6"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a sixth old log: %v", err)
	}
	if n, err := l.Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("a closed log: %d, %v", n, err)
	}
}

// TestTorchServeRuns: a server without models answers at its sockets, and leaves no keys
// behind; the socket of a server that was killed is no hindrance.
func TestTorchServeRuns(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "ts") //nolint:usetesting // short: names of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := torchserve.Defaults()
	c.ModelStore, c.Work = dir, filepath.Join(dir, "work")
	c.Listen.Inference, c.Listen.Management, c.Listen.MetricsAddress = "unix:"+dir+"/i", "unix:"+dir+"/i", "unix:"+dir+"/x"
	c.Listen.GRPCInferencePort, c.Listen.GRPCManagementPort, c.Listen.MetricsMode = 0, 0, "prometheus"
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/i"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	s := &TorchServe{Config: c, KeyFile: filepath.Join(dir, "key_file.json"), Logs: dir, Metrics: dir, Log: slog.New(slog.DiscardHandler), Ready: func() { close(ready) }}
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", dir+"/i")
	}}}
	for path, want := range map[string]int{"/ping": http.StatusBadRequest, "/api-description": http.StatusOK} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ts"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.KeyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key file is still there: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "access_log.log")); err != nil || strings.Count(string(text), "\n") != 2 || !strings.Contains(string(text), `"GET /ping HTTP/1.1" 400 `) {
		t.Errorf("the access log is %q, %v", text, err)
	}
}
