package xgboost

import (
	"fmt"
	"strings"
)

// maxDepth bounds nesting in a model file; the library's files nest 8 deep.
const maxDepth = 64

// SyntaxError says where a model file is wrong.
type SyntaxError struct {
	Field  string // such as learner.gradient_booster.model.trees[3].left_children; "" outside of one
	Offset int    // in bytes
	Err    error
}

// maxWords bounds a name or a value in an error: both are the file's.
const maxWords = 300

func (e *SyntaxError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("byte %d: %s", e.Offset, shortened(e.Err.Error()))
	}
	return fmt.Sprintf("byte %d, in %s: %s", e.Offset, shortened(e.Field), shortened(e.Err.Error()))
}

func shortened(text string) string {
	if len(text) <= maxWords {
		return text
	}
	return strings.ToValidUTF8(text[:maxWords], "") + "..."
}

// Unwrap gives what was wrong.
func (e *SyntaxError) Unwrap() error { return e.Err }

// cursor is a place in a file, and in its structure.
type cursor struct {
	data []byte
	pos  int
	path []string
}

// fail says what is wrong here.
func (c *cursor) fail(format string, args ...any) error { return c.failAt(c.pos, format, args...) }

func (c *cursor) failAt(offset int, format string, args ...any) error {
	return &SyntaxError{Field: strings.TrimPrefix(strings.Join(c.path, ""), "."), Offset: offset, Err: fmt.Errorf(format, args...)}
}

// within runs f one level deeper in the structure. After an error the path stays
// as it is; nothing is read any more then.
func (c *cursor) within(name string, f func() error) error {
	if len(c.path) == maxDepth {
		return c.fail("the file nests more than %d deep", maxDepth)
	}
	c.path = append(c.path, name)
	if err := f(); err != nil {
		return err
	}
	c.path = c.path[:len(c.path)-1]
	return nil
}

// source reads values of a self-describing format one after the other. What it
// allocates is at most a small multiple of the file.
type source interface {
	// object calls f with each key; f reads the value.
	object(f func(key string) error) error
	// array calls f before each element; f reads it.
	array(f func(i int) error) error
	text() (string, error)
	integer() (int64, error)
	// floats and integers append a list to what they are given; true counts as 1.
	floats(into []float32) ([]float32, error)
	integers(into []int32) ([]int32, error)
	// skip passes over any value.
	skip() error
	// end says that the value was the file's last.
	end() error
	// fail says what is wrong with the value just read.
	fail(format string, args ...any) error
	failAt(offset int, format string, args ...any) error
	at() int
}

func (c *cursor) at() int { return c.pos }

var (
	_ source = (*jsonSource)(nil)
	_ source = (*ubjSource)(nil)
)
