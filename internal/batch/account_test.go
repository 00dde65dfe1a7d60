package batch_test

import (
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
)

// TestRunsAsItsAccount: a job reads its model and input, and writes its results, as
// the account that it names.
func TestRunsAsItsAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.objects.all["gs://b/in/x.jsonl"] = `[0,0,0,0,0,0,0,0]` + "\n"
	for account, want := range map[string]string{
		"x@theirs.iam.tategu.internal": "may not read gs://b/model",
		"reader@p.iam.tategu.internal": "may not write gs://b/out/",
	} {
		job := w.ended(w.submit("native", "gs://b/in/x.jsonl", func(j *pb.BatchPredictionJob) { j.ServiceAccount = account }))
		if job.State != pb.JobState_JOB_STATE_FAILED || codes.Code(job.GetError().GetCode()) != codes.PermissionDenied ||
			!strings.Contains(job.GetError().GetMessage(), account+" "+want) {
			t.Errorf("%s: %s %v", account, job.State, job.GetError())
		}
	}
	if found := w.objects.under("gs://b/out/"); len(found) != 0 {
		t.Errorf("written: %v", found)
	}
}
