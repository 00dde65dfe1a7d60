package wire_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"tategu/internal/wire"
)

func (f *fixture) proxied(t *testing.T) *http.Client {
	t.Helper()
	c := f.client(t)
	tr, _ := c.Transport.(*http.Transport)
	tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: f.addr})
	return c
}

func TestConnect(t *testing.T) {
	t.Parallel()
	far := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "far away") }))
	t.Cleanup(far.Close)
	for _, tt := range []struct {
		name, target string
		tunnel       bool
		want         string // in the body, or in the error
		fails        bool
	}{
		{"implemented host", "https://us-central1-aiplatform.googleapis.com/v1/" + model, false, `"name"`, false},
		{"global host", "https://aiplatform.googleapis.com/v1/" + model, false, `"name"`, false},
		{"multi-region host", "https://aiplatform.eu.rep.googleapis.com/v1/" + model, false, `"name"`, false},
		{"ourselves", "https://SELF/v1/" + model, false, `"name"`, false},
		{"ourselves by name", "https://localhost:PORT/v1/" + model, false, `"name"`, false},
		{"a host of the cloud", "https://compute.googleapis.com/", true, "compute.googleapis.com is not implemented", true},
		{"other host, no tunnel", far.URL, false, "not reachable through this proxy", true},
		{"other host, tunnel", far.URL, true, "far away", false},
		{"nobody there", "https://127.0.0.1:1/", true, "cannot reach", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(c *wire.Config) { c.Tunnel = tt.tunnel })
			client := f.proxied(t)
			tr, _ := client.Transport.(*http.Transport)
			tr.TLSClientConfig.RootCAs.AddCert(far.Certificate())
			tr.Proxy = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: f.addr}, nil }
			target := strings.NewReplacer("SELF", f.addr, "PORT", f.port).Replace(tt.target)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				if !tt.fails || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error = %v, want %q", err, tt.want)
				}
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || tt.fails || !strings.Contains(string(body), tt.want) {
				t.Errorf("%s = %d %s %v, want %q", target, resp.StatusCode, body, err, tt.want)
			}
		})
	}
}

func TestGRPCThroughTheProxy(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	const host = "us-central1-aiplatform.googleapis.com:443"
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", f.addr)
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("proxy: %s", resp.Status)
		}
		return c, errors.Join(err, resp.Body.Close())
	}
	creds := credentials.NewTLS(&tls.Config{RootCAs: f.ca.Pool(), ServerName: "us-central1-aiplatform.googleapis.com", MinVersion: tls.VersionTLS12})
	m, err := pb.NewModelServiceClient(f.dial(t, creds, grpc.WithContextDialer(dial))).GetModel(t.Context(), &pb.GetModelRequest{Name: model})
	if err != nil || m.Name != model {
		t.Errorf("GetModel = %v, %v", m, err)
	}
}

// TestProxyByHand sends what no client library would.
func TestProxyByHand(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *wire.Config) { c.Tunnel = true })
	for _, tt := range []struct{ name, send, want string }{
		{"no port", "CONNECT storage.googleapis.com HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		{"no request", "CONNECT \r\n\r\n", "HTTP/1.1 400"},
		{"headers without end", "CONNECT a:1 HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 20000), "HTTP/1.1 400"},
		{"a proxy inside the proxy", "CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\nCONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 403"},
		{"plain HTTP inside", "CONNECT storage.googleapis.com:80 HTTP/1.1\r\n\r\nGET /v1/" + model + " HTTP/1.1\r\nHost: aiplatform.googleapis.com\r\nConnection: close\r\n\r\n", "established\r\n\r\nHTTP/1.1 200 OK"},
		{"a word like CONNECT", "CONNECTION / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() { _, _ = io.WriteString(c, tt.send) }() // the server may stop reading
			answer, _ := io.ReadAll(c)                        // a reset after the answer is fine
			if !strings.Contains(string(answer), tt.want) {
				t.Errorf("answer = %q, want %q", answer, tt.want)
			}
		})
	}
}
