package runner

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"tategu/internal/oip"
	"tategu/internal/tensor"
)

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, oip.ServerMetadata{Name: "tategu-runner", Version: s.cfg.Version, Extensions: []string{"binary_tensor_data"}})
}

func (s *Server) modelMetadata(w http.ResponseWriter, _ *http.Request, name string) {
	l := s.model(w)
	if l == nil {
		return
	}
	writeJSON(w, oip.ModelMetadata{
		Name: name, Versions: []string{"1"}, Platform: "onnx", Inputs: metadata(l.model.inputs), Outputs: metadata(l.model.outputs),
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		failed(w, err)
		return
	}
	answer(w, http.StatusOK, oip.ContentJSON, b)
}

// infer is the protocol's inference.
func (s *Server) infer(w http.ResponseWriter, r *http.Request, name string) {
	l := s.model(w)
	if l == nil {
		return
	}
	s.stats.requests.Add(1)
	out, length, err := s.inference(w, r, l, name)
	if err != nil {
		s.stats.failed.Add(1)
		failed(w, err)
		return
	}
	if length >= 0 {
		w.Header().Set(oip.HeaderLength, strconv.Itoa(length))
		answer(w, http.StatusOK, oip.ContentBinary, out)
		return
	}
	answer(w, http.StatusOK, oip.ContentJSON, out)
}

func (s *Server) inference(w http.ResponseWriter, r *http.Request, l *loaded, name string) (out []byte, length int, err error) {
	body, err := s.body(w, r)
	if err != nil {
		return nil, 0, err
	}
	if length, err = oip.Length(r.Header.Get(oip.HeaderLength), len(*body)); err != nil {
		return nil, 0, err
	}
	req, err := oip.ParseRequest(*body, length)
	if err != nil {
		return nil, 0, err
	}
	inputs, rows, err := l.model.inputsOf(req)
	if err != nil {
		return nil, 0, err
	}
	asked, err := l.model.asked(req)
	if err != nil {
		return nil, 0, err
	}
	values, err := l.batch.pieces(r.Context(), inputs, rows)
	if err != nil {
		return nil, 0, err // the memory stays with the run that may still use it
	}
	resp := oip.Response{Model: name, Version: "1", ID: req.ID}
	for _, a := range asked {
		i := slices.IndexFunc(l.model.outputs, func(o Spec) bool { return o.Name == a.Name })
		t := values[i].Tensor
		if values[i].Maps != nil {
			t = tensor.Tensor{Type: tensor.String, Shape: []int64{int64(len(values[i].Maps))}}
			for _, m := range values[i].Maps {
				t.Strings = append(t.Strings, m.appendJSON(nil))
			}
		}
		resp.Outputs = append(resp.Outputs, oip.Result{Named: oip.Named{Name: a.Name, Tensor: t}, Binary: a.Binary})
	}
	out, length, err = resp.Append(nil)
	s.put(body)
	return out, length, err
}

// asked gives the outputs to answer with.
func (m *Model) asked(req *oip.Request) ([]oip.Output, error) {
	if len(req.Outputs) == 0 {
		all := make([]oip.Output, len(m.outputs))
		for i, o := range m.outputs {
			all[i] = oip.Output{Name: o.Name, Binary: req.Binary}
		}
		return all, nil
	}
	for _, o := range req.Outputs {
		if !slices.ContainsFunc(m.outputs, func(have Spec) bool { return have.Name == o.Name }) {
			return nil, &requestError{fmt.Sprintf("the model has no output %q, it has %s", o.Name, names(m.outputs))}
		}
	}
	return req.Outputs, nil
}

// inputsOf puts a request's inputs into the model's order. rows is the first dimension
// where instances are rows.
func (m *Model) inputsOf(req *oip.Request) (inputs []tensor.Tensor, rows int, err error) {
	inputs, rows = make([]tensor.Tensor, len(m.inputs)), 1
	first := true
	given := make([]bool, len(m.inputs))
	for _, in := range req.Inputs {
		i := slices.IndexFunc(m.inputs, func(s Spec) bool { return s.Name == in.Name })
		switch {
		case i < 0:
			return nil, 0, &requestError{fmt.Sprintf("the model has no input %q, it has %s", in.Name, names(m.inputs))}
		case given[i]:
			return nil, 0, &requestError{fmt.Sprintf("input %q is given twice", in.Name)}
		case in.Type != m.inputs[i].Type:
			return nil, 0, &requestError{fmt.Sprintf("input %q: want %s, got %s", in.Name, oip.Datatype(m.inputs[i].Type), oip.Datatype(in.Type))}
		case !slices.EqualFunc(in.Shape, m.inputs[i].Shape, func(got, want int64) bool { return want < 0 || got == want }):
			return nil, 0, &requestError{fmt.Sprintf("input %q: want shape %s, got shape %s", in.Name, tensor.Shape(m.inputs[i].Shape), tensor.Shape(in.Shape))}
		}
		given[i], inputs[i] = true, in.Tensor
		if m.mode == Whole {
			continue
		}
		if len(in.Data)+len(in.Strings) == 0 && in.Shape[0] > 0 {
			// Such rows cost their sender nothing: there may be more than memory holds.
			return nil, 0, &requestError{fmt.Sprintf("input %q of shape %s has rows without elements", in.Name, tensor.Shape(in.Shape))}
		}
		if n := int(in.Shape[0]); !first && n != rows {
			return nil, 0, &requestError{fmt.Sprintf("input %q has %d rows, another one has %d", in.Name, n, rows)}
		}
		rows, first = int(in.Shape[0]), false
	}
	if i := slices.Index(given, false); i >= 0 {
		return nil, 0, &requestError{fmt.Sprintf("input %q is missing", m.inputs[i].Name)}
	}
	return inputs, rows, nil
}
