package ocf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// cursor reads values from a block.
type cursor struct {
	b    []byte
	left int // values that the record may have yet
}

func (c *cursor) varint() (int64, error) {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	c.b = c.b[n:]
	return v, nil
}

func (c *cursor) take(n int64) ([]byte, error) {
	if n < 0 || n > int64(len(c.b)) {
		return nil, io.ErrUnexpectedEOF
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b, nil
}

// text takes what its length precedes.
func (c *cursor) text() ([]byte, error) {
	n, err := c.varint()
	if err != nil {
		return nil, err
	}
	return c.take(n)
}

// value reads one of a type; depth is how many hold it.
func (c *cursor) value(s *schema, depth int) (any, error) {
	if depth > maxNesting {
		return nil, errors.New("values are nested too deep")
	}
	if c.left--; c.left < 0 {
		return nil, fmt.Errorf("it has more than %d values", maxValues)
	}
	switch s.kind {
	case kindNull:
		return nil, nil
	case kindBoolean:
		b, err := c.take(1)
		return err == nil && b[0] != 0, err
	case kindInt, kindLong:
		return c.varint()
	case kindFloat:
		b, err := c.take(4)
		if err != nil {
			return nil, err
		}
		return math.Float32frombits(binary.LittleEndian.Uint32(b)), nil
	case kindDouble:
		b, err := c.take(8)
		if err != nil {
			return nil, err
		}
		return math.Float64frombits(binary.LittleEndian.Uint64(b)), nil
	case kindString:
		b, err := c.text()
		return string(b), err
	case kindBytes:
		b, err := c.text()
		return append([]byte(nil), b...), err
	case kindFixed:
		b, err := c.take(int64(s.size))
		return append([]byte(nil), b...), err
	default:
		return c.compound(s, depth+1)
	}
}

func (c *cursor) compound(s *schema, depth int) (any, error) {
	switch s.kind {
	case kindEnum:
		i, err := c.index(len(s.symbols))
		if err != nil {
			return nil, err
		}
		return s.symbols[i], nil
	case kindUnion:
		i, err := c.index(len(s.members))
		if err != nil {
			return nil, err
		}
		return c.value(s.members[i], depth)
	case kindRecord:
		out := make(map[string]any, len(s.fields))
		for _, f := range s.fields {
			v, err := c.value(f.of, depth)
			if err != nil {
				return nil, fmt.Errorf("field %.80q: %w", f.name, err)
			}
			out[f.name] = v
		}
		return out, nil
	case kindArray:
		return c.array(s.items, depth)
	default:
		out := map[string]any{}
		err := c.items(1+s.items.least(), func() error {
			key, err := c.text()
			if err != nil {
				return err
			}
			out[string(key)], err = c.value(s.items, depth)
			return err
		}, func(int) {})
		return out, err
	}
}

func (c *cursor) index(n int) (int64, error) {
	i, err := c.varint()
	if err == nil && (i < 0 || i >= int64(n)) {
		err = fmt.Errorf("there is no member %d of %d", i, n)
	}
	return i, err
}

func (c *cursor) array(of *schema, depth int) (any, error) {
	switch of.kind {
	case kindFloat:
		var out []float32
		err := c.items(4, func() error {
			v, err := c.value(of, depth)
			if f, ok := v.(float32); ok {
				out = append(out, f)
			}
			return err
		}, func(n int) { out = slices.Grow(out, n) })
		return out, err
	case kindDouble:
		var out []float64
		err := c.items(8, func() error {
			v, err := c.value(of, depth)
			if f, ok := v.(float64); ok {
				out = append(out, f)
			}
			return err
		}, func(n int) { out = slices.Grow(out, n) })
		return out, err
	default:
		out := []any{}
		err := c.items(of.least(), func() error {
			v, err := c.value(of, depth)
			out = append(out, v)
			return err
		}, func(int) {})
		return out, err
	}
}

// items reads the blocks of an array or a map, whose items have some bytes at least;
// grow hears how many come.
func (c *cursor) items(least int, one func() error, grow func(n int)) error {
	for {
		n, err := c.varint()
		if n < 0 && err == nil { // its size in bytes follows
			n = -n
			_, err = c.varint()
		}
		if err != nil || n == 0 {
			return err
		}
		// An item of no bytes could be claimed any number of times.
		if n < 0 || n > int64(len(c.b)/max(least, 1)) {
			return fmt.Errorf("%d items are claimed in %d bytes", n, len(c.b))
		}
		grow(int(n))
		for ; n > 0; n-- {
			if err := one(); err != nil {
				return err
			}
		}
	}
}
