package torchserve

import "time"

// Registration asks for a model. Nil and zero values are what the configuration says.
// What the archive's model-config.yaml says goes before both, as in TorchServe.
type Registration struct {
	URL             string // file of the model store, file://, http(s)://, gs:// or s3://
	ModelName       string
	Runtime         string // "", "python"
	Handler         string
	BatchSize       int
	MaxBatchDelay   *time.Duration // 0 = a batch is what waits when a worker is free
	InitialWorkers  *int
	Synchronous     bool // wait for the workers
	ResponseTimeout *time.Duration
	StartupTimeout  *time.Duration // 0 = no worker can start, as in TorchServe
}

// Registered is a model that was taken, before or (Synchronous) after its workers started.
type Registered struct {
	Model, Version string
	Workers        int  // how many were asked for
	Started        bool // they run
}

// Scaling asks for another number of workers.
type Scaling struct {
	Model, Version string // Version "" = the default
	MinWorkers     *int   // nil = 1
	MaxWorkers     *int   // nil = MinWorkers
	Synchronous    bool
}

// Model is one version of a model: what is wanted, and its workers.
type Model struct {
	Name, Version   string
	Default         bool // requests without a version come here
	URL             string
	Engine          string // "Torch"
	Runtime         string
	Handler         string
	MinWorkers      int
	MaxWorkers      int
	BatchSize       int
	MaxBatchDelay   time.Duration
	ResponseTimeout time.Duration
	StartupTimeout  time.Duration
	MaxRetryTimeout time.Duration
	ClientTimeout   time.Duration // 0 = none
	ParallelType    string        // "" = none
	ParallelLevel   int
	DeviceType      string // "", "cpu", "gpu"
	DeviceIDs       []int

	ContinuousBatching    bool
	UseJobTicket          bool
	UseVenv               bool
	Stateful              bool
	SequenceMaxIdle       time.Duration
	SequenceTimeout       time.Duration
	MaxNumSequence        int
	MaxSequenceQueue      int
	LoadedAtStartup       bool
	Workflow              bool // it belongs to a workflow
	QueueSize             int  // how many requests may wait
	Waiting               int  // how many do
	Requests, Rejected    int64
	Workers               []Worker
	Scaling               string // why it has its number of workers, where MinWorkers and MaxWorkers leave it open
	LastError             string // why the last worker that failed did, "" = none did
	Trying                bool   // workers are started, or will be
	CustomizedMetadata    []byte // what the handler's describe answers, with Describe's customized
	CustomizedMetadataErr string // why there is none
}

// WorkerState of a worker process.
type WorkerState string

// The states as TorchServe names them.
const (
	WorkerReady   WorkerState = "READY"
	WorkerLoading WorkerState = "UNLOADING" // its word for all that is not ready
)

// Worker is one process of a model.
type Worker struct {
	ID          string // "9000"
	Started     time.Time
	State       WorkerState
	PID         int
	MemoryBytes int64
	GPU         int    // -1 = the CPU
	GPUUsage    string // "N/A" without a GPU
}

// WorkflowRegistration asks for a workflow.
type WorkflowRegistration struct {
	URL  string
	Name string // "" = that of the archive
	// ResponseTimeout and StartupTimeout are those of its models.
	ResponseTimeout, StartupTimeout *time.Duration
}

// Workflow is a registered one.
type Workflow struct {
	Name       string
	URL        string
	MinWorkers int
	MaxWorkers int
	BatchSize  int
	MaxDelay   time.Duration
	Definition []byte // its YAML as JSON
}

// Health of the whole server.
type Health string

// What /ping says: every model has the workers that it should, or some, or none has.
const (
	Healthy        Health = "Healthy"
	PartialHealthy Health = "Partial Healthy"
	Unhealthy      Health = "Unhealthy"
)
