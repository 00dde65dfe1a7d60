package process

import (
	"context"
	"os"
	goruntime "runtime"
	"syscall"
	"time"
)

// dirVariable marks every process of a workload in its environment.
const dirVariable = "TATEGU_WORKLOAD_DIR"

// pollExit waits where the system cannot tell us of the end.
func pollExit(ctx context.Context, pid int, start string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for alive(pid, start) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func cores() float64 { return float64(goruntime.NumCPU()) }

// startWrapper starts our own binary on the directory, with the output file as
// its stdout and stderr.
func startWrapper(self, dir string, out *os.File, attr *syscall.SysProcAttr) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }() // opened for reading
	return os.StartProcess(self, []string{self, Verb, dir}, &os.ProcAttr{
		Dir: dir, Files: []*os.File{null, out, out}, Sys: attr,
		Env: []string{wrapperMark + "=1", dirVariable + "=" + dir, "GOMAXPROCS=2", "GOGC=20"},
	})
}
