package wire_test

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"tategu/internal/wire"
)

// TestOutsider: a program of this machine that must say who it is, is never the
// operator: not directly, not through the proxy, not by another name of ours.
func TestOutsider(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *wire.Config) {
		c.Tunnel = true
		c.Outsider = func(local, remote *net.TCPAddr) bool { return local.IP.IsLoopback() && remote.IP.IsLoopback() }
	})
	for token, want := range map[string]int{"": http.StatusUnauthorized, "good": http.StatusOK, "evil": http.StatusUnauthorized} {
		var headers []string
		if token != "" {
			headers = []string{"Authorization", "Bearer " + token}
		}
		if resp, body := f.do(t, "GET", "/v1/"+model, "", headers...); resp.StatusCode != want {
			t.Errorf("token %q: %d %s, want %d", token, resp.StatusCode, body, want)
		}
	}
	client := f.proxied(t)
	tr, _ := client.Transport.(*http.Transport)
	tr.Proxy = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: f.addr}, nil }
	resp, err := client.Get("https://aiplatform.googleapis.com/v1/" + model)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("through the proxy: %s", resp.Status)
	}
	tr.TLSClientConfig.InsecureSkipVerify = true // the certificate has none of these names
	if resp, err := client.Get("https://0.0.0.0:" + f.port + "/v1/" + model); err == nil || !strings.Contains(err.Error(), "call it directly") {
		if resp != nil {
			resp.Body.Close()
		}
		t.Errorf("by another name of ours: %v", err)
	}
}
