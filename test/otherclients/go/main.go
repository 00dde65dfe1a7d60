// Command go drives the unmodified cloud.google.com/go/storage against a running
// server: go run . http://127.0.0.1:8090. It prints a line a check and
// "N passed, N failed".
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
)

type probe struct {
	ctx    context.Context
	client *storage.Client
	bucket *storage.BucketHandle
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . BASE_URL")
		os.Exit(2)
	}
	if err := os.Setenv("STORAGE_EMULATOR_HOST", os.Args[1]); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	passed, failed := 0, 0
	for reads, opts := range map[string][]option.ClientOption{"XML reads": nil, "JSON reads": {storage.WithJSONReads()}} {
		client, err := storage.NewClient(ctx, append(opts, option.WithoutAuthentication())...)
		if err != nil {
			panic(err)
		}
		p := probe{ctx: ctx, client: client, bucket: client.Bucket(fmt.Sprintf("go-%d", time.Now().UnixNano()))}
		for _, check := range []struct {
			name string
			run  func() error
		}{
			{"bucket", p.makeBucket},
			{"objects and ranges", p.objects},
			{"resumable", p.resumable},
			{"preconditions", p.preconditions},
			{"lists", p.lists},
			{"copy and compose", p.copyAndCompose},
			{"versions", p.versions},
			{"soft delete", p.softDelete},
			{"holds", p.holds},
			{"policy", p.policy},
			{"notifications", p.notifications},
			{"missing", p.missing},
		} {
			if err := check.run(); err != nil {
				failed++
				fmt.Printf("FAIL  go, %s: %s: %v\n", reads, check.name, err)
				continue
			}
			passed++
			fmt.Printf("ok    go, %s: %s\n", reads, check.name)
		}
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func (p probe) put(name string, data []byte) error {
	w := p.bucket.Object(name).NewWriter(p.ctx)
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

func (p probe) want(o *storage.ObjectHandle, want string) error {
	r, err := o.NewReader(p.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != want {
		return fmt.Errorf("read %.40q, %w, want %.40q", got, err, want)
	}
	return nil
}

func refused(err error, status int) error {
	var e *googleapi.Error
	if !errors.As(err, &e) || e.Code != status {
		return fmt.Errorf("got %w, want %d", err, status)
	}
	return nil
}

func (p probe) makeBucket() error {
	attrs := &storage.BucketAttrs{
		Location: "US", VersioningEnabled: false, Labels: map[string]string{"a": "b"},
		Lifecycle: storage.Lifecycle{Rules: []storage.LifecycleRule{{Action: storage.LifecycleAction{Type: "Delete"}, Condition: storage.LifecycleCondition{AgeInDays: 30, MatchesPrefix: []string{"tmp/"}}}}},
		CORS:      []storage.CORS{{Origins: []string{"*"}, Methods: []string{"GET"}, MaxAge: time.Minute}},
	}
	if err := p.bucket.Create(p.ctx, "project-1", attrs); err != nil {
		return err
	}
	got, err := p.bucket.Attrs(p.ctx)
	if err != nil {
		return err
	}
	if got.Labels["a"] != "b" || len(got.Lifecycle.Rules) != 1 || got.Lifecycle.Rules[0].Condition.AgeInDays != 30 || len(got.CORS) != 1 {
		return fmt.Errorf("attributes %+v", got)
	}
	return nil
}

func (p probe) objects() error {
	o := p.bucket.Object("a/日本 b?#%2F.txt")
	w := o.NewWriter(p.ctx)
	w.ContentType, w.Metadata = "text/plain", map[string]string{"k": "v"}
	if _, err := io.WriteString(w, "0123456789"); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	for _, tt := range []struct {
		offset, length int64
		want           string
	}{{0, -1, "0123456789"}, {2, 3, "234"}, {-3, -1, "789"}, {7, -1, "789"}} {
		r, err := o.NewRangeReader(p.ctx, tt.offset, tt.length)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || string(got) != tt.want {
			return fmt.Errorf("%d+%d: %q %w", tt.offset, tt.length, got, err)
		}
	}
	attrs, err := o.Update(p.ctx, storage.ObjectAttrsToUpdate{Metadata: map[string]string{"k": "w"}})
	if err != nil || attrs.Metadata["k"] != "w" || attrs.Metageneration != 2 || attrs.ContentType != "text/plain" {
		return fmt.Errorf("update %+v %w", attrs, err)
	}
	return o.Delete(p.ctx)
}

func (p probe) resumable() error {
	data := make([]byte, 3<<20+17)
	_, _ = rand.Read(data)
	o := p.bucket.Object("big")
	w := o.NewWriter(p.ctx)
	w.ChunkSize = 256 << 10
	if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return p.want(o, string(data))
}

func (p probe) preconditions() error {
	if err := p.put("once", []byte("1")); err != nil {
		return err
	}
	o := p.bucket.Object("once")
	w := o.If(storage.Conditions{DoesNotExist: true}).NewWriter(p.ctx)
	_, _ = io.WriteString(w, "2")
	if err := refused(w.Close(), http.StatusPreconditionFailed); err != nil {
		return err
	}
	if err := refused(o.If(storage.Conditions{GenerationMatch: 1}).Delete(p.ctx), http.StatusPreconditionFailed); err != nil {
		return err
	}
	return p.want(o, "1")
}

func (p probe) names(q *storage.Query) (names []string, err error) {
	for it := p.bucket.Objects(p.ctx, q); ; {
		o, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return names, nil
		}
		if err != nil {
			return names, err
		}
		names = append(names, o.Prefix+o.Name)
	}
}

func (p probe) lists() error {
	for _, name := range []string{"l/1", "l/2", "l/d/3", "l/d/4.csv"} {
		if err := p.put(name, nil); err != nil {
			return err
		}
	}
	for _, tt := range []struct {
		q    storage.Query
		want []string
	}{
		{storage.Query{Prefix: "l/"}, []string{"l/1", "l/2", "l/d/3", "l/d/4.csv"}},
		{storage.Query{Prefix: "l/", Delimiter: "/"}, []string{"l/1", "l/2", "l/d/"}},
		{storage.Query{StartOffset: "l/2", EndOffset: "l/d/4"}, []string{"l/2", "l/d/3"}},
		{storage.Query{MatchGlob: "l/**.csv"}, []string{"l/d/4.csv"}},
	} {
		got, err := p.names(&tt.q)
		if err != nil || !slices.Equal(got, tt.want) {
			return fmt.Errorf("%+v: %q %w", tt.q, got, err)
		}
	}
	return nil
}

func (p probe) copyAndCompose() error {
	a, b, joined := p.bucket.Object("c/a"), p.bucket.Object("c/b"), p.bucket.Object("c/ab")
	if err := errors.Join(p.put("c/a", []byte("A")), p.put("c/b", []byte("B"))); err != nil {
		return err
	}
	if _, err := joined.ComposerFrom(a, b).Run(p.ctx); err != nil {
		return err
	}
	second := p.bucket.Object("c/copy")
	if _, err := second.CopierFrom(joined).Run(p.ctx); err != nil {
		return err
	}
	moved, err := second.Move(p.ctx, storage.MoveObjectDestination{Object: "c/moved"})
	if err != nil || moved.Name != "c/moved" {
		return fmt.Errorf("move: %+v %w", moved, err)
	}
	return p.want(p.bucket.Object("c/moved"), "AB")
}

func (p probe) versions() error {
	if _, err := p.bucket.Update(p.ctx, storage.BucketAttrsToUpdate{VersioningEnabled: true}); err != nil {
		return err
	}
	if err := errors.Join(p.put("v", []byte("1")), p.put("v", []byte("2")), p.bucket.Object("v").Delete(p.ctx)); err != nil {
		return err
	}
	var texts []string
	for it := p.bucket.Objects(p.ctx, &storage.Query{Prefix: "v", Versions: true}); ; {
		o, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return err
		}
		if o.Deleted.IsZero() {
			return fmt.Errorf("generation %d is live", o.Generation)
		}
		texts = append(texts, o.Name)
		if err := p.want(p.bucket.Object("v").Generation(o.Generation), fmt.Sprint(len(texts))); err != nil {
			return err
		}
	}
	if len(texts) != 2 {
		return fmt.Errorf("%d generations", len(texts))
	}
	_, err := p.bucket.Update(p.ctx, storage.BucketAttrsToUpdate{VersioningEnabled: false})
	return err
}

func (p probe) softDelete() error {
	policy := &storage.SoftDeletePolicy{RetentionDuration: 7 * 24 * time.Hour}
	if _, err := p.bucket.Update(p.ctx, storage.BucketAttrsToUpdate{SoftDeletePolicy: policy}); err != nil {
		return err
	}
	if err := p.put("s", []byte("kept")); err != nil {
		return err
	}
	attrs, err := p.bucket.Object("s").Attrs(p.ctx)
	if err != nil {
		return err
	}
	if err := p.bucket.Object("s").Delete(p.ctx); err != nil {
		return err
	}
	if _, err := p.bucket.Object("s").Generation(attrs.Generation).Restore(p.ctx, &storage.RestoreOptions{}); err != nil {
		return err
	}
	return p.want(p.bucket.Object("s"), "kept")
}

func (p probe) holds() error {
	if err := p.put("h", []byte("1")); err != nil {
		return err
	}
	o := p.bucket.Object("h")
	if _, err := o.Update(p.ctx, storage.ObjectAttrsToUpdate{TemporaryHold: true}); err != nil {
		return err
	}
	if err := refused(o.Delete(p.ctx), http.StatusForbidden); err != nil {
		return err
	}
	_, err := o.Update(p.ctx, storage.ObjectAttrsToUpdate{TemporaryHold: false})
	return errors.Join(err, o.Delete(p.ctx))
}

func (p probe) policy() error {
	policy, err := p.bucket.IAM().Policy(p.ctx)
	if err != nil {
		return err
	}
	policy.Add("user:a@example.com", "roles/storage.objectViewer")
	if err := p.bucket.IAM().SetPolicy(p.ctx, policy); err != nil {
		return err
	}
	if err := p.bucket.IAM().SetPolicy(p.ctx, policy); err == nil {
		return errors.New("a stale etag was accepted")
	}
	has, err := p.bucket.IAM().TestPermissions(p.ctx, []string{"storage.objects.get"})
	if err != nil || len(has) != 1 {
		return fmt.Errorf("permissions %q %w", has, err)
	}
	return nil
}

func (p probe) notifications() error {
	n, err := p.bucket.AddNotification(p.ctx, &storage.Notification{TopicProjectID: "project-1", TopicID: "t1", PayloadFormat: storage.JSONPayload})
	if err != nil {
		return err
	}
	all, err := p.bucket.Notifications(p.ctx)
	if err != nil || all[n.ID] == nil || all[n.ID].TopicID != "t1" {
		return fmt.Errorf("%+v %w", all, err)
	}
	return p.bucket.DeleteNotification(p.ctx, n.ID)
}

func (p probe) missing() error {
	if _, err := p.bucket.Object("none").NewReader(p.ctx); !errors.Is(err, storage.ErrObjectNotExist) {
		return fmt.Errorf("object: %w", err)
	}
	if _, err := p.client.Bucket("no-such-bucket-here").Attrs(p.ctx); !errors.Is(err, storage.ErrBucketNotExist) {
		return fmt.Errorf("bucket: %w", err)
	}
	return nil
}
