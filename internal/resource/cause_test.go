package resource_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// info is the ErrorInfo of an error as a client gets it.
func info(t *testing.T, e *resource.Error) *errdetails.ErrorInfo {
	t.Helper()
	for _, d := range e.GRPCStatus().Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i
		}
	}
	t.Fatalf("%v has no ErrorInfo", e)
	return nil
}

func TestProgramInAnError(t *testing.T) {
	t.Parallel()
	e := &resource.Error{
		Code: codes.ResourceExhausted, Message: "replica 0: killed", Hint: "ask for more", Cause: resource.CauseResource, Reason: "OUT_OF_MEMORY",
		Program: &resource.Program{ExitCode: 137, Signal: "SIGKILL", Tail: []string{"one", "two"}},
	}
	const want = "replica 0: killed (exit code 137, SIGKILL, cause: resource); ask for more; look\nlast lines of its output:\none\ntwo"
	if got := e.WithNext("look").Error(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	i := info(t, e)
	for key, want := range map[string]string{"cause": "resource", "exitCode": "137", "signal": "SIGKILL"} {
		if i.Metadata[key] != want {
			t.Errorf("%s is %q, want %q", key, i.Metadata[key], want)
		}
	}
	if i.Reason != "OUT_OF_MEMORY" {
		t.Errorf("reason %q", i.Reason)
	}
	e.Program.Tail = []string{strings.Repeat("x", 100_000), "the end"}
	if got := e.Error(); len(got) > 8000 || !strings.HasSuffix(got, "\nthe end") {
		t.Errorf("%d bytes that end with %q", len(got), got[max(0, len(got)-100):])
	}
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	inner := resource.NotFound("b").WithHint("make it")
	tests := map[string]struct {
		err   error
		text  string
		cause resource.Cause
		code  codes.Code
	}{
		"foreign":   {errors.New("odd"), "odd (cause: platform); ", resource.CausePlatform, codes.Internal},
		"by code":   {inner, `resource "b" was not found (cause: input); make it`, resource.CauseInput, codes.NotFound},
		"wrapped":   {fmt.Errorf("fetch gs://b/x: %w", inner), `fetch gs://b/x: resource "b" was not found (cause: input); make it`, resource.CauseInput, codes.NotFound},
		"around it": {fmt.Errorf("before %w after", inner), `before resource "b" was not found; make it after (cause: input); make it`, resource.CauseInput, codes.NotFound},
		"cancelled": {resource.Errorf(codes.Canceled, "the job was cancelled"), "the job was cancelled", "", codes.Canceled},
		"its own":   {resource.Errorf(codes.Unavailable, "no").WithCause(resource.CauseDependency), "no (cause: dependency)", resource.CauseDependency, codes.Unavailable},
	}
	for name, tc := range tests {
		e := resource.Outcome(tc.err)
		if !strings.HasPrefix(e.Error(), tc.text) || e.Cause != tc.cause || e.Code != tc.code {
			t.Errorf("%s: %v %q: %v", name, e.Code, e.Cause, e)
		}
		if again := resource.Outcome(e); again.Error() != e.Error() {
			t.Errorf("%s: twice: %v", name, again)
		}
	}
	if resource.Outcome(nil) != nil {
		t.Error("nil is an error")
	}
}

// TestEveryErrorHasACause: a client need not guess whose turn it is.
func TestEveryErrorHasACause(t *testing.T) {
	t.Parallel()
	for code := codes.Canceled + 1; code <= codes.Unauthenticated; code++ {
		if got := info(t, resource.Errorf(code, "x")).Metadata["cause"]; got == "" {
			t.Errorf("%v has no cause", code)
		}
	}
}
