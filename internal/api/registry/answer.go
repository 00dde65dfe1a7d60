package registry

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"google.golang.org/grpc/codes"

	"tategu/internal/image"
	"tategu/internal/resource"
)

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // nothing that is answered here fails to encode
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // the caller may be gone
}

// page reads n and last; limit -1 = all.
func (c *call) page() (limit int, last string, err error) {
	q := c.r.URL.Query()
	last, limit = q.Get("last"), -1
	if n := q.Get("n"); n != "" {
		if limit, err = strconv.Atoi(n); err != nil || limit < 0 {
			e := resource.Invalid("n", "n is %.40q and not a number", n)
			e.Err = image.ErrUnsupported
			return 0, "", e
		}
		limit = min(limit, maxPage)
	}
	return limit, last, nil
}

const maxPage = 10_000

// next links to the page after last.
func (c *call) next(last string) {
	q := c.r.URL.Query()
	q.Set("last", last)
	u := url.URL{Path: c.r.URL.Path, RawQuery: q.Encode()}
	c.w.Header().Set("Link", "<"+u.String()+`>; rel="next"`)
}

// Refuse answers with an error in the form of the registry API.
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, err error) { h.writeError(w, r, err) }

type errorLine struct {
	Code    image.Code `json:"code"`
	Message string     `json:"message"`
	Detail  any        `json:"detail,omitempty"`
}

// writeError answers as the distribution specification says ("Error Codes").
func (h *Handler) writeError(w http.ResponseWriter, r *http.Request, err error) {
	status, line := h.describe(r, err)
	header := w.Header()
	for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Docker-Content-Digest"} {
		header.Del(name)
	}
	switch status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", challenge(r))
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", "1")
	}
	writeJSON(w, status, map[string]any{"errors": []errorLine{line}})
}

func (h *Handler) describe(r *http.Request, err error) (int, errorLine) {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, errorLine{Code: image.ErrSizeInvalid, Message: "the manifest is larger than " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes"}
	}
	if errors.Is(err, syscall.ENOSPC) {
		return http.StatusInsufficientStorage, errorLine{Code: image.ErrDenied, Message: "the disk is full; free space in the data directory"}
	}
	e, ok := errors.AsType[*resource.Error](err)
	if !ok {
		if r.Context().Err() != nil { // the caller went away in the middle
			return http.StatusBadRequest, errorLine{Code: image.ErrBlobUploadInvalid, Message: "the request ended early"}
		}
		if broken(err) {
			return http.StatusBadRequest, errorLine{Code: image.ErrBlobUploadInvalid, Message: "the request's body ended early"}
		}
		h.Log.ErrorContext(r.Context(), "registry request failed", slog.String("path", r.URL.Path), slog.Any("error", err))
		return http.StatusInternalServerError, errorLine{Code: "UNKNOWN", Message: "internal error; the server's log has the cause"}
	}
	line := errorLine{Message: e.Error()}
	status := statusOf(e)
	var known bool
	if line.Code, known = errors.AsType[image.Code](err); !known {
		line.Code = codeOf(e.Code)
	}
	if e.Resource != "" {
		line.Detail = map[string]string{"resource": e.Resource}
	}
	return status, line
}

func statusOf(e *resource.Error) int {
	switch e.Code {
	case codes.NotFound:
		return http.StatusNotFound
	case codes.OutOfRange:
		return http.StatusRequestedRangeNotSatisfiable
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.Unimplemented:
		return http.StatusMethodNotAllowed
	case codes.InvalidArgument, codes.FailedPrecondition:
		return http.StatusBadRequest
	default:
		return http.StatusInternalServerError
	}
}

func codeOf(c codes.Code) image.Code {
	switch c {
	case codes.Unauthenticated:
		return image.ErrUnauthorized
	case codes.PermissionDenied, codes.Unavailable:
		return image.ErrDenied
	case codes.ResourceExhausted:
		return image.ErrTooManyRequests
	case codes.NotFound:
		return image.ErrNameUnknown
	default:
		return image.ErrUnsupported
	}
}
