package torchserve

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	engine "tategu/internal/torchserve"
)

// description of a version of a model, with the names and in the order of TorchServe.
type description struct {
	Name               string              `json:"modelName"`
	Version            string              `json:"modelVersion"`
	URL                string              `json:"modelUrl"`
	Runtime            string              `json:"runtime"`
	MinWorkers         int                 `json:"minWorkers"`
	MaxWorkers         int                 `json:"maxWorkers"`
	BatchSize          int                 `json:"batchSize"`
	MaxBatchDelay      int64               `json:"maxBatchDelay"`   // milliseconds
	ResponseTimeout    int64               `json:"responseTimeout"` // seconds
	StartupTimeout     int64               `json:"startupTimeout"`
	MaxRetryTimeout    int64               `json:"maxRetryTimeoutInSec"`
	ClientTimeout      int64               `json:"clientTimeoutInMills"`
	ParallelType       string              `json:"parallelType"`
	ParallelLevel      int                 `json:"parallelLevel"`
	DeviceType         string              `json:"deviceType"`
	DeviceIDs          []int               `json:"deviceIds,omitempty"`
	ContinuousBatching bool                `json:"continuousBatching"`
	UseJobTicket       bool                `json:"useJobTicket"`
	UseVenv            bool                `json:"useVenv"`
	Stateful           bool                `json:"stateful"`
	SequenceMaxIdle    int64               `json:"sequenceMaxIdleMSec"`
	SequenceTimeout    int64               `json:"sequenceTimeoutMSec"`
	MaxNumSequence     int                 `json:"maxNumSequence"`
	MaxSequenceQueue   int                 `json:"maxSequenceJobQueueSize"`
	LoadedAtStartup    bool                `json:"loadedAtStartup"`
	Workers            []workerDescription `json:"workers"`
	Queue              queueDescription    `json:"jobQueueStatus"`
	Customized         json.RawMessage     `json:"customizedMetadata,omitempty"`
	Scaling            string              `json:"scaling,omitempty"`   // ours: why it has its number of workers, where that is open
	LastError          string              `json:"lastError,omitempty"` // ours: why the last worker that failed did
}

type workerDescription struct {
	ID       string `json:"id"`
	Start    string `json:"startTime"`
	Status   string `json:"status"`
	Memory   int64  `json:"memoryUsage"` // bytes
	PID      int    `json:"pid"`
	GPU      bool   `json:"gpu"`
	GPUUsage string `json:"gpuUsage"`
}

type queueDescription struct {
	Remaining int `json:"remainingCapacity"`
	Pending   int `json:"pendingRequests"`
}

// describe gives what GET /models/M shows.
func (a *API) describe(ctx context.Context, name, version string, customized bool) ([]description, error) {
	customized = customized && version != "all"
	ms, err := a.Engine.Describe(ctx, name, version, customized)
	if err != nil {
		return nil, err
	}
	out := []description{}
	for _, m := range ms {
		d := describe(m)
		if customized {
			if m.CustomizedMetadataErr != "" {
				return nil, failure(http.StatusServiceUnavailable, engine.InternalServer, "%s", m.CustomizedMetadataErr)
			}
			d.Customized = customMetadata(m.CustomizedMetadata)
		}
		out = append(out, d)
	}
	return out, nil
}

// customMetadata is what a handler says of its model; what is no JSON is a text.
func customMetadata(text []byte) json.RawMessage {
	if len(text) == 0 {
		return json.RawMessage("{}")
	}
	if json.Valid(text) {
		return text
	}
	quoted, err := json.Marshal(string(text))
	if err != nil {
		return json.RawMessage("{}")
	}
	return quoted
}

func describe(m engine.Model) description {
	d := description{
		Name: m.Name, Version: m.Version, URL: m.URL, Runtime: m.Runtime, MinWorkers: m.MinWorkers, MaxWorkers: m.MaxWorkers,
		BatchSize: m.BatchSize, MaxBatchDelay: m.MaxBatchDelay.Milliseconds(), ResponseTimeout: int64(m.ResponseTimeout / time.Second),
		StartupTimeout: int64(m.StartupTimeout / time.Second), MaxRetryTimeout: int64(m.MaxRetryTimeout / time.Second), ClientTimeout: m.ClientTimeout.Milliseconds(),
		ParallelType: m.ParallelType, ParallelLevel: m.ParallelLevel, DeviceType: m.DeviceType, DeviceIDs: m.DeviceIDs,
		ContinuousBatching: m.ContinuousBatching, UseJobTicket: m.UseJobTicket, UseVenv: m.UseVenv, Stateful: m.Stateful,
		SequenceMaxIdle: m.SequenceMaxIdle.Milliseconds(), SequenceTimeout: m.SequenceTimeout.Milliseconds(), MaxNumSequence: m.MaxNumSequence, MaxSequenceQueue: m.MaxSequenceQueue,
		LoadedAtStartup: m.LoadedAtStartup, Workers: []workerDescription{},
		Queue: queueDescription{Remaining: max(m.QueueSize-m.Waiting, 0), Pending: m.Waiting}, Scaling: m.Scaling, LastError: m.LastError,
	}
	if d.DeviceType == "" {
		d.DeviceType = "cpu"
	}
	for _, w := range m.Workers {
		usage := w.GPUUsage
		if usage == "" {
			usage = "N/A"
		}
		d.Workers = append(d.Workers, workerDescription{w.ID, w.Started.UTC().Format("2006-01-02T15:04:05.000Z"), string(w.State), w.MemoryBytes, w.PID, w.GPU >= 0, usage})
	}
	return d
}
