package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Bounds of a file of instances.
const (
	mostInstances = 100_000
	mostFile      = 256 << 20
)

// ReadInstances reads what a model is asked with: JSON values one after the other,
// each an instance (JSON Lines), one array of instances, or a request with the
// members instances and parameters. name is for errors.
func ReadInstances(name string, r io.Reader) (instances []json.RawMessage, parameters json.RawMessage, err error) {
	text, err := io.ReadAll(io.LimitReader(r, mostFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the instances: %w", err)
	}
	if len(text) > mostFile {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes: a few hundred instances are enough", name, mostFile)
	}
	values, err := split(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w; want JSON: an instance in each line, an array of instances, or a request with \"instances\"", name, err)
	}
	if len(values) == 1 {
		if values, parameters, err = unfold(values[0]); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	switch {
	case len(values) == 0:
		return nil, nil, fmt.Errorf("%s holds no instance", name)
	case len(values) > mostInstances:
		return nil, nil, fmt.Errorf("%s holds %d instances: at most %d are taken", name, len(values), mostInstances)
	}
	return values, parameters, nil
}

func split(text []byte) ([]json.RawMessage, error) {
	var out []json.RawMessage
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var v json.RawMessage
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("value %d is no JSON: %w", len(out)+1, err)
		}
		out = append(out, v)
	}
}

// unfold opens the one value of a file. An array of numbers or strings is an instance
// itself.
func unfold(v json.RawMessage) (instances []json.RawMessage, parameters json.RawMessage, err error) {
	switch v[0] {
	case '[':
		if err := json.Unmarshal(v, &instances); err != nil {
			return nil, nil, err
		}
		for _, one := range instances {
			if one[0] != '[' && one[0] != '{' {
				return []json.RawMessage{v}, nil, nil
			}
		}
		return instances, nil, nil
	case '{':
		var request struct {
			Instances  []json.RawMessage `json:"instances"`
			Parameters json.RawMessage   `json:"parameters"`
		}
		if err := json.Unmarshal(v, &request); err == nil && request.Instances != nil {
			return request.Instances, request.Parameters, nil
		}
	}
	return []json.RawMessage{v}, nil, nil
}

// PredictBody is the request of predict for n instances from the i-th on, which go
// round.
func PredictBody(instances []json.RawMessage, parameters json.RawMessage, i, n int) []byte {
	b := []byte(`{"instances":[`)
	for k := range n {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(b, instances[(i+k)%len(instances)]...)
	}
	b = append(b, ']')
	if len(parameters) > 0 {
		b = append(append(b, `,"parameters":`...), parameters...)
	}
	return append(b, '}')
}
