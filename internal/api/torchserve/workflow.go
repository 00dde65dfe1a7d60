package torchserve

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	engine "tategu/internal/torchserve"
)

type listedWorkflow struct {
	Name string `json:"workflowName"`
	URL  string `json:"workflowUrl"`
}

type workflowListing struct {
	Next      string           `json:"nextPageToken,omitempty"`
	Workflows []listedWorkflow `json:"workflows"`
}

// workflowDescription is what GET /workflows/W shows.
type workflowDescription struct {
	Name       string `json:"workflowName"`
	URL        string `json:"workflowUrl"`
	MinWorkers int    `json:"minWorkers"`
	MaxWorkers int    `json:"maxWorkers"`
	BatchSize  int    `json:"batchSize"`
	MaxDelay   int64  `json:"maxBatchDelay"` // milliseconds
	DAG        string `json:"workflowDag"`
}

// workflows answers /workflows.
func (a *API) workflows(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
	if at(s, 1) != "workflows" || len(s) > 3 {
		return false, nil
	}
	if len(s) == 3 {
		return true, a.workflow(w, r, s[2])
	}
	switch r.Method {
	case http.MethodGet:
		q := r.URL.Query()
		ws := a.Engine.Workflows()
		slices.SortFunc(ws, func(x, y engine.Workflow) int { return strings.Compare(x.Name, y.Name) })
		from, to, next := page(number(q.Get("limit"), pageSize), number(q.Get("next_page_token"), 0), len(ws))
		out := workflowListing{Next: next, Workflows: []listedWorkflow{}}
		for _, f := range ws[from:to] {
			out.Workflows = append(out.Workflows, listedWorkflow{f.Name, f.URL})
		}
		sendJSON(w, http.StatusOK, out)
		return true, nil
	case http.MethodPost:
		return true, a.registerWorkflow(w, r)
	}
	return true, notAllowed()
}

func (a *API) registerWorkflow(w http.ResponseWriter, r *http.Request) error {
	get, err := registration(r, a.cfg.MaxRequest)
	if err != nil {
		return err
	}
	text := func(name string) string { v, _ := get(name); return v }
	url, ok := get("url")
	if !ok {
		return badRequest("Parameter url is required.")
	}
	if err := plainWeb(get, url); err != nil {
		return err
	}
	f, err := a.Engine.RegisterWorkflow(r.Context(), engine.WorkflowRegistration{
		URL: url, Name: text("workflow_name"), ResponseTimeout: seconds(text("response_timeout")), StartupTimeout: seconds(text("startup_timeout")),
	})
	if err != nil {
		return err
	}
	sendStatus(w, http.StatusOK, "Workflow %s has been registered and scaled successfully.", f.Name)
	return nil
}

func (a *API) workflow(w http.ResponseWriter, r *http.Request, name string) error {
	switch r.Method {
	case http.MethodGet:
		f, err := a.Engine.DescribeWorkflow(name)
		if err != nil {
			return err
		}
		sendJSON(w, http.StatusOK, []workflowDescription{{
			Name: f.Name, URL: f.URL, MinWorkers: f.MinWorkers, MaxWorkers: f.MaxWorkers, BatchSize: f.BatchSize, MaxDelay: f.MaxDelay.Milliseconds(), DAG: dag(f.Definition),
		}})
	case http.MethodDelete:
		if err := a.Engine.UnregisterWorkflow(r.Context(), name); err != nil {
			return err
		}
		sendStatus(w, http.StatusOK, "Workflow \"%s\" unregistered", name)
	default:
		return notAllowed()
	}
	return nil
}

// dag is the graph of a definition as TorchServe writes it: {a=[b, c], b=[d]}.
func dag(definition []byte) string {
	var spec struct {
		DAG json.RawMessage `json:"dag"`
	}
	if json.Unmarshal(definition, &spec) != nil || len(spec.DAG) == 0 {
		return "{}"
	}
	dec := json.NewDecoder(bytes.NewReader(spec.DAG))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return "{}"
	}
	var nodes []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			break
		}
		var to []string
		if dec.Decode(&to) != nil {
			break
		}
		nodes = append(nodes, name.(string)+"=["+strings.Join(to, ", ")+"]") // keys of objects are strings
	}
	return "{" + strings.Join(nodes, ", ") + "}"
}
