package lightgbm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxLine bounds one line of a model file; the longest are the leaf values of a
// tree and the feature names.
const maxLine = 256 << 20

// maxOutputs bounds the scores of a row.
const maxOutputs = 1 << 16

// SyntaxError says which line of a model file is wrong.
type SyntaxError struct {
	Line int
	Err  error
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap gives what was wrong.
func (e *SyntaxError) Unwrap() error { return e.Err }

// field is the text after KEY= and where it stood.
type field struct {
	text string
	line int
}

type parser struct {
	model   *Model
	header  map[string]field
	current map[string]field // the tree being read, nil in the header
	tree    field            // its "Tree=N" line
}

// Parse reads a text model up to "end of trees"; what follows (importances and
// training parameters) does not matter to predictions. Every index in the file
// is checked, so that Predict cannot fail.
func Parse(r io.Reader) (*Model, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	p := &parser{model: &Model{}, header: map[string]field{}}
	number, complete := 0, false
	for !complete && lines.Scan() {
		number++
		text := strings.TrimSpace(lines.Text())
		if number == 1 {
			if text != "tree" {
				return nil, at(1, errors.New(`not a LightGBM text model: it does not begin with "tree"`))
			}
			continue
		}
		var err error
		if complete, err = p.line(text, number); err != nil {
			return nil, err
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	if !complete {
		return nil, at(number, errors.New(`the file is cut off: "end of trees" is missing`))
	}
	if len(p.model.trees)%p.model.outputs != 0 {
		return nil, at(number, fmt.Errorf("%d trees do not make whole iterations of %d", len(p.model.trees), p.model.outputs))
	}
	return p.model, nil
}

// line takes one line and reports whether it was the last that matters.
func (p *parser) line(text string, number int) (done bool, err error) {
	key, value, found := strings.Cut(text, "=")
	switch {
	case text == "end of trees":
		if p.current == nil {
			return true, p.endHeader(number)
		}
		return true, p.endTree()
	case text == "average_output" && p.current == nil:
		p.model.average = true
	case key == "Tree" && found:
		if p.current == nil {
			err = p.endHeader(number)
		} else {
			err = p.endTree()
		}
		p.current, p.tree = map[string]field{}, field{value, number}
	case found && p.current != nil:
		p.current[key] = field{value, number}
	case found:
		p.header[key] = field{value, number}
	}
	return false, err
}

func (p *parser) endHeader(number int) error {
	m := p.model
	for _, key := range []string{"version", "max_feature_idx", "feature_names"} {
		if _, ok := p.header[key]; !ok {
			return at(number, fmt.Errorf("the header has no %s", key))
		}
	}
	if v := p.header["version"]; v.text != "v2" && v.text != "v3" && v.text != "v4" {
		return at(v.line, fmt.Errorf("version %q is not supported: want v2, v3 or v4", v.text))
	}
	last := p.header["max_feature_idx"]
	n, err := strconv.Atoi(last.text)
	if err != nil || n < 0 {
		return at(last.line, fmt.Errorf("max_feature_idx %q is not a count", last.text))
	}
	names := p.header["feature_names"]
	m.features = strings.Fields(names.text)
	if len(m.features) != n+1 {
		return at(names.line, fmt.Errorf("%d feature names for %d features", len(m.features), n+1))
	}
	m.outputs = 1
	for _, key := range []string{"num_class", "num_tree_per_iteration"} {
		f, ok := p.header[key]
		if !ok {
			continue
		}
		if m.outputs, err = strconv.Atoi(f.text); err != nil || m.outputs < 1 || m.outputs > maxOutputs {
			return at(f.line, fmt.Errorf("%s %q is not between 1 and %d", key, f.text, maxOutputs))
		}
	}
	if f, ok := p.header["objective"]; ok {
		if m.objective, err = parseObjective(f.text); err != nil {
			return at(f.line, err)
		}
	}
	return nil
}

func at(line int, err error) error { return &SyntaxError{Line: line, Err: err} }
