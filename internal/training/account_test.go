package training_test

import (
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
)

// TestAccount: a job reads and writes objects as its service account. What it may not
// ends it, and then nothing that it made is there, not even where it may write.
func TestAccount(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"gs://closed/in": "secret\n", "gs://drop/in": "secret\n", "gs://open/in": "seen\n"})
	as := identity.Account{Project: "p", Email: "default@p.iam.tategu.internal"}
	b.files.Deny(as, "read", "gs://closed/")
	b.files.Deny(as, "write", "gs://closed/")
	b.files.Deny(as, "read", "gs://drop/") // it may write there
	for id, c := range map[string]struct {
		script string
		want   string // of the error; "" = it succeeds
		ran    bool
	}{
		"11": {"cat /gcs/closed/in; echo ran", "default@p.iam.tategu.internal may not read gs://closed/in", false},
		"12": {"echo ran; cd /gcs; mkdir -p closed; echo x > closed/out; echo x > /gcs/out/base/model/m", "default@p.iam.tategu.internal may not write gs://closed/out", true},
		"13": {"cat /gcs/open/in; test ! -e /gcs/drop/in && mkdir -p /gcs/drop && echo x > /gcs/drop/in && echo ran", "", true},
	} {
		j := job(id, pool(1, c.script))
		b.put(j)
		got := b.await(j.Name, finished)
		if (got.State == pb.JobState_JOB_STATE_SUCCEEDED) != (c.want == "") || !strings.Contains(got.GetError().GetMessage(), c.want) ||
			c.want != "" && codes.Code(got.Error.Code) != codes.PermissionDenied {
			t.Errorf("%s: %s %v, want %q", c.script, got.State, got.GetError(), c.want)
		}
		text := b.logs.Text("customjob-" + id + "-0-0")
		if strings.Contains(text, "ran") != c.ran || strings.Contains(text, "secret") {
			t.Errorf("%s: the program said %q", c.script, text)
		}
	}
	if up := b.files.Uploads(); len(up) != 1 || up[0] != "gs://drop/in" {
		t.Errorf("uploads %v", up)
	}
}
