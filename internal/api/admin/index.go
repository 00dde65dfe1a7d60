package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/vector"
)

// IndexPath is where what the API has no method for is asked of an index: GET with the
// parameter index, a full name, gives IndexInfo; with /datapoints a page of its
// datapoints as lines of JSON (parameters after and limit); POST with /rollback
// brings the generation before the current one back, and gives IndexInfo.
const IndexPath = "/tategu/v1/index"

// IndexInfo is what a query would see of an index.
type IndexInfo struct {
	Index       string    `json:"index"`
	Count       int64     `json:"count"`
	Vectors     int64     `json:"vectors"`
	Sparse      int64     `json:"sparse"`
	Generation  int       `json:"generation"`
	Previous    int       `json:"previous"`
	CanRollback bool      `json:"canRollback"`
	Created     time.Time `json:"created,omitzero"`
	Recall      float64   `json:"recall"`
	Method      string    `json:"method"`
	Segments    int       `json:"segments"`
	Unmerged    int       `json:"unmerged"`
	Bytes       int64     `json:"bytes"`
}

// Indexes is what IndexHandler needs of vector search.
type Indexes interface {
	Stats(ctx context.Context, index string) (vector.Stats, error)
	Scan(ctx context.Context, index, after string, limit int) ([]*pb.IndexDatapoint, error)
	Rollback(ctx context.Context, index string) (vector.Stats, error)
}

// IndexHandler is an http.Handler for IndexPath and what is below it.
type IndexHandler struct {
	auth    Authority
	indexes Indexes
}

// NewIndex builds the handler.
func NewIndex(auth Authority, indexes Indexes) *IndexHandler {
	return &IndexHandler{auth: auth, indexes: indexes}
}

// ServeHTTP implements http.Handler.
func (h *IndexHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		writeError(w, err)
	}
}

func (h *IndexHandler) serve(w http.ResponseWriter, r *http.Request) error {
	permission := map[string]string{
		"GET " + IndexPath: "aiplatform.indexes.get", "GET " + IndexPath + "/datapoints": "aiplatform.indexEndpoints.queryVectors",
		"POST " + IndexPath + "/rollback": "aiplatform.indexes.update",
	}[r.Method+" "+r.URL.Path]
	if permission == "" {
		return resource.Unimplemented(r.Method + " of " + r.URL.Path)
	}
	asked := r.URL.Query().Get("index")
	name, err := resource.ParseName(asked)
	if err != nil || name.Collection() != resource.KindIndexes {
		return resource.Invalid("index", "%q is not the name of an index", asked)
	}
	if err := h.auth.Authorize(r.Context(), identity.FromContext(r.Context()), name.Project(), permission); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	switch r.URL.Path {
	case IndexPath + "/datapoints":
		return h.scan(w, r, name.String())
	case IndexPath + "/rollback":
		stats, err := h.indexes.Rollback(r.Context(), name.String())
		if err != nil {
			return err
		}
		return info(w, name.String(), stats)
	default:
		stats, err := h.indexes.Stats(r.Context(), name.String())
		if err != nil {
			return err
		}
		return info(w, name.String(), stats)
	}
}

func info(w http.ResponseWriter, index string, s vector.Stats) error {
	w.Header().Set("Content-Type", "application/json")
	return errors.Join(json.NewEncoder(w).Encode(IndexInfo{
		Index: index, Count: s.Count, Vectors: s.Vectors, Sparse: s.Sparse, Generation: s.Generation, Previous: s.Previous, CanRollback: s.CanRollback,
		Created: s.Created, Recall: s.Recall, Method: s.Method, Segments: s.Segments, Unmerged: s.Unmerged, Bytes: s.Bytes,
	}))
}

// maxScan bounds a page; a page that is full may not be the last.
const maxScan = 1000

func (h *IndexHandler) scan(w http.ResponseWriter, r *http.Request, index string) error {
	limit := maxScan
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxScan {
			return resource.Invalid("limit", "%q is not a number from 1 to %d", text, maxScan)
		}
		limit = n
	}
	points, err := h.indexes.Scan(r.Context(), index, r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	var lines []byte
	for _, p := range points {
		line, err := protojson.Marshal(p)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	_, _ = w.Write(lines) //nolint:gosec // JSON with its content type; a client that is gone needs nothing
	return nil
}
