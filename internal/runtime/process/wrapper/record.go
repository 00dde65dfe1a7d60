package wrapper

import (
	"time"

	"tategu/internal/runtime/process/box"
)

// Files of a workload's directory that the server and the wrapper speak by; package
// process says what they mean.
const (
	FileSpec    = "spec.json"
	FileRunning = "wrapper.json"
	FileStop    = "stop.json"
	FileExit    = "exit.json"
	DirGCS      = "gcs"  // what the program sees below GCSRoot
	DirRoot     = "root" // where / is built anew
)

// Spec is spec.json: what the wrapper runs.
type Spec struct {
	Command []string
	Env     []string
	Dir     string
	GCS     string   // directory to bind on GCSRoot; "" = do not
	GCSRoot string   // where the program finds it
	Volumes []Mount  // further directories, where GCS is bound
	Note    string   // for people
	GPUs    []string // ids of those that it was given
	Python  bool     // a program that can be forked, and then is as if it was started

	Low    bool       // gets a tenth of the processor that others get who want it ...
	Cgroup box.Cgroup // ... in this group

	Container *box.Container // nil = a program of this machine
}

// Mount is a directory of the machine and where the program sees it.
type Mount struct{ From, To string }

// Whole implements record.Whole.
func (s *Spec) Whole() bool { return len(s.Command) > 0 }

// Running is wrapper.json: who watches the program.
type Running struct {
	PID   int
	Start string // start time in the kernel's own units
	Warm  bool   // the program was forked
}

// Whole implements record.Whole.
func (w *Running) Whole() bool { return w.PID > 0 && w.Start != "" }

// Stop is stop.json.
type Stop struct{ Grace time.Duration }

// Exit is exit.json: how the program ended.
type Exit struct {
	Code    int
	Signal  string
	Stopped bool    // Stop was asked for before the end
	Error   string  // why it never started ...
	Refused Refusal // ... where that is about the program ...
	Program string  // ... which is this file ...
	Loader  string  // ... that this would have run ...
	User    string  // ... for this user
	OOM     bool    // the kernel killed for memory meanwhile ...
	Counted bool    // ... in this workload's own control group
	Image   string  // that the program was looked for in; "" = this machine
	Ended   time.Time
}

// Whole implements record.Whole.
func (e *Exit) Whole() bool { return !e.Ended.IsZero() }
