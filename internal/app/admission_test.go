package app

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/image"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store/sqlite"
)

// admitted is an admission over images of two projects.
func admitted(t *testing.T) (*admission, *image.Store, image.Stored) {
	t.Helper()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	content, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := identity.NewAuthority(rows, filepath.Join(dir, "identity"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, project := range []string{"mine", "theirs"} {
		if _, err := authority.ProjectNumber(t.Context(), project); err != nil {
			t.Fatal(err)
		}
	}
	blobs := blob.New(rows, content, time.Now)
	kept := image.New(rows, blobs, time.Now)
	var secret image.Stored
	for _, repo := range []image.Repo{{Name: "secret", Project: "theirs"}, {Name: "docker.io/library/secret", Project: "theirs"}, {Name: "shared", Project: "mine"}} {
		config := []byte(`{"os":"linux"}`)
		if _, err := kept.PutBlob(t.Context(), repo, image.DigestOf(config), bytes.NewReader(config)); err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []any{},
			"annotations": map[string]string{"of": strings.TrimPrefix(repo.Name, "docker.io/library/")},
			"config":      map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image.DigestOf(config), "size": len(config)},
		})
		if err != nil {
			t.Fatal(err)
		}
		st, _, err := kept.PutManifest(t.Context(), repo, "v1", "", raw)
		if err != nil {
			t.Fatal(err)
		}
		if repo.Name == "secret" {
			secret = st
		}
	}
	rules := []runtime.ImageRule{{Match: "secret:ruled*", Command: []string{"sh"}}, {Match: "secret:*", Image: true}}
	return &admission{
		rules: rules, authority: authority, blobs: blobs,
		images: image.NewImages(kept, func(host string) bool { return host == "localhost:1" }),
	}, kept, secret
}

func TestMayRead(t *testing.T) {
	t.Parallel()
	a, _, _ := admitted(t)
	for bucket, project := range map[string]string{"my-bucket": "mine", "their-bucket": "theirs"} {
		if err := a.blobs.EnsureBucket(t.Context(), project, bucket); err != nil {
			t.Fatal(err)
		}
	}
	mine := identity.Principal{Email: "me@example.com", Grants: map[string]identity.Role{"mine": identity.User}}
	both := identity.Principal{Email: "us@example.com", Grants: map[string]identity.Role{"mine": identity.User, "theirs": identity.Viewer}}
	for _, c := range []struct {
		who  identity.Principal
		uri  string
		want codes.Code
	}{
		{mine, "gs://my-bucket/m", codes.OK},
		{mine, "gs://their-bucket/m", codes.PermissionDenied},
		{mine, "gs://their-bucket", codes.PermissionDenied},
		{mine, "gs://no-bucket/m", codes.NotFound},
		{identity.Principal{Email: "none@example.com"}, "gs://no-bucket/m", codes.PermissionDenied}, // or is it?
		{both, "gs://their-bucket/m", codes.OK},
		{identity.OperatorPrincipal(), "gs://their-bucket/m", codes.OK},
		{identity.Principal{}, "gs://their-bucket/m", codes.Unauthenticated},
		{identity.Principal{}, "gs://no-bucket/m", codes.Unauthenticated},
	} {
		err := a.MayRead(identity.NewContext(t.Context(), c.who), c.uri)
		if resource.CodeOf(err) != c.want || err != nil && !strings.Contains(err.Error(), c.uri) {
			t.Errorf("%q may read %q: %v, want %v", c.who.Email, c.uri, err, c.want)
		}
	}
	for uri, want := range map[string]codes.Code{"gs://my-bucket/out": codes.OK, "gs://their-bucket/out": codes.PermissionDenied, "gs://no-bucket/out": codes.NotFound} {
		if err := a.MayWrite(identity.NewContext(t.Context(), both), uri); resource.CodeOf(err) != want {
			t.Errorf("a user of mine and viewer of theirs may write %s: %v, want %v", uri, err, want)
		}
	}
}

func TestMayRun(t *testing.T) {
	t.Parallel()
	a, kept, secret := admitted(t)
	digest := string(secret.Digest)
	mine := identity.Principal{Email: "me@example.com", Grants: map[string]identity.Role{"mine": identity.User}}
	both := identity.Principal{Email: "us@example.com", Grants: map[string]identity.Role{"mine": identity.User, "theirs": identity.Viewer}}
	own, err := a.images.Holders(t.Context(), "shared:v1")
	if err != nil || len(own) != 1 || own[0].Project != "mine" {
		t.Fatalf("holders %v, %v", own, err)
	}
	for _, c := range []struct {
		who   identity.Principal
		image string
		want  codes.Code
	}{
		{mine, "", codes.OK},
		{mine, "shared:v1", codes.OK},
		{mine, "secret:v1", codes.PermissionDenied},
		{mine, "localhost:1/secret:v1", codes.PermissionDenied},
		{mine, "docker.io/library/secret:v1", codes.PermissionDenied},
		{mine, "secret@" + digest, codes.PermissionDenied},
		{mine, digest, codes.PermissionDenied},
		{both, digest, codes.OK},
		{both, "secret:v1", codes.OK},
		{identity.OperatorPrincipal(), "secret:v1", codes.OK},
		{identity.Principal{}, "secret:v1", codes.Unauthenticated},
		{mine, "secret:ruled", codes.OK},              // a rule makes a program of it, the image is not read
		{mine, "secret:none", codes.PermissionDenied}, // there is none yet: it may be pushed before the job starts
		{both, "secret:none", codes.OK},
		{mine, "shared:none", codes.OK},
		{mine, "theirs/none:v1", codes.PermissionDenied}, // the repository would be of that project
		{mine, "mine/none:v1", codes.OK},
		{mine, "elsewhere/none:v1", codes.OK}, // no project of ours: a container engine may pull it
		{mine, "sha256:" + strings.Repeat("0", 64), codes.OK},
		{mine, "No Name At All", codes.OK},
	} {
		err := a.MayRun(identity.NewContext(t.Context(), c.who), c.image)
		if resource.CodeOf(err) != c.want || err != nil && !strings.Contains(err.Error(), "image "+c.image) {
			t.Errorf("%q may run %q: %v, want %v", c.who.Email, c.image, err, c.want)
		}
	}

	// A digest that is in a repository of the caller's as well.
	repo := image.Repo{Name: "copy", Project: "mine"}
	config := []byte(`{"os":"linux"}`)
	if _, err := kept.PutBlob(t.Context(), repo, image.DigestOf(config), bytes.NewReader(config)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := kept.PutManifest(t.Context(), repo, "v1", "", secret.Raw); err != nil {
		t.Fatal(err)
	}
	if err := a.MayRun(identity.NewContext(t.Context(), mine), digest); err != nil {
		t.Errorf("a digest of a repository of mine: %v", err)
	}
	// No answer is no permission.
	ended, cancel := context.WithCancel(identity.NewContext(t.Context(), mine))
	cancel()
	if err := a.MayRun(ended, "shared:v1"); err == nil {
		t.Error("allowed although the store did not answer")
	}
}
