package torchserve

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	engine "tategu/internal/torchserve"
)

// atOnce is how many instances of a request are in a workflow at a time: the queues of its
// nodes have room for others.
const atOnce = 32

// Instances is the handler of the inference address with a route besides, where a
// workflow takes {"instances": [...]} and gives {"predictions": [...]}, as models do with
// TorchServe's JSON envelope: each instance goes through the graph by itself. A body of
// another type than application/json goes through as it is.
func (a *API) Instances(route, workflow string) http.Handler {
	own := func(w http.ResponseWriter, r *http.Request, _ []string) (bool, error) {
		switch {
		case r.URL.Path != route:
			return false, nil
		case r.Method != http.MethodPost:
			return true, notAllowed()
		case mimeType(r) != jsonType:
			return true, a.runWorkflow(w, r, workflow)
		}
		return true, a.instances(w, r, workflow)
	}
	return a.chain(a.describeAPI(true, false), a.guard(false), own, a.inference, a.openInference, a.workflowInference)
}

func (a *API) instances(w http.ResponseWriter, r *http.Request, workflow string) error {
	in, err := a.readRequest(r, false)
	if err != nil {
		return err
	}
	rows, err := readInstances(in.Parts[0].Value)
	if err != nil {
		return err
	}
	predictions := make([]json.RawMessage, len(rows))
	group, ctx := errgroup.WithContext(r.Context())
	group.SetLimit(atOnce)
	for i, row := range rows {
		group.Go(func() error {
			one := in
			one.Parts = []engine.Part{row}
			var out bytes.Buffer
			err := a.Engine.PredictWorkflow(ctx, workflow, one, func(f engine.Frame) error {
				out.Write(f.Body)
				return nil
			})
			if err == nil {
				predictions[i], err = prediction(out.Bytes())
			}
			if e, ok := errors.AsType[*engine.Error](err); ok && len(rows) > 1 {
				return &engine.Error{Code: e.Code, Type: e.Type, Message: fmt.Sprintf("instance %d: %s", i+1, e.Message), Err: e.Err}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	sendJSON(w, http.StatusOK, map[string]any{"predictions": predictions})
	return nil
}

// readInstances gives each instance as a body: JSON, or the bytes of {"b64": ...}, as
// TorchServe's envelope reads them.
func readInstances(body []byte) ([]engine.Part, error) {
	var ask struct {
		Instances []json.RawMessage `json:"instances"`
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, badRequest("The body is no JSON object with instances: %v", err)
	}
	if ask.Instances == nil {
		return nil, badRequest(`The body has no "instances": want {"instances": [...]}`)
	}
	parts := make([]engine.Part, len(ask.Instances))
	for i, text := range ask.Instances {
		parts[i] = engine.Part{Name: "body", ContentType: jsonType, Value: text}
		var keys map[string]json.RawMessage
		if json.Unmarshal(text, &keys) != nil || len(keys) != 1 || keys["b64"] == nil {
			continue
		}
		var encoded string
		if err := json.Unmarshal(keys["b64"], &encoded); err != nil {
			return nil, badRequest("instance %d: b64 is no text: %v", i+1, err)
		}
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, badRequest("instance %d: b64: %v", i+1, err)
		}
		parts[i] = engine.Part{Name: "body", Value: data}
	}
	return parts, nil
}

// prediction is what a workflow gave, as JSON: text that is none becomes a string.
func prediction(body []byte) (json.RawMessage, error) {
	if text := bytes.TrimSpace(body); len(text) > 0 && json.Valid(text) {
		return text, nil
	}
	if !utf8.Valid(body) {
		return nil, failure(http.StatusInternalServerError, engine.InternalServer, "the last node gave bytes that are neither JSON nor text: ask for them by TorchServe's own route, /wfpredict/NAME")
	}
	return json.Marshal(string(body))
}
