package image_test

import (
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
	"tategu/internal/image"
)

func TestCollectKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	day := 24 * time.Hour
	tagged := w.simple("app", "v1", "tagged")
	old := w.simple("app", "moved", "old")
	w.simple("app", "moved", "new") // old has no tag any more
	p := here()
	w.manifest("app", "list", index(desc(w.simple("app", string(tagged.Digest), "tagged"), &p)))
	loose := w.blob("app", []byte("nobody names me"))
	w.forward(2 * day)
	young := w.blob("app", []byte("young")) // stored by the machine's clock: two days old by the test's
	if _, err := w.StartUpload(t.Context(), repo("app")); err != nil {
		t.Fatal(err)
	}

	dry := w.collect(image.Policy{Age: day, DryRun: true})
	done := w.collect(image.Policy{Age: day})
	if dry != done || done.Blobs != 2 || done.Manifests != 0 {
		t.Errorf("dry run %+v, collected %+v", dry, done)
	}
	for _, d := range []image.Descriptor{loose, young} {
		if _, err := w.Blob(t.Context(), "app", d.Digest); code(err) != image.ErrBlobUnknown {
			t.Errorf("a loose blob is there: %v", err)
		}
	}
	if _, err := w.Manifest(t.Context(), "app", string(old.Digest)); err != nil {
		t.Errorf("without a policy an untagged manifest goes: %v", err)
	}
	if got := w.collect(image.Policy{Age: day, Untagged: 3 * day}); got.Manifests != 0 {
		t.Errorf("too young: %+v", got)
	}
	if got := w.collect(image.Policy{Age: day, Untagged: day}); got.Manifests != 1 {
		t.Errorf("collected %+v, want one manifest", got)
	}
	if _, err := w.find("app@" + string(old.Digest)); err == nil {
		t.Error("the untagged manifest is there")
	}
	for _, tag := range []string{"v1", "moved", "list"} {
		if _, err := w.find("app:" + tag); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
	}
	w.forward(8 * day)
	if got := w.collect(image.Policy{Age: day}); got.Uploads != 1 {
		t.Errorf("collected %+v, want one upload", got)
	}
}

// TestCollectPacked: what was packed for a run goes some time after its last start.
func TestCollectPacked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	day := 24 * time.Hour
	push := func(repo, text string) image.Digest {
		tagged := w.simple(repo, "v1", text)
		if err := w.DeleteManifest(t.Context(), repo, "v1"); err != nil { // the tag alone
			t.Fatal(err)
		}
		return tagged.Digest
	}
	packed, other := push("p/"+image.PackedName, "run"), push("p/app", "kept by its digest")
	named := w.simple("p/"+image.PackedName, "named", "named")
	w.forward(10 * day)
	before, err := w.rows.Get(t.Context(), "imageManifest", "p/"+image.PackedName+"@"+string(packed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.find("p/" + image.PackedName + "@" + string(packed)); err != nil {
		t.Fatal(err)
	}
	if after, err := w.rows.Get(t.Context(), "imageManifest", before.Key); err != nil || !after.Updated.After(before.Updated) {
		t.Errorf("a start did not make it young again: %v, %v", before.Updated, after.Updated)
	} else {
		before = after
	}
	for _, reference := range []string{"p/" + image.PackedName + "@" + string(packed), "none:v1", "No Name"} {
		if err := w.images().Keep(t.Context(), reference); err != nil {
			t.Errorf("keep %s: %v", reference, err)
		}
	}
	if after, err := w.rows.Get(t.Context(), "imageManifest", before.Key); err != nil || !after.Updated.After(before.Updated) {
		t.Errorf("a job that waits did not make it young again: %v, %v", before.Updated, after.Updated)
	}
	if got := w.collect(image.Policy{Age: day, Packed: 11 * day}); got.Manifests != 0 {
		t.Errorf("too young: %+v", got)
	}
	if got := w.collect(image.Policy{Age: day, Packed: 9 * day}); got.Manifests != 1 {
		t.Errorf("collected %+v, want one manifest", got)
	}
	for ref, there := range map[string]bool{string(packed): false, string(other): true, string(named.Digest): true} {
		if _, err := w.find(ref); (err == nil) != there {
			t.Errorf("%s: %v, want it there: %t", ref, err, there)
		}
	}
}

// TestBackupsSeeImages: a backup copies what rows name, and checks it by size and CRC32C.
func TestBackupsSeeImages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.simple("app", "v1", strings.Repeat("large ", 10_000))
	u, err := w.StartUpload(t.Context(), repo("app"))
	for range 2 {
		if err == nil {
			u, err = w.AppendUpload(t.Context(), "app", u.ID, image.AtEnd, -1, strings.NewReader(strings.Repeat("piece", 5000)))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := map[bool]int{}
	err = blob.References(t.Context(), w.rows, func(refs []blob.Reference) error {
		for _, ref := range refs {
			r, err := w.blobs.ReadContent(t.Context(), ref.ID, ref.Size)
			if err != nil {
				return err
			}
			data, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				return err
			}
			if int64(len(data)) != ref.Size || crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) != ref.CRC32C {
				t.Errorf("%+v is of %d bytes", ref, len(data))
			}
			seen[ref.Grows]++
		}
		return nil
	})
	if err != nil || seen[false] != 1 || seen[true] != 1 {
		t.Errorf("a backup sees %v, %v", seen, err)
	}
}

func TestDeletedAndCollectedIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	st := w.simple("app", "v1", strings.Repeat("long ", 10_000))
	subject := desc(st, nil)
	config := w.blob("app", []byte("{}"))
	config.MediaType = "application/x"
	sig := w.manifest("app", "sig", image.Manifest{SchemaVersion: 2, MediaType: image.TypeOCIManifest, Config: &config, Subject: &subject})
	refs, err := w.Referrers(t.Context(), "app", st.Digest, "")
	if err != nil || len(refs) != 1 || refs[0].Digest != sig.Digest {
		t.Errorf("referrers %v, %v", refs, err)
	}
	m, err := image.ParseManifest("", st.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteBlob(t.Context(), "app", m.Layers[0].Digest); code(err) != image.ErrUnsupported {
		t.Errorf("a blob in use was deleted: %v", err)
	}
	for _, d := range []image.Digest{st.Digest, sig.Digest} {
		if err := w.DeleteManifest(t.Context(), "app", string(d)); err != nil {
			t.Fatal(err)
		}
	}
	if tags, err := w.Tags(t.Context(), "app", "", 0); err != nil || len(tags) != 0 {
		t.Errorf("tags %v, %v", tags, err)
	}
	w.forward(48 * time.Hour)
	got := w.collect(image.Policy{Age: 24 * time.Hour})
	if got.Blobs != 3 || got.Repositories != 1 || got.Bytes < 50_000 {
		t.Errorf("collected %+v", got)
	}
	if swept, err := w.blobs.Sweep(t.Context(), time.Hour); err != nil || swept.Contents != 0 {
		t.Errorf("contents were left behind: %+v, %v", swept, err)
	}
}

// TestRandomLivesOfImages pushes, tags, deletes and collects at random beside a
// model of what must be there.
func TestRandomLivesOfImages(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := rand.New(rand.NewPCG(seed, 1))
			tags := map[string]image.Digest{}
			for step := range 120 {
				name := "app" + strconv.Itoa(r.IntN(2))
				tag := "t" + strconv.Itoa(r.IntN(4))
				switch k := name + ":" + tag; r.IntN(6) {
				case 0, 1:
					tags[k] = w.simple(name, tag, strconv.Itoa(r.IntN(8))+strings.Repeat("x", r.IntN(2)*30_000)).Digest
				case 2:
					if d, ok := tags[k]; ok {
						if err := w.Tag(t.Context(), name, string(d), "copy"); err != nil {
							t.Fatal(err)
						}
						tags[name+":copy"] = d
					}
				case 3:
					err := w.DeleteManifest(t.Context(), name, tag)
					if _, ok := tags[k]; ok != (err == nil) {
						t.Fatalf("step %d: delete of %s: %v", step, k, err)
					}
					delete(tags, k)
				case 4:
					if d, ok := tags[k]; ok {
						if err := w.DeleteManifest(t.Context(), name, string(d)); err != nil {
							t.Fatal(err)
						}
						for other, od := range tags {
							if od == d && strings.HasPrefix(other, name+":") {
								delete(tags, other)
							}
						}
					}
				case 5:
					w.forward(25 * time.Hour)
					w.collect(image.Policy{Age: time.Hour, Untagged: time.Hour})
				}
			}
			w.forward(25 * time.Hour)
			w.collect(image.Policy{Age: time.Hour, Untagged: time.Hour})
			w.check(tags)
		})
	}
}

// check compares the store with the tags that must be there, and nothing else.
func (w *world) check(tags map[string]image.Digest) {
	w.t.Helper()
	want := map[image.Digest]bool{}
	for reference, d := range tags {
		if got, err := w.find(reference); got != string(d) {
			w.t.Errorf("%s is %s, %v, want %s", reference, got, err, d)
		}
		want[d] = true
	}
	repos, err := w.Repositories(w.t.Context(), "", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var found []string
	for _, r := range repos {
		entries, err := w.Entries(w.t.Context(), r)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			for _, tag := range e.Tags {
				found = append(found, e.Repository+":"+tag)
			}
			if len(e.Tags) == 0 {
				w.t.Errorf("%s@%s has no tag and was kept", e.Repository, e.Digest)
			}
		}
	}
	if len(found) != len(tags) {
		slices.Sort(found)
		w.t.Errorf("found %v, want %v", found, tags)
	}
	blobs := map[image.Digest]bool{}
	for _, r := range repos {
		for d := range want {
			st, err := w.Manifest(w.t.Context(), r.Name, string(d))
			if err != nil {
				continue
			}
			m, err := image.ParseManifest("", st.Raw)
			if err != nil {
				w.t.Fatal(err)
			}
			blobs[m.Config.Digest], blobs[m.Layers[0].Digest] = true, true
		}
	}
	if checked, err := w.Check(w.t.Context(), func(d image.Digest, err error) { w.t.Error(d, err) }); err != nil || checked.Blobs != len(blobs) {
		w.t.Errorf("%d blobs are kept and %d needed, %v", checked.Blobs, len(blobs), err)
	}
}
