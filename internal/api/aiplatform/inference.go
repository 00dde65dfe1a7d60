package aiplatform

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/oip"
	"tategu/internal/resource"
	"tategu/internal/scan"
	"tategu/internal/scoring"
	"tategu/internal/serving"
	"tategu/internal/tensor"
)

// inference answers the Open Inference Protocol; rest is the path behind /v2.
func (p *Protocols) inference(w http.ResponseWriter, r *http.Request, name, endpoint string, rest []string) error {
	path := strings.Join(rest, "/")
	switch {
	case path == "":
		return p.get(w, r, oip.ServerMetadata{Name: "tategu", Version: p.version, Extensions: []string{"binary_tensor_data"}})
	case path == "health/live":
		_, err := p.served.Deployed(r.Context(), name)
		return p.say(w, r, err, func(ok bool) []byte { return append(strconv.AppendBool([]byte(`{"live":`), ok), '}') })
	case path == "health/ready":
		return p.say(w, r, p.ready(r.Context(), name), func(ok bool) []byte { return oip.ReadyBody("", ok) })
	case rest[0] != "models" || len(rest) < 2 || rest[1] == "":
		return resource.Unimplemented("/v2/" + path + " of the Open Inference Protocol")
	}
	m, err := p.find(r, name, endpoint, rest[1:])
	if err != nil {
		return err
	}
	switch m.verb {
	case "":
		return p.get(w, r, m.metadata())
	case "ready":
		return p.say(w, r, nil, func(bool) []byte { return oip.ReadyBody(m.name, true) })
	case "infer":
		return p.infer(w, r, name, m)
	}
	return resource.Unimplemented("/v2/" + path + " of the Open Inference Protocol")
}

// get answers a GET with JSON.
func (*Protocols) get(w http.ResponseWriter, r *http.Request, v any) error {
	if r.Method != http.MethodGet {
		return methodNotAllowed(r)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, oip.ContentJSON, body)
	return nil
}

// say answers whether something is well. Why it is not is no error of the request.
func (*Protocols) say(w http.ResponseWriter, r *http.Request, err error, body func(ok bool) []byte) error {
	if r.Method != http.MethodGet {
		return methodNotAllowed(r)
	}
	if err != nil && resource.CodeOf(err) != codes.Unavailable {
		return err
	}
	status := http.StatusOK
	if err != nil {
		status = http.StatusServiceUnavailable
	}
	write(w, status, oip.ContentJSON, body(err == nil))
	return nil
}

// asked is the model that a path names.
type asked struct {
	name, version, verb string
	id                  string             // of the deployed model; "" = by the traffic split
	deployed            []serving.Deployed // those it may be
}

// find reads MODEL[/versions/VERSION][/VERB]. MODEL is the endpoint's id, which goes by
// the traffic split, or names a deployed model: by its id, its display name, or the id
// of its model.
func (p *Protocols) find(r *http.Request, name, endpoint string, rest []string) (asked, error) {
	m := asked{name: rest[0]}
	if rest = rest[1:]; len(rest) > 1 && rest[0] == "versions" {
		m.version, rest = rest[1], rest[2:]
	}
	m.verb = strings.Join(rest, "/")
	all, err := p.served.Deployed(r.Context(), name)
	if err != nil {
		return m, err
	}
	m.deployed = slices.DeleteFunc(all, func(d serving.Deployed) bool {
		named := m.name == endpoint || m.name == d.ID || m.name == d.DisplayName || m.name == d.Model[strings.LastIndexByte(d.Model, '/')+1:]
		return !named || m.version != "" && m.version != d.Version
	})
	switch {
	case len(m.deployed) == 0:
		what := "model " + strconv.Quote(m.name)
		if m.version != "" {
			what += " of version " + strconv.Quote(m.version)
		}
		return m, resource.Errorf(codes.NotFound, "endpoint %s has no %s", name, what).
			WithHint("a model is named by the id or the display name of the deployed model, by the id of its model, or, for the traffic split, by the endpoint's id (%s)", endpoint)
	case m.name == endpoint && m.version == "":
	case len(m.deployed) > 1:
		return m, resource.Invalid("model", "%q of endpoint %s is deployed %d times", m.name, name, len(m.deployed)).
			WithHint("name the deployed model by its id (%s), or a version", m.deployed[0].ID)
	default:
		m.id = m.deployed[0].ID
	}
	if !m.deployed[0].Ready {
		return m, resource.Errorf(codes.Unavailable, "the deployed model %s is not running yet", m.deployed[0].ID)
	}
	return m, nil
}

// inputName is what the input of a model in process is called in its metadata; requests
// may call a single one as they like.
const inputName = "instances"

// metadata tells inputs and outputs where they are known: of models in process.
func (m asked) metadata() oip.ModelMetadata {
	d := m.deployed[0]
	meta := oip.ModelMetadata{Name: m.name, Versions: []string{}, Platform: "vertex_json", Inputs: []oip.TensorMetadata{}, Outputs: []oip.TensorMetadata{}}
	for _, d := range m.deployed {
		if d.Version != "" && !slices.Contains(meta.Versions, d.Version) {
			meta.Versions = append(meta.Versions, d.Version)
		}
	}
	if d.Features == 0 || len(m.deployed) > 1 {
		return meta
	}
	meta.Platform = "tategu"
	meta.Inputs = append(meta.Inputs, oip.TensorMetadata{Name: inputName, Datatype: "FP64", Shape: []int64{-1, int64(d.Features)}})
	out := oip.TensorMetadata{Name: scoring.Output, Datatype: "FP64", Shape: []int64{-1}}
	if d.Outputs > 1 {
		out.Shape = append(out.Shape, int64(d.Outputs))
	}
	meta.Outputs = append(meta.Outputs, out)
	return meta
}

// infer answers one inference request.
func (p *Protocols) infer(w http.ResponseWriter, r *http.Request, name string, m asked) error {
	if r.Method != http.MethodPost {
		return methodNotAllowed(r)
	}
	body, err := readRequest(r)
	if err != nil {
		return err
	}
	length, err := oip.Length(r.Header.Get(oip.HeaderLength), len(body))
	if err != nil {
		return err
	}
	req, err := oip.ParseRequest(body, length)
	if err != nil {
		return err
	}
	inputs := make([]scoring.Named, len(req.Inputs))
	for i, in := range req.Inputs {
		inputs[i] = scoring.Named(in)
	}
	parameters, err := ofModel(req.Parameters)
	if err != nil {
		return err
	}
	if body, err = scoring.Instances(inputs, parameters); err != nil {
		return err
	}
	answer, data, err := p.predict(w, r, name, serving.Request{Body: body, Again: true, DeployedModel: m.id})
	if err != nil {
		return err
	}
	list, err := scoring.Predictions(data)
	if err != nil {
		return notPredictions(answer, err)
	}
	outputs, err := scoring.Tensors(list, answer.Route == "")
	if err != nil {
		return notPredictions(answer, err)
	}
	resp := &oip.Response{Model: m.name, Version: answer.ModelVersion, ID: req.ID}
	if resp.Outputs, err = wanted(req, outputs); err != nil {
		return err
	}
	out, head, err := resp.Append(nil)
	if err != nil {
		return err
	}
	kind := oip.ContentJSON
	if head >= 0 {
		w.Header().Set(oip.HeaderLength, strconv.Itoa(head))
		kind = oip.ContentBinary
	}
	write(w, http.StatusOK, kind, out)
	return nil
}

// ofModel gives the parameters without the one that is ours; nil = there are none.
func ofModel(parameters []byte) ([]byte, error) {
	s := scan.Scanner{Data: parameters}
	if s.Peek() != '{' {
		return nil, nil // null
	}
	out := []byte{'{'}
	err := s.Object(func(key string) error {
		value, err := s.Raw()
		if err != nil || key == "binary_data_output" {
			return err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(appendJSONString(out, key), ':'), value...)
		return nil
	})
	if err != nil || len(out) == 1 {
		return nil, err
	}
	return append(out, '}'), nil
}

// wanted picks the outputs that were asked for, in that order.
func wanted(req *oip.Request, outputs []scoring.Named) ([]oip.Result, error) {
	var out []oip.Result
	if len(req.Outputs) == 0 {
		for _, t := range outputs {
			out = append(out, oip.Result{Named: oip.Named(t), Binary: req.Binary})
		}
		return out, nil
	}
	for _, want := range req.Outputs {
		i := slices.IndexFunc(outputs, func(t scoring.Named) bool { return t.Name == want.Name })
		if i < 0 {
			names := make([]string, len(outputs))
			for k, t := range outputs {
				names[k] = t.Name
			}
			return nil, resource.Invalid("outputs", "there is no output %q: the predictions are %s", want.Name, strings.Join(names, ", "))
		}
		out = append(out, oip.Result{Named: oip.Named(outputs[i]), Binary: want.Binary})
	}
	return out, nil
}

// inferenceError answers in the protocol's form.
func inferenceError(w http.ResponseWriter, err error) {
	_, message := errors.AsType[*oip.Error](err)
	_, syntax := errors.AsType[*scan.SyntaxError](err)
	_, shape := errors.AsType[*tensor.MismatchError](err)
	if message || syntax || shape {
		write(w, http.StatusBadRequest, oip.ContentJSON, oip.ErrorBody(err.Error()))
		return
	}
	e := resource.Outcome(err)
	write(w, statusOf(e), oip.ContentJSON, oip.ErrorBody(errorText(e)))
}
