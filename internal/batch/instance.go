package batch

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
)

// item is one line of the input on its way through.
type item struct {
	line     []byte // as read
	instance []byte // what the model is given
	shown    []byte // what stands beside the prediction, with its name
	err      error
}

// member is one field of an object, unread.
type member struct {
	key   string
	value json.RawMessage
}

// shape turns lines into instances as an InstanceConfig says.
type shape struct {
	array    bool
	key      string
	included []string
	excluded []string
}

func newShape(c *pb.BatchPredictionJob_InstanceConfig) shape {
	return shape{
		array: c.GetInstanceType() == "array", key: c.GetKeyField(),
		included: c.GetIncludedFields(), excluded: c.GetExcludedFields(),
	}
}

// plain reports that lines are instances as they are.
func (s shape) plain() bool {
	return !s.array && s.key == "" && len(s.included) == 0 && len(s.excluded) == 0
}

func (s shape) item(line []byte) *item {
	it := &item{line: line, instance: line}
	it.shown = append([]byte(`"instance":`), line...)
	if !json.Valid(line) {
		it.err = resource.Invalid("instance", "the line is not valid JSON").WithHint("the input is one JSON value a line (JSONL)")
		text, err := json.Marshal(string(line))
		if err != nil { // a string always marshals
			text = []byte(`""`)
		}
		it.shown = append([]byte(`"instance":`), text...)
		return it
	}
	if s.plain() || s.array && line[0] == '[' {
		return it
	}
	if line[0] != '{' {
		it.err = resource.Invalid("instance", "the line is not an object, as instanceConfig needs it")
		return it
	}
	it.err = s.transform(it)
	return it
}

// transform applies the configuration to an object.
func (s shape) transform(it *item) error {
	members, err := object2members(it.line)
	if err != nil {
		return err
	}
	if s.key != "" {
		i := slices.IndexFunc(members, func(m member) bool { return m.key == s.key })
		if i < 0 {
			return resource.Invalid("instance", "the line has no key field %q", s.key)
		}
		it.shown = append([]byte(`"key":`), members[i].value...)
	}
	var kept []member
	switch {
	case len(s.included) > 0:
		for _, name := range s.included {
			i := slices.IndexFunc(members, func(m member) bool { return m.key == name })
			if i < 0 {
				return resource.Invalid("instance", "the line has no field %q", name)
			}
			kept = append(kept, members[i])
		}
	default:
		kept = slices.DeleteFunc(members, func(m member) bool { return m.key == s.key || slices.Contains(s.excluded, m.key) })
	}
	it.instance, err = s.write(kept)
	return err
}

func (s shape) write(members []member) ([]byte, error) {
	var b bytes.Buffer
	open, end := byte('{'), byte('}')
	if s.array {
		open, end = '[', ']'
	}
	b.WriteByte(open)
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		if !s.array {
			key, err := json.Marshal(m.key)
			if err != nil {
				return nil, err
			}
			b.Write(key)
			b.WriteByte(':')
		}
		b.Write(m.value)
	}
	b.WriteByte(end)
	return b.Bytes(), nil
}

// object2members cuts an object into its fields, in order, values unread.
func object2members(line []byte) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var members []member
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, errors.New("a key is not a string")
		}
		m := member{key: key}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	return members, nil
}
