package torchserve

import (
	"net/http"
	"strings"

	engine "tategu/internal/torchserve"
)

// oipServer is what /v2 says of the server. "extenstion" is how TorchServe spells it.
type oipServer struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extenstion"`
}

// openInference answers the routes of the Open Inference Protocol besides infer; they
// are there with ts_open_inference_protocol alone, as in TorchServe.
func (a *API) openInference(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
	if !a.cfg.OpenInference || at(s, 1) != "v2" {
		return false, nil
	}
	switch strings.Join(s[2:], "/") {
	case "":
		sendJSON(w, http.StatusOK, oipServer{"Torchserve", Version, []string{"kserve", "kubeflow"}})
		return true, nil
	case "health/live":
		sendJSON(w, http.StatusOK, map[string]bool{"live": true})
		return true, nil
	case "health/ready":
		sendJSON(w, http.StatusOK, map[string]bool{"ready": true})
		return true, nil
	}
	if at(s, 2) != "models" || len(s) < 4 {
		return false, nil
	}
	name, version, rest := s[3], "", s[4:]
	if len(rest) >= 2 && rest[0] == "versions" {
		version, rest = rest[1], rest[2:]
	}
	switch strings.Join(rest, "/") {
	case "":
		m, err := a.one(r, name, version)
		if err != nil {
			return true, err
		}
		return true, a.oipMetadata(w, r, m)
	case "ready":
		m, err := a.one(r, name, version)
		if err != nil {
			return true, err
		}
		sendJSON(w, http.StatusOK, map[string]any{"name": name, "ready": ready(m)})
		return true, nil
	case "infer":
		return true, a.predict(w, r, target{model: name, version: version})
	}
	return false, nil
}

// oipMetadata is the description of a model in the protocol's form.
func (a *API) oipMetadata(w http.ResponseWriter, r *http.Request, m engine.Model) error {
	versions, err := a.versions(r.Context(), m.Name)
	if err != nil {
		return err
	}
	sendJSON(w, http.StatusOK, struct {
		Name     string   `json:"name"`
		Versions []string `json:"versions"`
		Platform string   `json:"platform"`
		Inputs   []any    `json:"inputs"`
		Outputs  []any    `json:"outputs"`
	}{m.Name, versions, "", []any{}, []any{}})
	return nil
}

// one is a version of a model.
func (a *API) one(r *http.Request, model, version string) (engine.Model, error) {
	ms, err := a.Engine.Describe(r.Context(), model, version, false)
	if err != nil {
		return engine.Model{}, err
	}
	if len(ms) == 0 {
		return engine.Model{}, failure(http.StatusNotFound, engine.ModelNotFound, "Model not found: %s", model)
	}
	return ms[0], nil
}

// ready says that a model has the workers that it should.
func ready(m engine.Model) bool {
	n := 0
	for _, w := range m.Workers {
		if w.State == engine.WorkerReady {
			n++
		}
	}
	return n >= m.MinWorkers
}
