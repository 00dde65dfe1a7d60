package torchserve

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"tategu/internal/resource"
	engine "tategu/internal/torchserve"
)

type idKey struct{}

// requestID makes an id of the form that TorchServe's have (RFC 4122, version 4).
func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it does not fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// recorder adds the headers of every answer and remembers its status.
type recorder struct {
	http.ResponseWriter
	id     string
	cfg    *engine.Listen
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	h := w.Header()
	h["x-request-id"] = []string{w.id}
	cors := func(name, value string) {
		if value != "" && h.Get(name) == "" {
			h.Set(name, value)
		}
	}
	cors("Access-Control-Allow-Origin", w.cfg.CORSOrigin)
	cors("Access-Control-Allow-Methods", w.cfg.CORSMethods)
	cors("Access-Control-Allow-Headers", w.cfg.CORSHeaders)
	h.Set("Pragma", "no-cache")
	h.Set("Cache-Control", "no-cache; no-store, must-revalidate, private")
	h.Set("Expires", "Thu, 01 Jan 1970 00:00:00 UTC")
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// pretty is JSON as TorchServe writes it: two spaces, a newline at the end.
func pretty(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		// Only values of this package come here, and metadata that was checked.
		return []byte("{}\n")
	}
	return b.Bytes()
}

func sendJSON(w http.ResponseWriter, status int, v any) {
	body := pretty(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone
}

// statusAnswer is {"status": ...}.
type statusAnswer struct {
	Status string `json:"status"`
}

func sendStatus(w http.ResponseWriter, status int, format string, args ...any) {
	sendJSON(w, status, statusAnswer{fmt.Sprintf(format, args...)})
}

// errorAnswer is how every error is told.
type errorAnswer struct {
	Code    int    `json:"code"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

func failure(code int, kind, format string, args ...any) *engine.Error {
	return &engine.Error{Code: code, Type: kind, Message: fmt.Sprintf(format, args...)}
}

func notFound() *engine.Error {
	return failure(http.StatusNotFound, engine.ResourceNotFound, "Requested resource is not found, please refer to API document.")
}

func notAllowed() *engine.Error {
	return failure(http.StatusMethodNotAllowed, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document.")
}

func badRequest(format string, args ...any) *engine.Error {
	return failure(http.StatusBadRequest, engine.BadRequest, format, args...)
}

// told is an error as clients see it.
func told(err error) *engine.Error {
	if e, ok := errors.AsType[*engine.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return failure(http.StatusRequestEntityTooLarge, engine.BadRequest, "The request has more than max_request_size=%d bytes.", e.Limit)
	}
	if errors.Is(err, context.Canceled) {
		return &engine.Error{Code: resource.StatusClientClosed, Type: engine.RequestTimeout, Message: "the client has gone", Err: err}
	}
	return &engine.Error{Code: http.StatusInternalServerError, Type: engine.InternalServer, Message: err.Error(), Err: err}
}

// fail sends an error, or breaks an answer off that has begun.
func (a *API) fail(w *recorder, r *http.Request, err error) {
	if w.status != 0 {
		a.Log.WarnContext(r.Context(), "an answer was broken off", slog.String("path", r.URL.Path), slog.Any("error", err))
		panic(http.ErrAbortHandler)
	}
	e := told(err)
	code := e.Code
	if code < 400 || code > 999 {
		code = http.StatusInternalServerError
	}
	if code >= 500 && r.Context().Err() == nil {
		a.Log.WarnContext(r.Context(), "a request failed", slog.String("path", r.URL.Path), slog.Int("status", code), slog.String("type", e.Type), slog.String("error", e.Message), slog.Any("why", e.Err))
	}
	sendJSON(w, code, errorAnswer{code, e.Type, e.Message})
}

// access writes a line of the access log.
func (a *API) access(r *http.Request, status int, took time.Duration) {
	if a.Access == nil {
		return
	}
	b := append(time.Now().AppendFormat(make([]byte, 0, 160), stampFormat), " - /"...)
	b = strconv.AppendQuote(append(append(b, r.RemoteAddr...), ' '), r.Method+" "+r.URL.RequestURI()+" "+r.Proto)
	b = strconv.AppendInt(append(b, ' '), int64(status), 10)
	b = append(strconv.AppendInt(append(b, ' '), took.Milliseconds(), 10), '\n')
	_, _ = a.Access.Write(b) // a log that cannot be written must not end a request
}

// stampFormat is a time as TorchServe's logs have it.
const stampFormat = "2006-01-02T15:04:05,000"
