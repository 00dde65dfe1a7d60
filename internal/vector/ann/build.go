package ann

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"tategu/internal/vector/ann/kernel"
)

// Options of a build.
type Options struct {
	Dimensions int // of every vector; needed
	Measure    Measure
	Method     Method
	// Recall is the share of the true 10 nearest that a query should find without saying more;
	// 0 is 0.95.
	Recall float64
	// LeafSize is how many rows a leaf has (leafNodeEmbeddingCount); 0 chooses.
	LeafSize int
	// Fraction of the leaves that are scanned where a query does not say; 0 is tuned.
	Fraction float64
	// Candidates are compared exactly where a query does not say; 0 is tuned.
	Candidates int
	// Threads that build; 0 is as many as Go uses.
	Threads int
	// Hint of how many rows will come; not needed.
	Hint int
	// Check the file once it is there.
	Check bool
}

// Built tells of a file.
type Built struct {
	Stats Stats
	Found float64 // share of the true neighbours that it finds, where that was checked
}

// defaultRecall is enough where nobody asked for something else.
const defaultRecall = 0.95

// BuildFile is Build into a file that appears whole or not at all: it is written beside its
// place and renamed. It is not brought to disk: what a crash of the machine leaves of it is
// found to be damaged, and who keeps it for good has a copy.
func BuildFile(ctx context.Context, path string, rows Rows, o Options) (Built, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".segment-*")
	if err != nil {
		return Built{}, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already if all went well
	stats, err := Build(ctx, f, rows, o)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	built := Built{Stats: stats}
	if err == nil && o.Check {
		if stats.Bytes > giveBack { // what the build had, before the file is mapped beside it
			debug.FreeOSMemory()
		}
		built.Found, err = checkFile(ctx, path)
	}
	return built, err
}

// giveBack is from how many bytes of a file on the memory of a build goes back to the system
// at once: left alone it would, over minutes.
const giveBack = 64 << 20

func checkFile(ctx context.Context, path string) (float64, error) {
	s, err := Open(path)
	if err != nil {
		return 0, err
	}
	found, err := s.Check(ctx)
	return found, errors.Join(err, s.Close())
}

// Build writes a segment of the rows. It holds them in memory while it builds. An error of
// a row names its id: ErrVector, ErrDuplicate.
func Build(ctx context.Context, w io.Writer, rows Rows, o Options) (Stats, error) {
	start := time.Now()
	if o.Dimensions < 1 || o.Dimensions > maxDimensions {
		return Stats{}, fmt.Errorf("a segment of %d dimensions: it has to have 1 to %d", o.Dimensions, maxDimensions)
	}
	if o.Recall == 0 {
		o.Recall = defaultRecall
	}
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	b := &builder{o: o, kernels: kernel.Best(), stride: roundUp(o.Dimensions, 16), groups: roundUp(o.Dimensions, 4) / 4}
	if err := b.collect(ctx, rows); err != nil {
		return Stats{}, err
	}
	s, err := b.build(ctx)
	if err != nil {
		return Stats{}, err
	}
	s.meta.Stats.BuildSeconds = time.Since(start).Seconds()
	text, err := json.Marshal(&s.meta)
	if err != nil {
		return Stats{}, err
	}
	stats := s.meta.Stats
	stats.Bytes, err = writeFile(w, append(b.sections(s), section{secMeta, text}))
	return stats, err
}

// builder holds rows in the order in which they came, until a layout wants another.
type builder struct {
	o       Options
	kernels kernel.Set
	n       int
	stride  int
	groups  int
	floats  []float32 // n × stride
	scales  []float32
	ids     lists[byte]
	records lists[byte]

	came  []uint32  // as which row each came, once their floats have another order; ids and records stay
	mean  []float32 // of the rows
	scale float32   // of codes of a byte
	bits  int       // of the codes that leaves have

	exactMicros float64   // that comparing all rows took in the last tuning, where it was done
	steps       []float32 // of codes of 4 bits, a dimension each
}

func (b *builder) collect(ctx context.Context, rows Rows) error {
	b.floats = aligned[float32](max(b.o.Hint, 1024) * b.stride)[:0]
	var record []byte
	for r, err := range rows {
		if err != nil {
			return err
		}
		if b.n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := CheckVector(r.Vector, b.o.Dimensions); err != nil {
			return fmt.Errorf("id %q: %w", r.ID, err)
		}
		if b.n == maxRows {
			return fmt.Errorf("a segment has at most %d rows: divide them", maxRows)
		}
		if len(b.floats)+b.stride > cap(b.floats) {
			more := aligned[float32](2 * cap(b.floats))[:len(b.floats)]
			copy(more, b.floats)
			b.floats = more
		}
		at := len(b.floats)
		b.floats = b.floats[:at+b.stride]
		copy(b.floats[at:], r.Vector)
		if b.o.Measure.scaled() {
			b.scales = append(b.scales, unit(r.Vector))
		}
		b.ids.add([]byte(r.ID)...)
		record = appendRecord(record[:0], r)
		b.records.add(record...)
		b.n++
	}
	return nil
}

// row is a vector as it is compared: of length 1 where the measure says so.
func (b *builder) row(i int, into []float32) []float32 {
	v := b.floats[i*b.stride : i*b.stride+b.o.Dimensions]
	if b.scales == nil {
		return v
	}
	for j, x := range v {
		into[j] = x * b.scales[i]
	}
	return into[:len(v)]
}

// build makes the segment in memory: what a search needs, not what is only stored.
func (b *builder) build(ctx context.Context) (*Segment, error) {
	order := b.order()
	for i := 1; i < len(order); i++ {
		if id := b.ids.at(int(order[i])); bytes.Equal(id, b.ids.at(int(order[i-1]))) {
			return nil, fmt.Errorf("id %q: %w", id, ErrDuplicate)
		}
	}
	if b.n > 0 && b.o.Method != Exact {
		b.quantizer()
		b.halfSteps()
	}
	return b.choose(ctx, order)
}

// order of rows by id.
func (b *builder) order() []uint32 {
	order := make([]uint32, b.n)
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(x, y uint32) int {
		return cmp.Or(bytes.Compare(b.ids.at(int(x)), b.ids.at(int(y))), cmp.Compare(x, y))
	})
	return order
}
