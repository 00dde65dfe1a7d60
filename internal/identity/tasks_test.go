package identity_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
)

func TestTaskIdentityEndsWithTheTask(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	task, err := f.OpenTask(ctx, identity.TaskSpec{ID: "task-1", Project: "a", Port: 1234})
	if err != nil {
		t.Fatal(err)
	}
	access, err := f.TaskToken(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	if life := access.Expires.Sub(f.clock.Now()); life > time.Hour {
		t.Errorf("a task's token lives %v", life)
	}
	p, err := f.Authenticate(ctx, access.Token)
	if err != nil || p.Email != "default@a.iam.tategu.internal" {
		t.Fatalf("principal %+v, %v", p, err)
	}
	wantCode(t, "objects of its project", f.Authorize(ctx, p, "a", "storage.objects.create"), codes.OK)
	wantCode(t, "tokens", f.Authorize(ctx, p, "a", identity.PermissionCreateLogins), codes.PermissionDenied)
	err = f.Authorize(ctx, p, "b", "storage.objects.get")
	wantCode(t, "another project", err, codes.PermissionDenied)
	if !strings.Contains(err.Error(), "service account") {
		t.Errorf("%v does not say that this is a service account's limit", err)
	}
	_, _, err = f.Login(ctx, access.Token)
	wantCode(t, "a lasting login from a task's token", err, codes.Unauthenticated)
	_, err = f.Refresh(ctx, access.Token)
	wantCode(t, "refresh with a task's token", err, codes.Unauthenticated)
	wantCode(t, "revoke as a stored token", f.RevokeToken(ctx, identity.OperatorPrincipal(), p.TokenID), codes.NotFound)

	again, err := f.OpenTask(ctx, identity.TaskSpec{ID: "task-1", Project: "a", Port: 99})
	if err != nil || again != task {
		t.Errorf("opened again: %+v, %v; want %+v", again, err, task)
	}
	_, err = f.OpenTask(ctx, identity.TaskSpec{ID: "task-1", Project: "a", ServiceAccount: "other@a.iam.tategu.internal"})
	wantCode(t, "same workload as another account", err, codes.AlreadyExists)

	if err := f.CloseTask(ctx, "task-1"); err != nil {
		t.Fatal(err)
	}
	_, err = f.Authenticate(ctx, access.Token)
	wantCode(t, "token of an ended task", err, codes.Unauthenticated)
	_, err = f.TaskToken(ctx, task)
	wantCode(t, "new token for an ended task", err, codes.NotFound)

	second, err := f.OpenTask(ctx, identity.TaskSpec{ID: "task-1", Project: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if second.Path == task.Path {
		t.Error("a second life of an id has the path of the first")
	}
	_, err = f.Authenticate(ctx, access.Token)
	wantCode(t, "token of the first life in the second", err, codes.Unauthenticated)
}

func TestAuditTrail(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	want := identity.AuditEntry{
		Principal: "ann@example.com", TokenID: "abc", Method: "google.cloud.aiplatform.v1beta1.ModelService/UploadModel", Project: "a",
		Resource: "projects/a/locations/us-central1", Code: codes.PermissionDenied, RequestID: "r1",
	}
	if err := f.Audit(ctx, want); err != nil {
		t.Fatal(err)
	}
	long := identity.AuditEntry{Method: "m", Project: "a", Resource: strings.Repeat("x", 1<<20)}
	if err := f.Audit(ctx, long); err != nil {
		t.Fatal(err)
	}
	if err := f.Audit(ctx, identity.AuditEntry{Method: "elsewhere", Project: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := f.store.Close(); err != nil { // durable: seen by the next process
		t.Fatal(err)
	}
	f.open(t)
	got, next, err := f.AuditTrail(ctx, "a", 0, 10)
	if err != nil || len(got) != 2 || next != 2 {
		t.Fatalf("trail %+v, next %d, %v", got, next, err)
	}
	want.Time = f.clock.Now()
	if got[0] != want {
		t.Errorf("entry %+v, want %+v", got[0], want)
	}
	if text, err := json.Marshal(got[0]); err != nil || !strings.Contains(string(text), `"code":"PERMISSION_DENIED"`) {
		t.Errorf("entry as JSON: %s, %v", text, err)
	}
	if len(got[1].Resource) > 2048 {
		t.Errorf("a caller wrote %d bytes into the trail", len(got[1].Resource))
	}
	if rest, _, err := f.AuditTrail(ctx, "a", next, 10); err != nil || len(rest) != 0 {
		t.Errorf("after the end: %v, %v", rest, err)
	}
}
