package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/hamba/avro/v2/ocf"
)

const (
	dims      = 128
	latent    = 24   // dimensions of the space that clusters share
	clusters  = 1000 // Gaussians
	neighbors = 10
	truths    = 100 // queries whose true neighbours are known
)

// space makes vectors: clusters of Gaussians in a subspace, with noise around it.
type space struct {
	seed    uint64
	basis   [latent][dims]float32
	centres [clusters][latent]float32
}

func newSpace(seed int) *space {
	s := &space{seed: uint64(seed)}
	r := rand.New(rand.NewPCG(s.seed, 0)) //nolint:gosec // the same vectors each time
	for i := range s.basis {
		for j := range s.basis[i] {
			s.basis[i][j] = float32(r.NormFloat64() / 5)
		}
	}
	for i := range s.centres {
		for j := range s.centres[i] {
			s.centres[i][j] = float32(r.NormFloat64())
		}
	}
	return s
}

// stream gives vectors without end, the same for the same number; v is used again.
func (s *space) stream(number uint64) func(v []float32) {
	r := rand.New(rand.NewPCG(s.seed, 1+number)) //nolint:gosec // the same vectors each time
	return func(v []float32) {
		centre := &s.centres[r.IntN(clusters)]
		for j := range v {
			v[j] = float32(0.02 * r.NormFloat64())
		}
		for i := range latent {
			x := centre[i] + float32(0.4*r.NormFloat64())
			for j, b := range &s.basis[i] {
				v[j] += x * b
			}
		}
	}
}

// Numbers of streams: those of files count from 0.
const (
	ofQueries = 1 << 32
	ofUpserts = ofQueries + 1
)

func (s *space) queries(n int) [][]float32 {
	next := s.stream(ofQueries)
	out := make([][]float32, n)
	for i := range out {
		out[i] = make([]float32, dims)
		next(out[i])
	}
	return out
}

// file is a part of an index's datapoints.
type file struct {
	number, first, rows int
	seen                func(row int, v []float32)
}

func id(row int) string { return "p" + strconv.Itoa(row) }

// each visits the rows of a file.
func (f file) each(ctx context.Context, s *space, visit func(id string, v []float32) error) error {
	next, v := s.stream(uint64(f.number)), make([]float32, dims)
	for row := f.first; row < f.first+f.rows; row++ {
		next(v)
		f.seen(row, v)
		if err := visit(id(row), v); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (f file) json(ctx context.Context, s *space) func(io.Writer) error {
	return func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<20)
		var line []byte
		err := f.each(ctx, s, func(id string, v []float32) error {
			line = append(strconv.AppendQuote(append(line[:0], `{"id": `...), id), `, "embedding": [`...)
			for i, x := range v {
				if i > 0 {
					line = append(line, ", "...)
				}
				line = strconv.AppendFloat(line, float64(x), 'g', -1, 32)
			}
			_, err := out.Write(append(line, "]}\n"...))
			return err
		})
		if err != nil {
			return err
		}
		return out.Flush()
	}
}

const schema = `{"type": "record", "name": "datapoint", "fields": [{"name": "id", "type": "string"}, {"name": "embedding", "type": {"type": "array", "items": "float"}}]}`

func (f file) avro(ctx context.Context, s *space) func(io.Writer) error {
	return func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<20)
		enc, err := ocf.NewEncoder(schema, out, ocf.WithBlockLength(1000))
		if err != nil {
			return fmt.Errorf("write Avro: %w", err)
		}
		var record struct {
			ID        string    `avro:"id"`
			Embedding []float32 `avro:"embedding"`
		}
		err = f.each(ctx, s, func(id string, v []float32) error {
			record.ID, record.Embedding = id, v
			return enc.Encode(record)
		})
		if err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
		return out.Flush()
	}
}

// exact keeps the true neighbours of some queries among all vectors that it was shown.
type exact struct {
	queries [][]float32
	nearest [][]near // ascending
}

type near struct {
	row      int
	distance float32
}

func newExact(queries [][]float32) *exact {
	return &exact{queries: queries, nearest: make([][]near, len(queries))}
}

func (e *exact) see(row int, v []float32) {
	for i, q := range e.queries {
		d := distance(q, v)
		best := e.nearest[i]
		if len(best) == neighbors && d >= best[neighbors-1].distance {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, d, func(n near, d float32) int {
			if n.distance < d {
				return -1
			}
			return 1
		})
		best = slices.Insert(best, at, near{row, d})
		e.nearest[i] = best[:min(neighbors, len(best))]
	}
}

// distance is squared L2, in sums that do not wait for each other.
func distance(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	for i := 0; i+3 < len(a); i += 4 {
		d0, d1, d2, d3 := a[i]-b[i], a[i+1]-b[i+1], a[i+2]-b[i+2], a[i+3]-b[i+3]
		s0, s1, s2, s3 = s0+d0*d0, s1+d1*d1, s2+d2*d2, s3+d3*d3
	}
	return s0 + s1 + s2 + s3
}

// found is the share of a query's true neighbours among ids.
func (e *exact) found(query int, ids []string) float64 {
	n := 0
	for _, t := range e.nearest[query] {
		if slices.Contains(ids, id(t.row)) {
			n++
		}
	}
	return float64(n) / float64(len(e.nearest[query]))
}
