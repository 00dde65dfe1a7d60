package resource

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Error is the one error that reaches users. It becomes one gRPC status (or one
// Google JSON error) with an ErrorInfo and, when Hint is set, a Help detail.
type Error struct {
	Code     codes.Code
	Op       string // what was tried, for the log
	Resource string // the full resource name, or task or field, it is about
	Message  string // what was wrong
	Hint     string // the next step a person can take
	Cause    Cause
	Reason   string   // what it was, finer than Cause: "OUT_OF_MEMORY"; "" = the code's name
	Program  *Program // set where the error is the end of a job, task or deployment
	Field    string   // request field at fault, dotted path; becomes a BadRequest detail
	Err      error    // wrapped; never shown to users
}

// Errorf builds an Error with a formatted message; a %w operand is kept as Err.
func Errorf(code codes.Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// NotFound is the answer for a resource that does not exist.
func NotFound(name string) *Error {
	return &Error{Code: codes.NotFound, Resource: name, Message: fmt.Sprintf("resource %q was not found", name)}
}

// Invalid is an InvalidArgument error about one request field.
func Invalid(field, format string, args ...any) *Error {
	e := Errorf(codes.InvalidArgument, format, args...)
	e.Field, e.Cause = field, CauseInput
	return e
}

const notSupported = " is not supported by tategu"

// Unimplemented names a method or feature that tategu does not support.
func Unimplemented(what string) *Error {
	what = clip(what)
	return &Error{
		Code: codes.Unimplemented, Resource: what, Message: what + notSupported,
		Hint: "docs/compat.md lists what is supported",
	}
}

// WithHint returns a copy of e with the next step set.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithResource returns a copy of e about the named resource.
func (e *Error) WithResource(name string) *Error {
	c := *e
	c.Resource = name
	return &c
}

// WithCause returns a copy of e with its class of cause set.
func (e *Error) WithCause(cause Cause) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// Error gives the message and the next step, for the end of a program its exit
// code and cause as well, and below them the last lines of its output.
func (e *Error) Error() string {
	s := clip(e.Message)
	if e.Program != nil {
		s += e.Program.facts(e.Cause)
	}
	if e.Hint != "" {
		s += "; " + clip(e.Hint)
	}
	if e.Program != nil {
		s += e.Program.lines()
	}
	return s
}

// maxText bounds each part of an error. Errors quote what they are about, which
// may be megabytes; gRPC sends them in a header, and clients refuse large ones.
const maxText = 2 << 10

func clip(s string) string {
	if len(s) <= maxText+len(notSupported)+len("...") {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}

// Unwrap gives the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus makes status.Convert and grpc-go use our code and details.
func (e *Error) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{Domain: "tategu", Reason: e.Code.String(), Metadata: map[string]string{}}
	if e.Reason != "" {
		info.Reason = e.Reason
	}
	if e.Resource != "" {
		info.Metadata["resource"] = clip(e.Resource)
	}
	if cause := e.cause(); cause != "" {
		info.Metadata["cause"] = string(cause)
	}
	if e.Program != nil {
		e.Program.annotate(info.Metadata)
	}
	details := []proto.Message{info}
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: clip(e.Field), Description: clip(e.Message)}}})
	}
	if e.Hint != "" {
		details = append(details, &errdetails.Help{Links: []*errdetails.Help_Link{{Description: clip(e.Hint)}}})
	}
	st := &spb.Status{Code: int32(e.Code), Message: e.Error()}
	for _, d := range details {
		// The same error is the same bytes each time: clients compare what they got twice.
		packed := &anypb.Any{}
		if err := anypb.MarshalFrom(packed, d, proto.MarshalOptions{Deterministic: true}); err == nil {
			st.Details = append(st.Details, packed)
		}
	}
	return status.FromProto(st)
}

// CodeOf gives the gRPC code of err: OK for nil, Unknown for foreign errors.
func CodeOf(err error) codes.Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return status.Code(err)
}

// IsNotFound reports whether err says that a resource does not exist.
func IsNotFound(err error) bool { return CodeOf(err) == codes.NotFound }
