// Command vector is tategu's side of make bench-vector: it builds a segment from a file of
// vectors and then answers lines on its standard input, each a setting, with how long all
// queries took. bench.py drives it in turns with its peers.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"tategu/internal/vector/ann"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vector:", err)
		os.Exit(1)
	}
}

// reply to one line.
type reply struct {
	Wall   float64    `json:"wall"` // seconds
	CPU    float64    `json:"cpu"`
	RSS    int64      `json:"rss"` // bytes
	Stats  ann.Stats  `json:"stats"`
	Tuned  ann.Tuning `json:"tuned"`
	Leaves int        `json:"leaves"`
}

// setting is one line.
type setting struct {
	Fraction   float64 `json:"fraction"`
	Candidates int     `json:"candidates"`
	Beam       int     `json:"beam"`
	Batch      int     `json:"batch"` // queries a call
	K          int     `json:"k"`
	Out        string  `json:"out"` // file for rows, as uint32
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("vector", flag.ContinueOnError)
	base, queries := fs.String("base", "", "file of vectors"), fs.String("queries", "", "file of queries")
	cosine, method, file := fs.Bool("cosine", false, "cosine instead of squared L2"), fs.Int("method", 0, "0 chooses"), fs.String("segment", "", "file to build")
	leaf, threads, recall := fs.Int("leaf", 0, "rows a leaf"), fs.Int("threads", 1, "of the build"), fs.Float64("recall", 0, "wanted")
	sums := fs.Bool("l1", false, "sums of absolute differences")
	filters := fs.Bool("filters", false, "measure filters, once the segment is there, and end")
	if err := fs.Parse(args); err != nil {
		return err
	}
	b, d, err := read(*base)
	if err != nil {
		return err
	}
	q, _, err := read(*queries)
	if err != nil {
		return err
	}
	m := ann.Measure{Distance: ann.SquaredL2}
	if *cosine {
		m.Distance = ann.Cosine
	}
	if *sums {
		m.Distance = ann.L1
	}
	rows := func(yield func(ann.Row, error) bool) {
		for i := range len(b) / d {
			if !yield(ann.Row{ID: strconv.Itoa(i), Vector: b[i*d : (i+1)*d]}, nil) {
				return
			}
		}
	}
	var with *attributed
	if *filters {
		with = attribute(b, q, d, m)
		rows = with.all
	}
	c, start := cpu(), time.Now()
	_, err = ann.BuildFile(ctx, *file, rows, ann.Options{Dimensions: d, Measure: m, Method: ann.Method(*method), LeafSize: *leaf, Threads: *threads, Recall: *recall})
	if err != nil {
		return err
	}
	r := reply{Wall: time.Since(start).Seconds(), CPU: cpu() - c}
	if with == nil {
		b = nil
	}
	runtime.GC()
	s, err := ann.Open(*file)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // the program ends
	if with != nil {
		return measureFilters(s, with, q, d, out)
	}
	ids := make([]uint32, s.Len()) // of rows
	for row := range s.Scan("") {
		n, err := strconv.Atoi(s.ID(row))
		if err != nil {
			return err
		}
		ids[row] = uint32(n)
	}
	r.Stats, r.Tuned, r.Leaves = s.Stats(), s.Tuned(), s.Leaves
	enc := json.NewEncoder(out)
	if err := enc.Encode(r); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var v setting
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return err
		}
		r, err := measure(s, q, d, ids, v)
		if err != nil {
			return err
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return lines.Err()
}

func measure(s *ann.Segment, q []float32, d int, ids []uint32, v setting) (reply, error) {
	n := len(q) / d
	asked := make([]ann.Query, n)
	for i := range asked {
		asked[i] = ann.Query{Vector: q[i*d : (i+1)*d], K: v.K, Fraction: v.Fraction, Candidates: v.Candidates, Beam: v.Beam}
	}
	found := make([]uint32, 0, n*v.K)
	var out ann.Results
	start, c := time.Now(), cpu()
	for i := 0; i < n; i += v.Batch {
		if err := s.Search(asked[i:min(i+v.Batch, n)], nil, &out); err != nil {
			return reply{}, err
		}
		for j := range out.Len() {
			for _, x := range out.At(j) {
				found = append(found, ids[x.Row])
			}
			for range v.K - len(out.At(j)) {
				found = append(found, math.MaxUint32)
			}
		}
	}
	r := reply{Wall: time.Since(start).Seconds(), CPU: cpu() - c}
	f, err := os.Create(v.Out)
	if err != nil {
		return r, err
	}
	if err := binary.Write(f, binary.LittleEndian, found); err != nil {
		return r, err
	}
	return r, f.Close()
}

// cpu is the processor time of this process in seconds.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// read gives the vectors of a file: rows, dimensions (uint32 each), then float32.
func read(path string) ([]float32, int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	var head [2]uint32
	if err := binary.Read(f, binary.LittleEndian, &head); err != nil {
		return nil, 0, err
	}
	v := make([]float32, int(head[0])*int(head[1]))
	return v, int(head[1]), binary.Read(bufio.NewReaderSize(f, 1<<20), binary.LittleEndian, v)
}
