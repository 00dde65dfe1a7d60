package torchserve

import (
	"encoding/json"
	"time"
)

// Config is a server's configuration, of config.properties, TS_ variables and the
// command line. ReadProperties makes one; docs/compat.md lists its keys, and those
// that are known and do nothing here.
type Config struct {
	// Folders and programs.
	ModelStore     string // model_store: archives named without a scheme
	WorkflowStore  string // workflow_store; "" = ModelStore
	Work           string // unpacked archives, sockets, environments; made when missing
	Python         string // python: runs workers; must have the packages torchserve and torch
	UV             string // makes environments of models; "" = found in PATH when first needed
	SnapshotFolder string // where snapshots are written: logs/config; "" = none are (--ncs)
	AllowedURLs    []string
	Environment    []string // of workers, besides what they get; nil = that of this process
	DenyEnv        string   // blacklist_env_vars: a regular expression of names workers do not see

	// What to start with.
	LoadModels    []string                   // load_models: URLs, NAME=URL, or "all"
	LoadWorkflows []string                   // NAME=URL, after the models; no key
	ModelSnapshot json.RawMessage            // model_snapshot: what to restore; it goes before LoadModels
	Models        map[string]json.RawMessage // models: settings by model and version, below those of archives

	// Defaults of models.
	DefaultWorkers  int           // default_workers_per_model; 0 = a registration that names none starts none
	DefaultMost     int           // workers that such a model may have by its load; 0 = DefaultWorkers
	ResponseTimeout time.Duration // default_response_timeout
	StartupTimeout  time.Duration // default_startup_timeout
	UnregisterTime  time.Duration // unregister_model_timeout
	JobQueueSize    int           // job_queue_size
	DefaultHandler  string        // default_service_handler
	Envelope        string        // service_envelope
	BareNodes       bool          // nodes of workflows have no envelope: they hand bodies on, not instances; no key
	Cores           int           // that workers use together; 0 = as many as there are
	GPUs            int           // number_of_gpu; -1 = as many as there are
	Requirements    bool          // install_py_dep_per_model
	LimitPixels     bool          // limit_max_image_pixels
	DecodeRequests  bool          // decode_input_request
	MaxResponse     int64         // max_response_size: bytes of one answer
	MetricsConfig   string        // metrics_config: file of metric definitions workers read; "" = the package's
	Shortcuts       bool          // worker_shortcuts: workers have shorter ways of some functions of the package, of equal effect; with Zygote only
	Zygote          bool          // workers are forked from a parent with torch loaded, where that is possible

	// The API's side; the engine does not read it.
	Listen Listen

	// Ignored are keys of the file that are known and have no effect here, Unknown
	// those that no version of TorchServe has; the command line tells both.
	Ignored, Unknown []string
	// Properties are all keys as they were read, for snapshots.
	Properties map[string]string
}

// Listen is what the servers of the APIs read.
type Listen struct {
	Inference, Management, MetricsAddress   string // inference_address ...: http(s)://HOST:PORT or unix:PATH
	GRPCInference, GRPCManagement           string // grpc_inference_address ...: hosts
	GRPCInferencePort, GRPCManagementPort   int
	GRPCInferenceAge, GRPCManagementAge     time.Duration // ..._max_connection_age_ms; 0 = no end
	GRPCInferenceGrace, GRPCManagementGrace time.Duration // ..._max_connection_age_grace_ms
	GRPCTLS                                 bool          // enable_grpc_ssl
	OpenInference                           bool          // ts_open_inference_protocol=oip (or true)
	Keystore, KeystorePass, KeystoreType    string
	CertificateFile, PrivateKeyFile         string
	MaxRequest                              int64 // max_request_size
	CORSOrigin, CORSMethods, CORSHeaders    string
	TokensDisabled                          bool          // disable_token_authorization
	TokenLife                               time.Duration // token_expiration_min
	ModelAPI                                bool          // enable_model_api: models may be registered and removed
	MetricsAPI                              bool          // enable_metrics_api
	MetricsMode                             string        // metrics_mode: "log", "prometheus", "legacy"
	MetricsDetect                           bool          // model_metrics_auto_detect: metrics of handlers need no definition
	MetricsEvery                            time.Duration // metric_time_interval of system metrics; 0 = none (disable_system_metrics)
	SequenceIDHeader                        string        // ts_header_key_sequence_id
}
