package app

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	api "tategu/internal/api/torchserve"
	"tategu/internal/modelformat"
	"tategu/internal/torchserve"
)

// torchManager is what a replica offers to its server alone, beside the inference API:
// TorchServe's management API, whose answers say what is registered afterwards, and a
// route that makes the replica what another one is.
type torchManager struct {
	engine   *torchserve.Server
	api      http.Handler
	metrics  http.Handler
	key      string
	base     []byte // what was registered at the start
	deployed string // "models", or "workflows": what the deployed archive is one of

	mu sync.Mutex // one change at a time
}

func newTorchManager(engine *torchserve.Server, a *api.API, key string) (*torchManager, error) {
	base, err := engine.State()
	return &torchManager{engine: engine, api: a.Management(), metrics: a.MetricsAPI(), key: key, base: base}, err
}

// beside gives the handler of both.
func (m *torchManager) beside(inference http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ours := strings.CutPrefix(r.URL.Path, modelformat.TorchManagement)
		key := r.Header.Get(modelformat.TorchKeyHeader)
		switch {
		case m.key == "" || !ours || subtle.ConstantTimeCompare([]byte(key), []byte(m.key)) == 0:
			inference.ServeHTTP(w, r)
		case path == "" && r.Method == http.MethodPut:
			m.converge(w, r)
		default:
			r.URL.Path = path
			m.manage(w, r)
		}
	})
}

// converge makes the replica what the body says, or what it was at its start.
func (m *torchManager) converge(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state, err := io.ReadAll(io.LimitReader(r.Body, modelformat.MaxTorchState))
	if len(state) == 0 {
		state = m.base
	}
	if err == nil {
		err = m.engine.Converge(r.Context(), state)
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	http.Error(w, err.Error(), http.StatusConflict)
}

// manage answers one request of the management API, in a frame of ours. Questions do not
// wait for changes, and tell no state.
func (m *torchManager) manage(w http.ResponseWriter, r *http.Request) {
	changes := r.Method != http.MethodGet && r.Method != http.MethodOptions
	if changes {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	out := &heldAnswer{header: http.Header{}}
	if refused := m.refused(r); refused != "" {
		out.status = http.StatusForbidden
		out.body.WriteString(refused)
	} else if r.URL.Path == "/metrics" && !changes {
		m.metrics.ServeHTTP(out, r)
	} else {
		m.api.ServeHTTP(out, r)
	}
	answer := modelformat.TorchAnswer{Status: out.status, ContentType: out.header.Get("Content-Type"), Body: out.body.Bytes()}
	if changes {
		var err error
		if answer.State, err = m.engine.State(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	frame, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(frame) // the server has gone
}

// refused says why what predictions are asked of, the deployed archive as a whole, is not
// to be removed, as an answer of TorchServe's; "" = go on.
func (m *torchManager) refused(r *http.Request) string {
	s := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if r.Method != http.MethodDelete || len(s) < 2 || s[0] != m.deployed || s[1] != modelformat.TorchModel {
		return ""
	}
	next := "undeploy it"
	if m.deployed == "models" {
		all, err := m.engine.Describe(r.Context(), modelformat.TorchModel, "all", false)
		if err != nil || len(all) > 1 {
			return ""
		}
		next += ", or register another version first"
	}
	return "{\n  \"code\": 403,\n  \"type\": \"ForbiddenException\",\n  \"message\": \"" + modelformat.TorchModel + " is what the endpoint's predictions are asked of: " + next + "\"\n}\n"
}

// heldAnswer is an http.ResponseWriter that keeps the answer.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *heldAnswer) Header() http.Header { return a.header }

func (a *heldAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *heldAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}
