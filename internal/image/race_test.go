package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"tategu/internal/image"
)

// TestCollectionBesidePushes: with no age at all, a collection may take a blob before
// its manifest comes, which is then refused and pushed again; but what a manifest that
// was acknowledged names is there.
func TestCollectionBesidePushes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	var collector, pushers errgroup.Group
	collector.Go(func() error {
		for ctx.Err() == nil {
			if _, err := w.Collect(ctx, image.Policy{Age: 0}); err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	})
	for n := range 4 {
		pushers.Go(func() error {
			for i := range 15 {
				if err := pushUntilTaken(ctx, w, "r"+strconv.Itoa(n%2), "t"+strconv.Itoa(n), i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := pushers.Wait(); err != nil {
		t.Error(err)
	}
	stop()
	if err := collector.Wait(); err != nil {
		t.Error(err)
	}
	for n := range 4 {
		st, err := w.Manifest(t.Context(), "r"+strconv.Itoa(n%2), "t"+strconv.Itoa(n))
		if err != nil {
			t.Fatal(err)
		}
		m, err := image.ParseManifest("", st.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Blob(t.Context(), "r"+strconv.Itoa(n%2), m.Config.Digest); err != nil {
			t.Errorf("the blob of an acknowledged manifest: %v", err)
		}
	}
	if _, err := w.Check(t.Context(), func(d image.Digest, err error) { t.Errorf("%s: %v", d, err) }); err != nil {
		t.Error(err)
	}
}

// pushUntilTaken pushes the same few blobs as the others do.
func pushUntilTaken(ctx context.Context, w *world, repoName, tag string, i int) error {
	data := []byte(strings.Repeat(strconv.Itoa(i%5)+" ", 1+i%2*20_000))
	d := image.DigestOf(data)
	desc := image.Descriptor{MediaType: "application/x", Digest: d, Size: int64(len(data))}
	raw, err := json.Marshal(image.Manifest{SchemaVersion: 2, MediaType: image.TypeOCIManifest, Config: &desc, Annotations: map[string]string{"by": tag}})
	if err != nil {
		return err
	}
	for {
		if _, err := w.PutBlob(ctx, repo(repoName), d, bytes.NewReader(data)); err != nil {
			return err
		}
		_, _, err := w.PutManifest(ctx, repo(repoName), tag, "", raw)
		if c, ok := errors.AsType[image.Code](err); ok && (c == image.ErrManifestBlobUnknown || c == image.ErrBlobUnknown) {
			continue // collected in between
		}
		return err
	}
}
