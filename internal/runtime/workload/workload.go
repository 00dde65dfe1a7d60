// Package workload is what every adapter of the runtime port does around a
// program: the records of its directory, its objects below /gcs, its output, its
// identity, and the words of its command line. It owns files of the workload's
// directory; starting and watching the program are the adapter's.
package workload

import (
	"context"
	"log/slog"
	"time"

	"tategu/internal/runtime"
)

// What adapters keep in a workload's directory under the same names.
const (
	Output = "output" // stdout and stderr
	DirGCS = "gcs"    // what the program sees as /gcs

	dirTmp = "tmp" // what a container sees as /tmp

	fileFetched = "fetched.json" // what was below DirGCS before the program ran
	fileShipped = "shipped.json" // how much of Output the sink has
)

// Place is one workload's directory with what is done there.
type Place struct {
	Dir       string
	Workload  runtime.Workload
	Files     runtime.Files // nil: no objects
	Contained bool          // links below DirGCS that lead out of it do not count
	Stop      <-chan struct{}
	Log       *slog.Logger
	Now       func() time.Time
	Say       func(phase runtime.Phase, format string, args ...any) // shows in the status
}

// UntilStop is ctx that also ends when stop is closed.
func UntilStop(ctx context.Context, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the context, which the caller cancels
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
