package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// QueuePath is where the machine's load is asked for.
const QueuePath = "/tategu/v1/queue"

// Queue is the answer to GET /tategu/v1/queue: what the machine has, who holds it
// and who waits for it.
type Queue struct {
	Total   Amount       `json:"total"`
	Used    Amount       `json:"used"` // can be more than Total after a restart
	GPUs    []GPU        `json:"gpus"`
	Running []QueueEntry `json:"running"` // by the time of their start
	Waiting []QueueEntry `json:"waiting"` // by position
}

// Amount of each thing that is shared.
type Amount struct {
	Cores       float64 `json:"cores"`
	MemoryBytes int64   `json:"memoryBytes"`
	GPUs        int     `json:"gpus"`
}

// GPU of the machine.
type GPU struct {
	ID          string `json:"id"`
	Name        string `json:"name,omitempty"`
	MemoryBytes int64  `json:"memoryBytes,omitempty"`
	Workload    string `json:"workload,omitempty"` // that has it
}

// QueueEntry is one workload.
type QueueEntry struct {
	Position int       `json:"position,omitempty"` // of who waits, from 1
	Workload string    `json:"workload"`
	Owner    string    `json:"owner"` // full resource name
	Project  string    `json:"project"`
	Priority string    `json:"priority"` // online, batch, job
	Asks     Amount    `json:"asks"`     // what it counts for, defaults included
	GPUIDs   []string  `json:"gpuIds,omitempty"`
	Waits    string    `json:"waits,omitempty"` // for what, and who has it
	Since    time.Time `json:"since"`
}

// QueueHandler is an http.Handler for QueuePath.
type QueueHandler struct {
	auth Authority
	look func() Queue
}

// NewQueue builds the handler; look gives the load of the machine.
func NewQueue(auth Authority, look func() Queue) *QueueHandler {
	return &QueueHandler{auth: auth, look: look}
}

// ServeHTTP implements http.Handler. The answer names the work of every project.
func (h *QueueHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != QueuePath || r.Method != http.MethodGet {
		writeError(w, resource.Unimplemented(r.Method+" of "+r.URL.Path))
		return
	}
	if err := h.auth.Authorize(r.Context(), identity.FromContext(r.Context()), "", identity.PermissionListQueue); err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(h.look()) // the client is gone
}
