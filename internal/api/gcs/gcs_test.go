package gcs_test

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store/sqlite"
)

// allow permits everything but to the anonymous and, by name, to "reader" writes.
type allow struct{}

func (allow) ProjectNumber(context.Context, string) (string, error) { return "123456789012", nil }

func (allow) Authorize(_ context.Context, p identity.Principal, project, permission string) error {
	if p.Anonymous() {
		return resource.Errorf(codes.Unauthenticated, "no token")
	}
	if p.Email == "stranger" {
		return resource.Errorf(codes.PermissionDenied, "no %s in %s", permission, project)
	}
	return nil
}

func (a allow) AuthorizeBucket(ctx context.Context, p identity.Principal, b identity.Bucket, permission string) error {
	return a.Authorize(ctx, p, b.Project, permission)
}

func (a allow) AuthorizeMissing(p identity.Principal, _, permission string) error {
	return a.Authorize(context.Background(), p, "", permission)
}

func (allow) VerifySignature(context.Context, string, []byte, []byte) (identity.Principal, error) {
	return identity.Principal{}, resource.Errorf(codes.PermissionDenied, "no key signed this")
}

func (allow) CheckBucketPolicy(context.Context, identity.Bucket) error { return nil }

// as is what the wire does: it puts the caller into the context.
func as(email string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(identity.NewContext(r.Context(), identity.Principal{Email: email})))
	})
}

func newBlobs(t *testing.T) *blob.Store {
	t.Helper()
	rows, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	content, err := disk.Open(filepath.Join(t.TempDir(), "content"))
	if err != nil {
		t.Fatal(err)
	}
	return blob.New(rows, content, time.Now)
}

func newHandler(t *testing.T) (http.Handler, *blob.Store) {
	t.Helper()
	blobs := newBlobs(t)
	return as("operator", gcs.New(blobs, allow{}, slog.New(slog.DiscardHandler), time.Now)), blobs
}
