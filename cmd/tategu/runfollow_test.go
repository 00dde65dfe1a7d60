package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/resource"
)

// TestSignalWhileSubmitting: a signal does not break a submission off, whose outcome
// nobody would know; before it, it ends us with the code of what was cancelled.
func TestSignalWhileSubmitting(t *testing.T) {
	t.Parallel()
	ctx, signal := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		signal()
		_, _ = w.Write([]byte(`{"name": "projects/p/locations/l/customJobs/1"}`))
	}))
	defer server.Close()
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	if err := stopped(cmd, errors.New("no such image")); err == nil || err.Error() != "no such image" {
		t.Errorf("without a signal: %v", err)
	}
	r := &runner{cmd: cmd, c: &client{base: server.URL, http: server.Client()}, parent: "projects/p/locations/l"}
	if err := r.create(resource.KindCustomJobs, &pb.CustomJob{}); err != nil || r.name != "projects/p/locations/l/customJobs/1" {
		t.Errorf("submitted %q, %v", r.name, err)
	}
	err := asOurs(stopped(cmd, context.Canceled))
	if end, ok := errors.AsType[*exit](err); !ok || end.code != exitCancelled {
		t.Errorf("stopped: %v", err)
	}
	if got := stopped(cmd, &exit{code: 7}); got == nil || got.Error() != "exit code 7" {
		t.Errorf("the program's own code: %v", got)
	}
}

// TestLogBrokeOff: a log that ends early says so, and what goes on with it.
func TestLogBrokeOff(t *testing.T) {
	t.Parallel()
	ctx, signal := context.WithCancel(t.Context())
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	if err := brokeOff(cmd, "train", nil); err != nil {
		t.Errorf("a whole log: %v", err)
	}
	if err := brokeOff(cmd, "train", io.ErrUnexpectedEOF); err == nil || !strings.Contains(err.Error(), "`tategu logs --follow train`") {
		t.Errorf("without a next step: %v", err)
	}
	signal()
	if end, ok := errors.AsType[*exit](brokeOff(cmd, "train", context.Canceled)); !ok || end.code != exitCancelled {
		t.Errorf("a signal: %v", end)
	}
}
