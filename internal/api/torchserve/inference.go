package torchserve

import (
	"net/http"
	"strconv"
	"strings"
	"unicode"

	engine "tategu/internal/torchserve"
)

// inference answers /ping, the routes of predictions and explanations, SageMaker's,
// KServe's, and those of before TorchServe.
func (a *API) inference(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
	first, n := at(s, 1), len(s)
	switch {
	case first == "ping":
		sendStatus(w, http.StatusOK, "%s", a.Engine.Health())
		return true, nil
	case first == "predictions" && n >= 3:
		return true, a.predict(w, r, target{model: s[2], version: at(s, 3), marks: marks(false, rest(s))})
	case first == "explanations" && n >= 3:
		return true, a.predict(w, r, target{model: s[2], version: at(s, 3), marks: marks(true, rest(s))})
	case first == "invocations" && n == 2:
		return true, a.invoke(w, r, param(r.URL.Query(), "model_name", ""))
	case first == "models" && n == 4 && s[3] == "invoke":
		return true, a.invoke(w, r, s[2])
	case first == "v1" && at(s, 2) == "models" && n == 4:
		model, verb, _ := strings.Cut(s[3], ":")
		return a.kserve(w, r, model, map[string]string{"predict": "predict", "explain": "explain"}[verb])
	case first == "v2" && at(s, 2) == "models" && n == 5:
		return a.kserve(w, r, s[3], map[string]string{"infer": "predict", "explain": "explain"}[s[4]])
	case first != "" && n == 3 && s[2] == "predict":
		return true, a.predict(w, r, target{model: first, query: true})
	case first != "" && n == 4 && s[3] == "predict":
		return true, a.predict(w, r, target{model: first, version: s[2], query: true})
	}
	return false, nil
}

// target is what a request asks of which model.
type target struct {
	model, version string
	query          bool          // parameters of the URL are the handler's
	marks          []engine.Pair // headers that a handler sees beside the client's
}

// marks are what handlers know of the route: whether they are to explain, and what follows
// in the URL. Routes of other servers' APIs tell less of it, or nothing.
func marks(explain bool, path ...string) []engine.Pair {
	value := "False"
	if explain {
		value = "True"
	}
	hs := append(make([]engine.Pair, 0, 1+len(path)), engine.Pair{Name: "explain", Value: value})
	for _, p := range path {
		hs = append(hs, engine.Pair{Name: "url_path", Value: p})
	}
	return hs
}

// rest is what follows the version in a URL.
func rest(segments []string) string {
	if len(segments) < 5 {
		return ""
	}
	return strings.Join(segments[4:], "/")
}

// invoke finds the model of a request that may name it in its body, or leave the name
// out where one model was loaded at the start.
func (a *API) invoke(w http.ResponseWriter, r *http.Request, model string) error {
	t := target{model: model, query: true}
	if t.model == "" {
		t.model = a.onlyAtStart()
	}
	return a.predict(w, r, t)
}

// onlyAtStart is the model that was loaded at the start where it was the only one.
func (a *API) onlyAtStart() string {
	name := ""
	for _, m := range a.Engine.Models() {
		if !m.LoadedAtStartup {
			continue
		}
		if name != "" && name != m.Name {
			return ""
		}
		name = m.Name
	}
	return name
}

func (a *API) kserve(w http.ResponseWriter, r *http.Request, model, verb string) (bool, error) {
	if verb == "" {
		return false, nil
	}
	return true, a.predict(w, r, target{model: model, marks: marks(verb == "explain")})
}

func (a *API) predict(w http.ResponseWriter, r *http.Request, t target) error {
	in, err := a.readRequest(r, t.query)
	if err != nil {
		return err
	}
	if t.model == "" {
		for _, p := range in.Parts {
			if p.Name == "model_name" {
				t.model = string(p.Value)
				break
			}
		}
		if t.model == "" {
			return badRequest("Parameter model_name is required.")
		}
	}
	if r.Method == http.MethodOptions {
		if _, err := a.Engine.Describe(r.Context(), t.model, t.version, false); err != nil {
			return err
		}
		sendJSON(w, http.StatusOK, modelAPI(t.model))
		return nil
	}
	in.Headers = append(in.Headers, t.marks...)
	out := &stream{w: w}
	if err := a.Engine.Predict(r.Context(), t.model, t.version, in, out.emit); err != nil {
		return err
	}
	return out.end()
}

// stream sends frames: one with its length, several as chunks.
type stream struct {
	w     http.ResponseWriter
	kind  string // the content type of answers that have none
	first bool
}

func (s *stream) emit(f engine.Frame) error {
	if !s.first {
		s.first = true
		s.head(f)
	}
	if len(f.Body) > 0 {
		if _, err := s.w.Write(f.Body); err != nil {
			return err
		}
	}
	if f.More {
		return http.NewResponseController(s.w).Flush()
	}
	return nil
}

// head sends what comes before the first byte.
func (s *stream) head(f engine.Frame) {
	h := s.w.Header()
	h["Content-Type"] = nil // nothing is guessed
	kind := f.ContentType
	for _, p := range f.Headers {
		switch {
		case strings.EqualFold(p.Name, "Content-Length"), strings.EqualFold(p.Name, "Transfer-Encoding"): // they are ours
		case !strings.EqualFold(p.Name, "Content-Type"):
			h[p.Name] = []string{latin1(p.Value)}
		case kind == "":
			kind = p.Value
		}
	}
	if kind == "" {
		kind = s.kind
	}
	if kind != "" {
		h.Set("Content-Type", kind)
	}
	if !f.More {
		h.Set("Content-Length", strconv.Itoa(len(f.Body)))
	}
	status := f.Status
	if status < 200 || status > 999 {
		status = http.StatusOK
	}
	s.w.WriteHeader(status)
}

// latin1 is a header's value as HTTP/1.1 of TorchServe's sends it: a byte a character.
func latin1(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII }) {
		return text
	}
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r > unicode.MaxLatin1 {
			r = '?'
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// end answers a request of which no frame came.
func (s *stream) end() error {
	if s.first {
		return nil
	}
	return s.emit(engine.Frame{Status: http.StatusOK})
}

// workflowInference answers /wfpredict.
func (a *API) workflowInference(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
	if at(s, 1) != "wfpredict" || len(s) != 3 {
		return false, nil
	}
	return true, a.runWorkflow(w, r, s[2])
}

func (a *API) runWorkflow(w http.ResponseWriter, r *http.Request, name string) error {
	in, err := a.readRequest(r, true)
	if err != nil {
		return err
	}
	out := &stream{w: w, kind: jsonType}
	if err := a.Engine.PredictWorkflow(r.Context(), name, in, out.emit); err != nil {
		return err
	}
	return out.end()
}
