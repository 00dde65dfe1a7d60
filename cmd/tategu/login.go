package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tategu/internal/api/cloud"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/wire"
)

func loginCommand() *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login https://HOST:PORT",
		Short: "Get credentials of a server on another machine",
		Long: `login exchanges a token for credentials that Google's client libraries refresh by
themselves, and keeps them below $XDG_CONFIG_HOME/tategu. The server's own authority is
trusted only when its fingerprint is the one given: the token is not sent before.`,
		Example: "  tategu login https://ml.example.com:8443 --token tgu_... --fingerprint 3f9a...\n  eval \"$(tategu env --server ml.example.com:8443)\"",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := url.Parse(args[0])
			if err != nil || u.Scheme != "https" || u.Host == "" {
				return resource.Invalid("server", "%q is not https://HOST:PORT", args[0])
			}
			if o.token == "" {
				o.token = os.Getenv("TATEGU_TOKEN")
			}
			if o.token == "" {
				return resource.Invalid("token", "a token is needed").WithHint("get one on the server's machine with `tategu token create`, then give --token or TATEGU_TOKEN")
			}
			l, err := o.login(cmd.Context(), u.Host)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "logged in to %s, project %s; now: eval \"$(tategu env --server %s)\"\n", l.Server, l.Project, l.Server)
			return err
		},
	}
	cmd.Flags().StringVar(&o.token, "token", "", "token made by tategu token create (or TATEGU_TOKEN, which keeps it out of the shell's history)")
	cmd.Flags().StringVar(&o.fingerprint, "fingerprint", "", "SHA-256 of the server's authority, as tategu token create prints it")
	cmd.Flags().StringVar(&o.project, "project", "", "project to work in; default: the token's")
	return cmd
}

type loginOptions struct{ token, fingerprint, project string }

func (o loginOptions) login(ctx context.Context, server string) (login, error) {
	ca, err := o.authority(ctx, server)
	if err != nil {
		return login{}, err
	}
	c := &client{base: "https://" + server, http: trusting(ca), token: func(context.Context) (string, error) { return o.token, nil }}
	var answer cloud.LoginResponse
	if err := c.call(ctx, http.MethodPost, "/tategu/v1/login", nil, &answer); err != nil {
		return login{}, err
	}
	project := o.project
	if project == "" {
		for p := range answer.Grants {
			if p != "*" && (project == "" || p < project) {
				project = p
			}
		}
	}
	if project == "" {
		return login{}, resource.Invalid("project", "the token is for every project").WithHint("say which to work in: --project NAME")
	}
	return saveLogin(login{Server: server, Project: project}, ca, answer.RefreshToken)
}

// authority gives the PEM of the server's authority: nothing when the system
// trusts the server anyway, else the root it presents, if the fingerprint fits.
func (o loginOptions) authority(ctx context.Context, server string) ([]byte, error) {
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", server) //nolint:gosec // only to read the chain; it is judged by fingerprint below, and nothing is sent
	if err != nil {
		return nil, resource.Errorf(14, "cannot reach %s: %w", server, err).WithHint("is the address right, and the server listening on it?")
	}
	defer func() { _ = conn.Close() }() // only the handshake mattered
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	root := chain[len(chain)-1]
	got := fingerprint(root)
	if want := strings.ToLower(strings.ReplaceAll(o.fingerprint, ":", "")); want != "" {
		if want != got {
			return nil, resource.Errorf(16, "the authority of %s has the fingerprint %s, not the one given", server, got).
				WithHint("someone may be in between; compare with `tategu token create` on the server's machine")
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), nil
	}
	host, _, _ := strings.Cut(server, ":")
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Intermediates: intermediates}); err != nil {
		return nil, resource.Errorf(16, "this machine does not trust %s: %w", server, err).
			WithHint("give --fingerprint as `tategu token create` prints it (the server presents %s)", got)
	}
	return nil, nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func saveLogin(l login, ca []byte, refreshToken string) (login, error) {
	dir, err := loginDir(l.Server)
	if err != nil {
		return l, err
	}
	l.dir = dir
	credentials, err := identity.LoginFile("https://"+l.Server, refreshToken)
	if err != nil {
		return l, err
	}
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return l, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return l, fmt.Errorf("save login: %w", err)
	}
	if _, err := wire.WriteBundle(l.bundle(), ca, nil); err != nil {
		return l, err
	}
	for path, b := range map[string][]byte{l.ca(): ca, l.credentials(): credentials, filepath.Join(dir, "login.json"): text} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return l, fmt.Errorf("save login: %w", err)
		}
	}
	return l, nil
}

// accessToken refreshes at the server's token endpoint, as client libraries do.
func (l login) accessToken(ctx context.Context, h *http.Client) (string, error) {
	b, err := os.ReadFile(l.credentials())
	if err != nil {
		return "", fmt.Errorf("read credentials: %w", err)
	}
	var file struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return "", fmt.Errorf("read credentials: %w", err)
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {file.RefreshToken}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.Server+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := h.Do(req)
	if err != nil {
		return "", resource.Errorf(14, "no answer from %s: %w", l.Server, err)
	}
	defer func() { _ = resp.Body.Close() }() // decoded below
	var answer struct {
		AccessToken string `json:"access_token"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.AccessToken == "" {
		return "", resource.Errorf(16, "%s refused the login: %s", l.Server, answer.Description).WithHint("log in again with tategu login")
	}
	return answer.AccessToken, nil
}

// grants reads --project and --role into what a token may do.
func grants(projects []string, role string) (map[string]identity.Role, error) {
	r := identity.Role(role)
	if !slices.Contains([]identity.Role{identity.Viewer, identity.User, identity.Admin}, r) {
		return nil, resource.Invalid("role", "unknown role %q", role).WithHint("use viewer, user or admin")
	}
	out := map[string]identity.Role{}
	for _, p := range projects {
		out[p] = r
	}
	return out, nil
}
