// Package admin serves what only administrators of the whole server ask for, on
// paths of its own: a backup, made where the server runs, while it runs.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"sync"
	"time"

	"tategu/internal/backup"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/volume"
)

// BackupPath is where a backup is asked for.
const BackupPath = "/tategu/v1/backup"

// bodyLimit bounds a request.
const bodyLimit = 64 << 10

// tell is how often progress is sent.
const tell = 500 * time.Millisecond

// BackupRequest is the body of POST /tategu/v1/backup.
type BackupRequest struct {
	Directory string `json:"directory"` // an absolute path on the server's machine
}

// BackupEvent is one line of the answer. The last one has a manifest or an error.
type BackupEvent struct {
	Progress *backup.Progress `json:"progress,omitempty"`
	Manifest *backup.Manifest `json:"manifest,omitempty"`
	Error    string           `json:"error,omitempty"`
}

// Authority says who may what, and keeps the audit trail.
type Authority interface {
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
	Audit(ctx context.Context, e identity.AuditEntry) error
}

// methodBackup is its name in the audit trail.
const methodBackup = "tategu.v1.Backup/Create"

// Handler is an http.Handler for BackupPath.
type Handler struct {
	auth Authority
	make func(ctx context.Context, dir string, progress func(backup.Progress)) (backup.Manifest, error)
	log  *slog.Logger
}

// New builds the handler; makeBackup makes one.
func New(auth Authority, makeBackup func(ctx context.Context, dir string, progress func(backup.Progress)) (backup.Manifest, error), log *slog.Logger) *Handler {
	return &Handler{auth: auth, make: makeBackup, log: log}
}

// ServeHTTP implements http.Handler. What is wrong with the request is an answer
// of its own; later failures are the last line of the stream.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := h.accept(w, r)
	if auditErr := h.audit(w, r, req, err); err == nil {
		err = auditErr
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	lines := &stream{w: w, flush: http.NewResponseController(w), last: time.Now()}
	lines.send(BackupEvent{Progress: &backup.Progress{Phase: "state"}})
	m, err := h.make(r.Context(), req.Directory, lines.progress)
	if err != nil {
		h.log.ErrorContext(r.Context(), "backup", slog.String("directory", req.Directory), slog.Any("error", err))
		lines.send(BackupEvent{Error: err.Error()})
		return
	}
	h.log.InfoContext(r.Context(), "backup made", slog.String("directory", req.Directory), slog.Int("contents", m.Contents), slog.Int64("bytes", m.Bytes))
	lines.send(BackupEvent{Manifest: &m})
}

// audit writes who asked, before anything is copied. A disk that takes no entry any
// more is the last one to stay without a backup: that request is in the log.
func (h *Handler) audit(w http.ResponseWriter, r *http.Request, req BackupRequest, outcome error) error {
	p := identity.FromContext(r.Context())
	if p.Anonymous() {
		return nil
	}
	err := h.auth.Audit(r.Context(), identity.AuditEntry{
		Principal: p.Email, TokenID: p.TokenID, Method: methodBackup, Resource: req.Directory,
		Code: resource.CodeOf(outcome), RequestID: w.Header().Get("X-Request-Id"),
	})
	if volume.Blocked(err) {
		h.log.WarnContext(r.Context(), "a backup without an audit entry", slog.String("principal", p.Email), slog.String("directory", req.Directory), slog.Any("error", err))
		return nil
	}
	return err
}

func (h *Handler) accept(w http.ResponseWriter, r *http.Request) (req BackupRequest, err error) {
	if r.URL.Path != BackupPath || r.Method != http.MethodPost {
		return req, resource.Unimplemented(r.Method + " of " + r.URL.Path)
	}
	if err := h.auth.Authorize(r.Context(), identity.FromContext(r.Context()), "", identity.PermissionBackup); err != nil {
		return req, err
	}
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		return req, resource.Invalid("body", "the request needs Content-Type: application/json")
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyLimit))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return req, resource.Invalid("body", "the body is not the JSON this method takes: %v", err)
	}
	if req.Directory == "" {
		return req, resource.Invalid("directory", "the directory of the backup is missing")
	}
	return req, nil
}

// stream sends lines, progress not too often.
type stream struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	flush *http.ResponseController
	last  time.Time
}

func (s *stream) send(e BackupEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(s.w).Encode(e) // a client that went away ends the request's context
	_ = s.flush.Flush()
}

func (s *stream) progress(p backup.Progress) {
	s.mu.Lock()
	soon := time.Since(s.last) < tell
	if !soon {
		s.last = time.Now()
	}
	s.mu.Unlock()
	if !soon {
		s.send(BackupEvent{Progress: &p})
	}
}

func writeError(w http.ResponseWriter, err error) {
	status := resource.HTTPStatus(resource.CodeOf(err))
	message := "the request failed inside the server; its log has the cause"
	if e, ok := errors.AsType[*resource.Error](err); ok {
		message = e.Error()
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": status, "message": message}}) // the client may be gone
}
