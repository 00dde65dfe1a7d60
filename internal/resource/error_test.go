package resource_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
)

// TestErrorIsTheSameBytes: an error that is told twice is equal for who compares
// the packed details.
func TestErrorIsTheSameBytes(t *testing.T) {
	t.Parallel()
	e := &resource.Error{
		Code: codes.FailedPrecondition, Message: "it ended", Resource: "projects/p/locations/l/customJobs/1",
		Cause: resource.CauseUserCode, Program: &resource.Program{ExitCode: 3}, Hint: "look",
	}
	first := status.Convert(e).Proto()
	if len(first.Details) != 2 {
		t.Fatalf("%d details, want an ErrorInfo and a Help", len(first.Details))
	}
	for range 200 {
		if again := status.Convert(e).Proto(); !proto.Equal(first, again) {
			t.Fatalf("%v, then %v", first, again)
		}
	}
}
