package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/app"
	"tategu/internal/resource"
)

// client talks to a server: the one of this machine's data directory, or one
// that was logged in to.
type client struct {
	base     string
	project  string // to work in when none is named
	location string // likewise
	token    func(ctx context.Context) (string, error)
	http     *http.Client
}

func connect(cmd *cobra.Command) (*client, error) {
	if f := cmd.Flag("server"); f != nil && f.Value.String() != "" {
		l, err := readLogin(f.Value.String())
		if err != nil {
			return nil, err
		}
		pem, err := os.ReadFile(l.ca())
		if err != nil {
			return nil, fmt.Errorf("read the server's certificate: %w", err)
		}
		h := trusting(pem)
		token := reused(time.Now, func(ctx context.Context) (string, error) { return l.accessToken(ctx, h) })
		return &client{base: "https://" + l.Server, project: l.Project, location: app.Defaults().Location, http: h, token: token}, nil
	}
	cfg, err := configure(cmd)
	if err != nil {
		return nil, err
	}
	state, err := app.ReadState(cfg.Data)
	if err != nil {
		return nil, err
	}
	return &client{base: "http://" + state.Address, project: state.Project, location: state.Location, http: &http.Client{Transport: transport(nil)}}, nil
}

// page is where a browser shows a resource, or with a path of the console that; ""
// for a server that asks for a token, which browsers do not send.
func (c *client) page(name string) string {
	if c.token != nil {
		return ""
	}
	return c.base + "/console/" + name
}

// tokenReuse is well below the life of an access token.
const tokenReuse = 5 * time.Minute

// reused asks for a token now and then instead of at each request.
func reused(now func() time.Time, ask func(context.Context) (string, error)) func(context.Context) (string, error) {
	var mu sync.Mutex
	var token string
	var asked time.Time
	return func(ctx context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if token != "" && now().Sub(asked) < tokenReuse {
			return token, nil
		}
		var err error
		token, err = ask(ctx)
		asked = now()
		return token, err
	}
}

// transport keeps a connection for each of several requests at once, and goes
// through the proxies that the environment names.
func transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
}

// trusting makes a client that accepts the given CA besides the system's.
func trusting(pem []byte) *http.Client {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pool.AppendCertsFromPEM(pem)
	return &http.Client{Transport: transport(pool)}
}

// do sends a request and gives the answer's body; an API error becomes an error
// with the server's own words.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body any) (io.ReadCloser, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(b)
	}
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, payload)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != nil {
		token, err := c.token(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		e := resource.Errorf(14, "no answer from %s: %w", c.base, err)
		return nil, e.WithHint("is the server running? start it with `tategu serve`")
	}
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	var envelope struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &envelope) == nil && envelope.Error.Message != "" {
		return nil, &answerError{status: resp.StatusCode, text: resp.Status + ": " + envelope.Error.Message}
	}
	return nil, &answerError{status: resp.StatusCode, text: resp.Status + ": " + string(bytes.TrimSpace(text))}
}

// answerError is an answer that is an error.
type answerError struct {
	status int // of HTTP
	text   string
}

func (e *answerError) Error() string { return e.text }

// call sends a request and decodes the JSON answer into out (nil = discard).
func (c *client) call(ctx context.Context, method, path string, body, out any) error {
	r, err := c.do(ctx, method, path, nil, body)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // read in full below
	if out == nil {
		_, err = io.Copy(io.Discard, r)
		return err
	}
	return json.NewDecoder(r).Decode(out)
}

// isMissing reports that the server knows nothing by the name.
func isMissing(err error) bool {
	e, ok := errors.AsType[*answerError](err)
	return ok && e.status == http.StatusNotFound
}
