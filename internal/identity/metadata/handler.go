package metadata

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// scopes that clients are told; ours do not limit anything, roles do.
const cloudPlatform = "https://www.googleapis.com/auth/cloud-platform"

// handler serves one task below its secret path. Node drops the path of
// GCE_METADATA_HOST (gcp-metadata, getBaseUrl), so without it the caller itself
// is looked at.
func (s *Server) handler(t *task) http.Handler {
	routes := s.routes(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		w.Header().Set("Server", "Metadata Server for VM")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if status, why := refuse(t, r); status != 0 {
			http.Error(w, why, status)
			return
		}
		if rest, ok := strings.CutPrefix(r.URL.Path, "/t/"); ok {
			secret, path, _ := strings.Cut(rest, "/")
			if subtle.ConstantTimeCompare([]byte(secret), []byte(t.Path)) != 1 {
				http.NotFound(w, r)
				return
			}
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = "/"+path, ""
		} else if !s.isTask(r, t) {
			http.Error(w, "the path of GCE_METADATA_HOST is missing, and the caller is not the task that it was given to", http.StatusForbidden)
			return
		}
		routes.ServeHTTP(w, r)
	})
}

// isTask reports a caller that has the secret path in its environment.
func (s *Server) isTask(r *http.Request, t *task) bool {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	local, err := netip.ParseAddrPort(t.address)
	if err != nil {
		return false
	}
	ok, err := callerHolds(remote, local, "/t/"+t.Path)
	if err != nil {
		s.log.WarnContext(r.Context(), "a metadata request was refused: its sender is not known", slog.String("workload", t.ID), slog.Any("error", err))
	}
	return ok
}

// refuse keeps out whatever is not a client library on this machine: browsers
// cannot set the flavor header without a preflight, which fails; a forwarded
// request comes from elsewhere; a foreign Host is DNS rebinding.
func refuse(t *task, r *http.Request) (status int, why string) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	_, port, _ := net.SplitHostPort(t.address)
	switch {
	case err != nil || !peer.Addr().Unmap().IsLoopback():
		return http.StatusForbidden, "the metadata server answers programs on its own machine only"
	case r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "":
		return http.StatusForbidden, "the metadata server refuses forwarded requests"
	case r.Host != t.address && r.Host != "localhost:"+port:
		return http.StatusForbidden, "the metadata server is not known under the name " + fmt.Sprintf("%.80q", r.Host)
	case r.Header.Get("Metadata-Flavor") != "Google":
		return http.StatusForbidden, "missing header Metadata-Flavor: Google"
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.StatusMethodNotAllowed, "the metadata server takes GET only"
	}
	return 0, ""
}

// routes answers what google-auth for Python, Go and Node ask for.
func (s *Server) routes(t *task) http.Handler {
	mux := http.NewServeMux()
	text := func(pattern, answer string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })
	}
	text("/{$}", "computeMetadata/\n")
	text("/computeMetadata/v1", "instance/\nproject/\nuniverse/\n")
	text("/computeMetadata/v1/{$}", "instance/\nproject/\nuniverse/\n")
	text("/computeMetadata/v1/instance", "service-accounts/\n") // without the slash a redirect would lose the secret path
	text("/computeMetadata/v1/instance/{$}", "service-accounts/\n")
	text("/computeMetadata/v1/project/project-id", t.Project)
	text("/computeMetadata/v1/universe/universe-domain", "googleapis.com")
	mux.HandleFunc("/computeMetadata/v1/project/numeric-project-id", func(w http.ResponseWriter, r *http.Request) {
		number, err := s.authority.ProjectNumber(r.Context(), t.Project)
		if err != nil {
			s.fail(w, r, t, err)
			return
		}
		_, _ = w.Write([]byte(number))
	})
	accounts := "/computeMetadata/v1/instance/service-accounts/"
	text(accounts+"{$}", "default/\n"+t.Email+"/\n")
	account := func(path string, h http.HandlerFunc) {
		mux.HandleFunc(accounts+"{account}"+path, func(w http.ResponseWriter, r *http.Request) {
			if a := r.PathValue("account"); a != "default" && a != t.Email {
				http.NotFound(w, r)
				return
			}
			h(w, r)
		})
	}
	account("", func(w http.ResponseWriter, r *http.Request) { describe(w, r, t) })
	account("/{$}", func(w http.ResponseWriter, r *http.Request) { describe(w, r, t) })
	account("/email", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(t.Email)) })
	account("/aliases", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("default\n")) })
	account("/scopes", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(cloudPlatform + "\n")) })
	account("/token", func(w http.ResponseWriter, r *http.Request) { s.token(w, r, t) })
	account("/identity", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "identity tokens are not supported by tategu; use access tokens", http.StatusNotImplemented)
	})
	return mux
}

func describe(w http.ResponseWriter, r *http.Request, t *task) {
	if r.URL.Query().Get("recursive") != "true" {
		_, _ = w.Write([]byte("aliases\nemail\nidentity\nscopes\ntoken\n"))
		return
	}
	writeJSON(w, map[string]any{"aliases": []string{"default"}, "email": t.Email, "scopes": []string{cloudPlatform}})
}

func (s *Server) token(w http.ResponseWriter, r *http.Request, t *task) {
	access, err := s.authority.TaskToken(r.Context(), t.Task)
	if err != nil {
		s.fail(w, r, t, err)
		return
	}
	writeJSON(w, tokenAnswer(access, s))
}

func tokenAnswer(access identity.Access, s *Server) map[string]any {
	return map[string]any{
		"access_token": access.Token, "expires_in": int(access.Expires.Sub(s.now()).Seconds()), "token_type": "Bearer",
	}
}

// fail answers 404 for ended credentials, so that clients do not retry, and 503
// for the rest, so that they do.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, t *task, err error) {
	status := http.StatusServiceUnavailable
	if resource.IsNotFound(err) {
		status = http.StatusNotFound
	}
	s.log.WarnContext(r.Context(), "metadata request failed", slog.String("workload", t.ID), slog.Any("error", err))
	http.Error(w, "the credentials of this task are not available", status)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}
