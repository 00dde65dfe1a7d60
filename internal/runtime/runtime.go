// Package runtime is the port for running programs: tasks, replicas and custom
// jobs are all Workloads. Adapters are children (process). A workload outlives
// the server: a restarted server finds it again by its id.
package runtime

import (
	"context"
	"io"
	"strconv"
	"time"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// GCSRoot is where programs see objects: gs://BUCKET/NAME is GCSRoot/BUCKET/NAME
// in commands, arguments and variables, whatever directory the adapter maps it to.
const GCSRoot = "/gcs"

// ScriptPath stands in Command and Args for the path of the file that the adapter
// writes Python.Script to.
const ScriptPath = "{{tategu.script}}"

// Workload is one program to run. ID is chosen by the caller and makes Start
// idempotent: a second Start of the same ID gives the running (or ended) one.
type Workload struct {
	ID             string // [A-Za-z0-9._-]{1,200}, such as task-JOB-TASK-ATTEMPT
	Owner          string // full resource name of what it belongs to
	Project        string
	ServiceAccount string // whose token the metadata server hands out; "" = the project's default

	Image   string // resolved by the configured images; may be ""
	Command []string
	Args    []string
	Env     map[string]string

	// Literal says that the words of the command are data for the program and name no
	// files to it: nothing that they spell out is fetched, and no path in them is
	// changed where /gcs cannot be mounted (then TATEGU_GCS_DIR says where it is).
	Literal bool

	// Python makes the program run in a Python environment with these packages
	// besides what the image says. Nil leaves it to the image.
	Python *Python

	// Fetch lists gs:// URIs (an object, or a prefix) that must be readable under
	// /gcs/BUCKET/NAME before the program starts. Publish says that files it
	// created or changed there are uploaded when it ends, whatever its exit code.
	Fetch   []string
	Publish bool
	// ExecutorOutput is the /gcs path at which a program of kfp may say that output
	// artifacts lie elsewhere (custom_path): then they are published from there. ""
	// = it does not.
	ExecutorOutput string
	// Unlogged says that the output is not kept once the program has ended: no LogSink
	// is told of it. Its last lines still tell why a program failed.
	Unlogged bool
	// Dirs lists /gcs/... directories that must exist, empty or not, before the
	// program starts: programs write their outputs without making directories.
	Dirs []string
	// Volumes are directories that are no objects.
	Volumes []Volume
	// Secrets names what Env comes to hold besides, so that a check can say whether
	// there are secrets at all; no runtime reads it.
	Secrets []string

	Resources Resources
	// Priority orders what waits for room; the zero value is that of pipelines. What
	// has PriorityBatch gets about a tenth of the processor that others get who want it.
	Priority Priority
	// Gang names workloads that start together or not at all, GangSize how many
	// they are; "" = it starts alone.
	Gang     string
	GangSize int
	// Port hands out a free loopback port: env PORT and AIP_HTTP_PORT, which the
	// command, arguments and environment may name as $(PORT), and Instance.Address.
	Port bool
}

// Account is whom the workload runs as, and so whose rights count for its objects.
func (w Workload) Account() identity.Account {
	return identity.Account{Project: w.Project, Email: w.ServiceAccount}
}

// Volume is a directory that a program sees at an absolute path. One with a name
// is kept, and shown to all that name it; one without is the workload's own and
// goes with it.
type Volume struct {
	Name    string // [A-Za-z0-9._-]{1,200}
	Path    string // where the program sees it
	SubPath string // a directory below it, made when it is not there; "" = all of it
}

// Warmer keeps what programs start from: a Python that has loaded their packages.
// Runtimes that do so are one.
type Warmer interface {
	// KeepWarm says whether an owner will start the same programs again, perhaps after
	// a long time: then what they start from stays, as far as there is memory for it.
	KeepWarm(owner string, keep bool)
}

// Volumes keeps the directories of named volumes. Runtimes that have some are one.
type Volumes interface {
	// VolumeNames lists those that exist.
	VolumeNames() ([]string, error)
	// DropVolume removes one with its content; one that does not exist is no error.
	DropVolume(name string) error
}

// Python describes an environment; its hash names it.
type Python struct {
	Version  string   // "3.11"; "" = the server's default
	Packages []string // pip requirements; an entry may start with "--no-deps "
	Indexes  []string // index URLs, first is the main one; empty = the default index
	// Script is Python source that is written to a file of its own, whose name ends
	// in .py; ScriptPath in Command and Args becomes its path. Without a Command
	// the script itself is the program and Args are its arguments.
	Script string
	// Preload names modules that are worth loading before the program is needed, as
	// those that Script imports are: what it loads later, for certain inputs alone.
	// Modules that are not there are left out. With it, Script is taken to be one that
	// changes nothing of what an import finds.
	Preload []string
}

// Resources asked for; zero values are "whatever is there".
type Resources struct {
	Cores       float64
	MemoryBytes int64
	GPUs        int
	// Hint says that Cores and MemoryBytes are the size of a machine type: programs
	// are told and kept to them, but so much is not set aside for them alone.
	Hint bool
}

// Priority orders waiting workloads: all that wait with a higher one start first.
type Priority int

// Priorities, from what nobody sits in front of to what somebody waits for.
const (
	PriorityJob    Priority = iota // pipeline tasks, custom jobs
	PriorityBatch                  // replicas of batch prediction
	PriorityOnline                 // replicas of endpoints
)

// String gives the name that people see.
func (p Priority) String() string {
	switch p {
	case PriorityOnline:
		return "online"
	case PriorityBatch:
		return "batch"
	case PriorityJob:
		return "job"
	}
	return strconv.Itoa(int(p))
}

// Inventory is what a machine has to give.
type Inventory struct {
	Cores       float64
	MemoryBytes int64
	GPUs        []GPU
}

// GPU is one accelerator.
type GPU struct {
	ID          string   // as CUDA_VISIBLE_DEVICES takes it: an index or a UUID
	Name        string   // "NVIDIA L4"; "" = not known
	MemoryBytes int64    // 0 = not known
	Devices     []string // device nodes that belong to it alone, such as /dev/nvidia0
}

// Queue is the place of a workload that waits for room.
type Queue struct {
	Position int    // from 1, among all that wait on this machine
	Length   int    // how many wait
	Waits    string // what it lacks and who has it, for people: "1 GPU (1 of 1 in use by ...)"
	Since    time.Time
}

// Phase of an instance.
type Phase string

// Phases, in order: Queued until there is room; Preparing covers environments and
// input files.
const (
	Queued    Phase = "QUEUED"
	Preparing Phase = "PREPARING"
	Running   Phase = "RUNNING"
	Ended     Phase = "ENDED"
)

// Status is a snapshot of an instance.
type Status struct {
	Phase   Phase
	Message string // what is going on ("creating Python environment ...")
	Queue   *Queue // set while Phase is Queued
	GPUs    []GPU  // handed to it
	PID     int
	Started time.Time
	Exit    *Exit // set once Phase is Ended
}

// Exit says how a program ended.
type Exit struct {
	Code    int            // exit code; 128+signal when killed; -1 when it never started
	Signal  string         // "SIGKILL", "" = none
	Cause   resource.Cause // "" on success
	Reason  string         // what it was, finer than Cause: "OUT_OF_MEMORY"
	Message string         // one line a person understands
	Hint    string         // the next step; "" = the output says more
	Tail    []string       // last lines of output, at most 20
	Ended   time.Time
}

// OK reports a successful end.
func (e Exit) OK() bool { return e.Code == 0 }

// Instance is a started workload.
type Instance interface {
	ID() string
	// Owner is Workload.Owner.
	Owner() string
	// Address is host:port of the handed-out port, "" without Workload.Port.
	Address() string
	Status() Status
	// Wait returns once the program and all its children have ended and, with
	// Publish, its files are uploaded.
	Wait(ctx context.Context) (Exit, error)
	// Stop asks with SIGTERM, then after grace kills the whole process tree.
	Stop(ctx context.Context, grace time.Duration) error
	// Log gives output (stdout and stderr as one stream) from a byte offset.
	Log(ctx context.Context, offset int64) (io.ReadCloser, error)
	// Release removes the working directory of an ended instance.
	Release(ctx context.Context) error
}

// Metered is an instance that knows what it uses; those that do not are none.
type Metered interface {
	// CPUTime is what its programs have used so far; false = not known (any more).
	CPUTime() (time.Duration, bool)
}

// Runtime starts and finds instances.
type Runtime interface {
	// Start returns once the workload is accepted and recorded; preparation goes
	// on in the background and shows in Status. A workload that can never run
	// here (unknown image, more cores than exist) is an error at once.
	Start(ctx context.Context, w Workload) (Instance, error)
	// Find gives a known instance, also one started by an earlier server process.
	Find(ctx context.Context, id string) (Instance, error)
	// List gives all known instances.
	List(ctx context.Context) ([]Instance, error)
}

// Files moves objects between gs:// and local files for runtimes, as the account of
// the workload that it is for; access.Objects provides it. What the account may not
// do is PermissionDenied, of cause input.
type Files interface {
	// Download writes the object uri, or every object under the prefix uri, below
	// dir as BUCKET/NAME. Missing objects are not an error.
	Download(ctx context.Context, as identity.Account, uri, dir string) error
	// UploadFile makes the local file the content of the object uri.
	UploadFile(ctx context.Context, as identity.Account, path, uri string) error
	// MayWrite is nil when the account may make the object uri.
	MayWrite(ctx context.Context, as identity.Account, uri string) error
}

// Credentials gives a workload an identity; the identity layer provides it.
type Credentials interface {
	// Open returns environment variables (metadata server address, ...) and a
	// function that ends them. The same id gets the same address after a restart:
	// ctx lives as long as the server, and end called after it is done keeps the
	// identity for the next server.
	Open(ctx context.Context, id, project, serviceAccount string) (env map[string]string, end func(), err error)
}

// LogStream names the output of a workload, so that it can be found by what the
// workload belongs to.
func LogStream(owner, id string) string { return owner + "|" + id }

// LogSink keeps output for good, from the first line.
type LogSink interface {
	// AppendLog adds p at offset of a stream named by LogStream. After a restart
	// the same bytes may come again; a sink knows by the offset that it has them.
	AppendLog(ctx context.Context, stream string, offset int64, p []byte) error
}
