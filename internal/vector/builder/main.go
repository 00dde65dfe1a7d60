package builder

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"tategu/internal/vector/ann"
)

// growth of the heap, in percent, after which it is collected: nearly all of it is
// vectors that stay.
const growth = 20

// errOrphan ends a build whose server is gone.
var errOrphan = errors.New("the server ended")

// Main is the process: it reads what to build from in, and answers on out.
func Main(ctx context.Context, in io.Reader, out io.Writer) error {
	debug.SetGCPercent(growth)
	return serve(ctx, in, out, giveWay)
}

// Of 20 steps of niceness, each of which means about 1.25 times less of the processor: a
// third of what others get where somebody waits for the build, a tenth where nobody does.
const (
	awaitedNice    = 5
	backgroundNice = 10
)

// serve builds, and tells of a priority that could not be had.
func serve(ctx context.Context, in io.Reader, out io.Writer, giveWay func(niceness int) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := bufio.NewReaderSize(in, 256<<10)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return errors.New("the server starts builds itself, and says on their standard input what to build")
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("read what to build: %w", err)
	}
	niceness := backgroundNice
	if o.Awaited {
		niceness = awaitedNice
	}
	var a answer
	if err := giveWay(niceness); err != nil {
		a.Priority = err.Error()
	}
	rows := func(yield func(ann.Row, error) bool) {
		for row, err := range ann.ReadRows(r, o.Options.Dimensions) {
			if !yield(row, err) {
				return
			}
		}
		go func() { // until the input ends, with the server or with us
			_, _ = r.ReadByte()
			stop(errOrphan)
		}()
	}
	if a.Built, err = ann.BuildFile(ctx, o.Path, rows, o.Options); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		priority := a.Priority
		a = failed(err)
		a.Priority = priority
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return fmt.Errorf("tell what was built: %w", err)
	}
	return nil
}

// failed is the answer of a build that went wrong.
func failed(err error) answer {
	a := answer{Error: err.Error()}
	for kind, known := range kinds() {
		if errors.Is(err, known) {
			a.Kind = kind
		}
	}
	return a
}
