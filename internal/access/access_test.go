package access_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/access"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store/sqlite"
)

var _ runtime.Files = (*access.Objects)(nil)

// world is a store with one bucket of the project mine and some of theirs, which
// bind a role to the account reader@mine.
type world struct {
	*access.Objects
	t     *testing.T
	blobs *blob.Store
}

const reader = "reader@mine.iam.tategu.internal"

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	content, err := disk.Open(filepath.Join(t.TempDir(), "objects"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := identity.NewAuthority(st, t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, blobs: blob.New(st, content, time.Now)}
	w.Objects = access.New(w.blobs, authority)
	w.bucket("mine", "my-bucket", "")
	w.bucket("theirs", "closed", "")
	for _, role := range []string{"objectViewer", "objectCreator", "objectUser", "legacyObjectReader"} {
		w.bucket("theirs", strings.ToLower(role), role)
	}
	return w
}

func (w *world) bucket(project, name, role string) {
	w.t.Helper()
	b := blob.Bucket{Name: name, Project: project}
	if role != "" {
		b.Policy = []byte(`{"bindings":[{"role":"roles/storage.` + role + `","members":["serviceAccount:` + reader + `"]}]}`)
	}
	if _, err := w.blobs.CreateBucket(w.t.Context(), b); err != nil {
		w.t.Fatal(err)
	}
	for _, object := range []string{"old", "dir/a", "dir/b"} {
		if err := w.blobs.WriteObject(w.t.Context(), "gs://"+name+"/"+object, "", []byte("old")); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) content(uri string) string {
	w.t.Helper()
	data, err := w.blobs.ReadAll(w.t.Context(), uri, 0)
	if resource.IsNotFound(err) {
		return ""
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

// TestEachOperationNeedsItsPermission: what the storage API would ask the account for.
func TestEachOperationNeedsItsPermission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	operations := map[string]func(v *access.View, bucket string) error{
		"read": func(v *access.View, bucket string) error {
			r, err := v.ReadObject(t.Context(), bucket, "old")
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				err = errors.Join(err, r.Close())
			}
			_, all := v.ReadAll(t.Context(), "gs://"+bucket+"/old", 10)
			if resource.CodeOf(err) != resource.CodeOf(all) {
				t.Errorf("%s: ReadObject %v, ReadAll %v", bucket, err, all)
			}
			return err
		},
		"list": func(v *access.View, bucket string) error {
			_, err := v.List(t.Context(), bucket, blob.ListQuery{Prefix: "dir/"})
			return err
		},
		"exists": func(v *access.View, bucket string) error {
			_, err := v.Exists(t.Context(), "gs://"+bucket+"/dir")
			return err
		},
		"create": func(v *access.View, bucket string) error {
			name := resource.NewID()
			_, err := v.Put(t.Context(), blob.Object{Bucket: bucket, Name: name}, bytes.NewReader([]byte("new")), blob.Conditions{})
			if made := w.content("gs://" + bucket + "/" + name); (made == "new") != (err == nil) {
				t.Errorf("%s: %v, and there is %q", bucket, err, made)
			}
			return err
		},
		"upload": func(v *access.View, bucket string) error {
			return v.UploadFile(t.Context(), file, "gs://"+bucket+"/"+resource.NewID())
		},
		"overwrite": func(v *access.View, bucket string) error {
			err := v.UploadFile(t.Context(), file, "gs://"+bucket+"/old")
			if now := w.content("gs://" + bucket + "/old"); (now == "new") != (err == nil) {
				t.Errorf("%s: %v, and there is %q", bucket, err, now)
			}
			return err
		},
		"may write": func(v *access.View, bucket string) error { return v.MayWrite(t.Context(), "gs://"+bucket+"/x") },
		"download": func(v *access.View, bucket string) error {
			return v.Download(t.Context(), "gs://"+bucket+"/old", t.TempDir())
		},
		"download a folder": func(v *access.View, bucket string) error {
			return v.Download(t.Context(), "gs://"+bucket+"/dir", t.TempDir())
		},
		"download all of it": func(v *access.View, bucket string) error { return v.Download(t.Context(), "gs://"+bucket, t.TempDir()) },
	}
	may := map[string]string{ // of reader, the operations
		"my-bucket":          "read list exists create upload overwrite may write download download a folder download all of it",
		"objectuser":         "read list exists create upload overwrite may write download download a folder download all of it",
		"objectviewer":       "read list exists download download a folder download all of it",
		"objectcreator":      "create upload may write",
		"legacyobjectreader": "read download",
		"closed":             "",
	}
	permissions := map[string]string{"read": access.Get, "list": access.List, "exists": access.Get, "create": access.Create, "upload": access.Create, "overwrite": "storage.objects.", "may write": access.Create}
	for bucket, allowed := range may {
		for name, do := range operations {
			err := do(w.As(identity.Account{Project: "mine", Email: reader}), bucket)
			want := codes.PermissionDenied
			if strings.Contains(" "+allowed+" ", " "+name+" ") {
				want = codes.OK
			}
			if resource.CodeOf(err) != want {
				t.Errorf("%s in %s: %v, want %v", name, bucket, err, want)
			}
			if err == nil {
				continue
			}
			e, ok := errors.AsType[*resource.Error](err)
			if !ok || e.Cause != resource.CauseInput || e.Hint == "" {
				t.Errorf("%s in %s: %v has no cause or next step", name, bucket, err)
			}
			for _, part := range []string{reader, "gs://" + bucket, "storage.objects."} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s in %s: %v does not say %s", name, bucket, err, part)
				}
			}
			if bucket == "closed" && !strings.Contains(err.Error(), permissions[name]) {
				t.Errorf("%s: %v does not say %s", name, err, permissions[name])
			}
		}
	}
}

// TestAccounts: the default account is the project's own, another project's has
// nothing here, and nobody may nothing.
func TestAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for account, want := range map[identity.Account]codes.Code{
		{Project: "mine"}: codes.OK,
		{Project: "mine", Email: "default@mine.iam.tategu.internal"}: codes.OK,
		{Project: "mine", Email: "x@mine.iam.gserviceaccount.com"}:   codes.OK,
		{Project: "theirs"}: codes.PermissionDenied,
		{Project: "mine", Email: "x@theirs.iam.tategu.internal"}: codes.PermissionDenied,
		{Project: "theirs", Email: reader}:                       codes.OK, // whose job it is does not count
		{Project: "mine", Email: "me@example.com"}:               codes.InvalidArgument,
		{}: codes.InvalidArgument,
	} {
		for what, err := range map[string]error{
			"download": w.Download(t.Context(), account, "gs://my-bucket/old", t.TempDir()),
			"write":    w.MayWrite(t.Context(), account, "gs://my-bucket/x"),
		} {
			if resource.CodeOf(err) != want {
				t.Errorf("%s as %+v: %v, want %v", what, account, err, want)
			}
		}
	}
}

// TestMissing: what is not there is told as the storage API tells it.
func TestMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := identity.Account{Project: "mine"}
	v, dir := w.As(mine), t.TempDir()
	for _, uri := range []string{"gs://no-bucket/x", "gs://my-bucket/none", "gs://my-bucket/none/"} {
		if err := v.Download(t.Context(), uri, dir); err != nil {
			t.Errorf("download %s: %v", uri, err)
		}
		if there, err := v.Exists(t.Context(), uri); there || err != nil {
			t.Errorf("%s exists: %v, %v", uri, there, err)
		}
	}
	if err := v.UploadFile(t.Context(), "/dev/null", "gs://no-bucket/x"); resource.CodeOf(err) != codes.NotFound {
		t.Errorf("upload into no bucket: %v", err)
	}
	if err := v.MayWrite(t.Context(), "gs://no-bucket/x"); resource.CodeOf(err) != codes.NotFound {
		t.Errorf("may write into no bucket: %v", err)
	}
	// Without the right to list, it is not told that there is nothing.
	only := w.As(identity.Account{Project: "mine", Email: reader})
	if err := only.Download(t.Context(), "gs://legacyobjectreader/none", dir); resource.CodeOf(err) != codes.PermissionDenied {
		t.Errorf("download of what is not there: %v", err)
	}
	if err := v.EnsureBucket(t.Context(), "theirs", "new-bucket"); resource.CodeOf(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "default@mine") {
		t.Errorf("a bucket in another project: %v", err)
	}
	for _, again := range []string{"", " again"} {
		if err := v.EnsureBucket(t.Context(), "mine", "new-bucket"); err != nil {
			t.Errorf("a bucket%s: %v", again, err)
		}
	}
	if b, err := w.blobs.GetBucket(t.Context(), "new-bucket"); err != nil || b.Project != "mine" {
		t.Errorf("bucket %+v, %v", b, err)
	}
}

// TestWritingOverOneGeneration: to name the generation does not make up for the permission.
func TestWritingOverOneGeneration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	as := w.As(identity.Account{Project: "mine", Email: reader})
	for bucket, want := range map[string]codes.Code{"objectcreator": codes.PermissionDenied, "objectuser": codes.OK} {
		is, err := w.blobs.Stat(t.Context(), bucket, "old", 0, blob.Conditions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = as.Put(t.Context(), blob.Object{Bucket: bucket, Name: "old"}, strings.NewReader("new"), blob.Conditions{GenerationMatch: &is.Generation})
		if resource.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", bucket, err, want)
		}
	}
}
