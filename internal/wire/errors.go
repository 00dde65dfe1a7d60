package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/resource"
)

// internalError tells the caller where to look and nothing of what happened.
func internalError(id string) error {
	return resource.Errorf(codes.Internal, "internal error in request %s", id).
		WithHint("the server's log has the cause under this id").WithCause(resource.CausePlatform)
}

// visible gives what the caller may see of err. Errors made for users pass;
// everything else stays in the log.
func (d *dispatcher) visible(ctx context.Context, c *call, err error) error {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return resource.Errorf(codes.InvalidArgument, "the request is larger than %d bytes: %w", tooLarge.Limit, tooLarge).
			WithHint("put large inputs into a bucket")
	}
	if e, ok := errors.AsType[*resource.Error](err); ok {
		if e.Code == codes.Internal || e.Code == codes.Unknown {
			d.log.ErrorContext(ctx, "failed", slog.String("id", c.id), slog.String("method", c.method), slog.Any("error", err), slog.Any("cause", e.Err))
		}
		return e
	}
	if st, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok && st.GRPCStatus().Code() != codes.OK {
		return st.GRPCStatus().Err()
	}
	switch ctxErr := ctx.Err(); {
	case errors.Is(err, syscall.ENOSPC):
		return resource.Errorf(codes.ResourceExhausted, "the disk is full: %w", syscall.ENOSPC).
			WithHint("free space in the data directory").WithCause(resource.CauseResource)
	case errors.Is(ctxErr, context.Canceled):
		return status.Error(codes.Canceled, "the caller went away")
	case errors.Is(ctxErr, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the caller's deadline passed")
	}
	d.log.ErrorContext(ctx, "failed", slog.String("id", c.id), slog.String("method", c.method), slog.Any("error", err))
	return internalError(c.id)
}

// httpStatus is google/rpc/code.proto's mapping, but for a body that is too
// large and a full disk, which have codes of their own.
func httpStatus(err error) int {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge
	}
	if errors.Is(err, syscall.ENOSPC) {
		return http.StatusInsufficientStorage
	}
	return resource.HTTPStatus(resource.CodeOf(err))
}

// codeOfHTTP is the other way round, for answers that plain handlers wrote.
func codeOfHTTP(status int) codes.Code {
	switch status {
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusPreconditionFailed:
		return codes.FailedPrecondition
	case http.StatusRequestedRangeNotSatisfiable:
		return codes.OutOfRange
	case http.StatusTooManyRequests, http.StatusInsufficientStorage:
		return codes.ResourceExhausted
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case resource.StatusClientClosed:
		return codes.Canceled
	}
	switch {
	case status < http.StatusBadRequest:
		return codes.OK
	case status < http.StatusInternalServerError:
		return codes.InvalidArgument
	default:
		return codes.Internal
	}
}

// codeName is the name in google/rpc/code.proto: NOT_FOUND for NotFound.
func codeName(c codes.Code) string {
	if name, ok := code.Code_name[int32(c)]; ok {
		return name
	}
	return "UNKNOWN"
}

// errorBody is the envelope of Google's JSON APIs (google/rpc/status.proto says
// what is in it; clients read status and message).
func errorBody(err error) (int, []byte) {
	type envelope struct {
		Code    int               `json:"code"`
		Message string            `json:"message"`
		Status  string            `json:"status"`
		Details []json.RawMessage `json:"details,omitempty"`
	}
	st := status.Convert(err)
	e := envelope{Code: httpStatus(err), Message: st.Message(), Status: codeName(st.Code())}
	for _, detail := range st.Proto().GetDetails() {
		if data, err := protojson.Marshal(detail); err == nil { // a type unknown here is left out
			e.Details = append(e.Details, data)
		}
	}
	data, marshalErr := json.Marshal(map[string]envelope{"error": e})
	if marshalErr != nil {
		return http.StatusInternalServerError, fmt.Appendf(nil, `{"error":{"code":500,"status":"INTERNAL","message":%q}}`, marshalErr)
	}
	return e.Code, append(data, '\n')
}

func writeError(w http.ResponseWriter, err error) {
	answer, body := errorBody(err)
	h := w.Header()
	h.Set("Content-Type", contentJSON)
	h.Set("X-Content-Type-Options", "nosniff")
	switch answer {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="tategu"`)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "1")
		}
	}
	w.WriteHeader(answer)
	_, _ = w.Write(body) // the caller may be gone
}
