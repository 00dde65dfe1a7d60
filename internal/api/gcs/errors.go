package gcs

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// clientError says that the request's body could not be read to its end.
type clientError struct{ err error }

func (e *clientError) Error() string { return "the request's body ended early: " + e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// body marks the errors of a request's body, which are the client's.
type body struct{ r io.Reader }

func (b body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &clientError{err: err}
	}
	return n, err
}

// rangeError is a range outside of an object.
type rangeError struct{ size int64 }

func (e *rangeError) Error() string {
	return "the requested range is outside of the object's " + strconv.FormatInt(e.size, 10) + " bytes"
}

// answerOf gives HTTP status and the API's short reason
// (cloud.google.com/storage/docs/json_api/v1/status-codes).
func answerOf(err error) (status int, reason string) {
	if e, ok := errors.AsType[*xmlError](err); ok {
		return e.status, "invalid"
	}
	if _, ok := errors.AsType[*rangeError](err); ok {
		return http.StatusRequestedRangeNotSatisfiable, "requestedRangeNotSatisfiable"
	}
	if _, ok := errors.AsType[*clientError](err); ok {
		return http.StatusBadRequest, "badRequest"
	}
	switch {
	case errors.Is(err, blob.ErrNotModified):
		return http.StatusNotModified, "notModified"
	case errors.Is(err, blob.ErrNotEmpty):
		return http.StatusConflict, "conflict"
	case errors.Is(err, blob.ErrHeld):
		return http.StatusForbidden, "retentionPolicyNotMet"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return resource.StatusClientClosed, "clientClosedRequest"
	}
	switch resource.CodeOf(err) {
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusBadRequest, "invalid"
	case codes.Unauthenticated:
		return http.StatusUnauthorized, "required"
	case codes.PermissionDenied:
		return http.StatusForbidden, "forbidden"
	case codes.NotFound:
		return http.StatusNotFound, "notFound"
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict, "conflict"
	case codes.FailedPrecondition:
		return http.StatusPreconditionFailed, "conditionNotMet"
	case codes.ResourceExhausted:
		return http.StatusInsufficientStorage, "insufficientStorage"
	case codes.Unimplemented:
		return http.StatusNotImplemented, "notImplemented"
	case codes.Unavailable:
		return http.StatusServiceUnavailable, "backendError"
	default:
		return http.StatusInternalServerError, "internalError"
	}
}

// writeError is the one place where errors become answers.
func (h *Handler) writeError(w http.ResponseWriter, r *http.Request, asXML bool, err error) {
	status, reason := answerOf(err)
	message := err.Error()
	if status == http.StatusInternalServerError {
		h.log.ErrorContext(r.Context(), "storage request failed", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("error", err))
		message = "the request failed inside the server; its log has the cause"
		if e, ok := errors.AsType[*resource.Error](err); ok {
			message = e.Error()
		}
	}
	if e, ok := errors.AsType[*rangeError](err); ok {
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(e.size, 10))
	}
	switch {
	case status == http.StatusNotModified:
		w.WriteHeader(status)
	case asXML:
		writeXMLError(w, status, xmlCode(err, status), message, details(err))
	default:
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="tategu"`)
		}
		detail := map[string]string{"domain": "global", "reason": reason, "message": message}
		writeJSON(w, status, map[string]any{"error": map[string]any{"code": status, "message": message, "errors": []any{detail}}})
	}
}

// details is the hint of an error, or its resource.
func details(err error) string {
	e, ok := errors.AsType[*resource.Error](err)
	if !ok {
		return ""
	}
	if e.Hint != "" {
		return e.Hint
	}
	return e.Resource
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // only plain maps and strings come here
		status, data = http.StatusInternalServerError, []byte(`{"error":{"code":500,"message":"the answer cannot be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client may be gone
}

// reply answers with v, of which parameter fields may choose a part.
func (c *call) reply(v map[string]any) error {
	if text := c.query.Get("fields"); text != "" {
		f, err := parseFields(text)
		if err != nil {
			return err
		}
		writeJSON(c.w, http.StatusOK, f.choose(v))
		return nil
	}
	writeJSON(c.w, http.StatusOK, v)
	return nil
}

func (c *call) noContent() error {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
