// Package mar reads TorchServe's model archives (.mar, .tgz, or a folder that is no
// archive) and workflow archives (.war) from a model store folder, gs://, or http(s).
// What an archive says is never trusted: names that leave the folder, links, devices,
// and archives that unpack to more than the limits are refused before anything else
// is written.
package mar

import "time"

// Manifest is MAR-INF/MANIFEST.json, of the archiver of today and of those before it.
type Manifest struct {
	CreatedOn       string
	Description     string
	ArchiverVersion string
	Runtime         string // "python" unless said otherwise
	Model           Model
}

// Model is what the manifest says of the model; "" = the manifest is silent.
type Model struct {
	Name             string
	Version          string // as it is in routes: "1.0"
	Description      string
	Handler          string // a name of TorchServe's own handlers, FILE, FILE:FUNCTION, with or without .py
	Envelope         string
	ModelFile        string // Python source of the network
	SerializedFile   string // weights
	RequirementsFile string
	ConfigFile       string
}

// Config is model-config.yaml. Nil and zero values are "the file is silent".
type Config struct {
	MinWorkers, MaxWorkers *int
	BatchSize              *int
	MaxBatchDelay          *time.Duration
	ResponseTimeout        *time.Duration
	StartupTimeout         *time.Duration
	MaxRetryTimeout        *time.Duration // how long a model may go on failing to start
	ClientTimeout          *time.Duration
	JobQueueSize           *int
	UseJobTicket           bool
	AsyncCommunication     bool
	UseVenv                bool
	DeviceType             string // "", "cpu", "gpu"
	DeviceIDs              []int
	ParallelType           string // "", "none", "pp", "tp", "pptp", "custom"
	ParallelLevel          int
	TorchRun               map[string]string // options of torchrun, by their YAML names
	ContinuousBatching     bool
	SequenceBatching       bool
	SequenceMaxIdle        time.Duration
	SequenceTimeout        time.Duration
	MaxNumSequence         int
	MaxSequenceQueue       int
	// Raw is the whole file, decoded: handlers read keys of their own in it.
	Raw map[string]any
}

// Archive is an unpacked model.
type Archive struct {
	URL      string // as it was asked for
	Dir      string // where the files are
	Manifest Manifest
	Config   Config
	owned    bool // Dir goes with the archive
}

// Workflow is an unpacked workflow archive.
type Workflow struct {
	URL     string
	Dir     string
	Name    string // workflowName of the manifest
	Spec    Spec
	owned   bool
	Handler string // path of the Python file of its functions, "" = none
}

// Spec is the workflow's YAML.
type Spec struct {
	// Defaults of all nodes; nodes may say otherwise.
	Defaults Node
	Nodes    []Node              // in the order of the file
	Edges    map[string][]string // node to those that take its output
	JSON     []byte              // the whole YAML, as JSON
}

// Node is a model or a function of a workflow.
type Node struct {
	Name                   string
	URL                    string // of a model's archive, "" = a function of the workflow's handler
	MinWorkers, MaxWorkers int
	BatchSize              int
	MaxBatchDelay          time.Duration
	RetryAttempts          int
	Timeout                time.Duration
}
