package batch_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/batch"
	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/volume"
	"tategu/internal/warehouse"
)

const location = "projects/p/locations/us-central1"

// files are objects by gs:// URI. Lists come in pages of two.
type files struct {
	mu  sync.Mutex
	all map[string]string

	before func(ctx context.Context, name string) error // each Put; nil = nothing
}

func (f *files) List(_ context.Context, bucket string, q blob.ListQuery) (blob.ListPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for uri := range f.all {
		name, ok := strings.CutPrefix(uri, "gs://"+bucket+"/")
		if ok && strings.HasPrefix(name, q.Prefix) && name > q.After {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var page blob.ListPage
	for i, name := range names {
		if i == 2 {
			page.Next = names[1]
			break
		}
		page.Objects = append(page.Objects, blob.Object{Bucket: bucket, Name: name, Size: int64(len(f.all["gs://"+bucket+"/"+name])), Generation: 1})
	}
	return page, nil
}

func (f *files) ReadObject(ctx context.Context, bucket, name string) (io.ReadCloser, error) {
	_, r, err := f.OpenLive(ctx, bucket, name)
	return r, err
}

func (f *files) OpenLive(_ context.Context, bucket, name string) (blob.Object, io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	uri := "gs://" + bucket + "/" + name
	text, ok := f.all[uri]
	if !ok {
		return blob.Object{}, nil, resource.NotFound(uri)
	}
	return blob.Object{Bucket: bucket, Name: name, Size: int64(len(text)), Generation: 1}, io.NopCloser(strings.NewReader(text)), nil
}

func (f *files) Put(ctx context.Context, o blob.Object, r io.Reader, _ blob.Conditions) (blob.Object, error) {
	if f.before != nil {
		if err := f.before(ctx, o.Name); err != nil {
			return o, err
		}
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return blob.Object{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all["gs://"+o.Bucket+"/"+o.Name] = string(text)
	return o, nil
}

// view is files as an account sees them: reader@p may not write, and nobody of
// another project may read.
type view struct {
	*files
	as identity.Account
}

func (v *view) OpenLive(ctx context.Context, bucket, name string) (blob.Object, io.ReadCloser, error) {
	if v.as.Project != "p" || strings.HasSuffix(v.as.Email, "@theirs.iam.tategu.internal") {
		return blob.Object{}, nil, resource.Errorf(codes.PermissionDenied, "%s may not read gs://%s/%s", v.as.Email, bucket, name).WithCause(resource.CauseInput)
	}
	return v.files.OpenLive(ctx, bucket, name)
}

func (v *view) ReadObject(ctx context.Context, bucket, name string) (io.ReadCloser, error) {
	_, r, err := v.OpenLive(ctx, bucket, name)
	return r, err
}

func (v *view) Put(ctx context.Context, o blob.Object, r io.Reader, conds blob.Conditions) (blob.Object, error) {
	if v.as.Email == "reader@p.iam.tategu.internal" {
		return o, resource.Errorf(codes.PermissionDenied, "%s may not write gs://%s/%s", v.as.Email, o.Bucket, o.Name).WithCause(resource.CauseInput)
	}
	return v.files.Put(ctx, o, r, conds)
}

// under gives the objects below a prefix, by the rest of their names.
func (f *files) under(prefix string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]string{}
	for uri, text := range f.all {
		if rest, ok := strings.CutPrefix(uri, prefix); ok {
			found[rest] = text
		}
	}
	return found
}

// world is an engine over a real store.
type world struct {
	t       *testing.T
	path    string
	store   store.Store
	runtime runtime.Runtime
	objects *files
	stop    func()

	room       *volume.Volume
	warehouses map[string]warehouse.Warehouse
	projects   map[string][]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	text, err := os.ReadFile("../modelformat/lightgbm/testdata/golden/regression.model.txt")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, path: filepath.Join(t.TempDir(), "t.db"), objects: &files{all: map[string]string{"gs://b/model/model.txt": string(text)}}}
	w.open()
	w.model("native", &pb.Model{ArtifactUri: "gs://b/model"})
	return w
}

func (w *world) open() {
	w.t.Helper()
	st, err := sqlite.Open(w.t.Context(), w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = st
	engine := batch.New(batch.Config{
		Store: st, Objects: func(as identity.Account) batch.Objects { return &view{w.objects, as} }, Runtime: w.runtime, Room: w.room, Warehouses: w.warehouses, Projects: w.projects, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		HasImage: func(image string) bool { return image == "echo" },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		if err := st.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(func() { w.stop() })
}

// withProcesses gives the world a runtime that starts programs.
func (w *world) withProcesses() {
	w.t.Helper()
	w.stop()
	rt, err := process.New(process.Config{
		Dir: w.t.TempDir(), CacheDir: w.t.TempDir(), Log: slog.New(slog.DiscardHandler), Now: time.Now, NoMounts: true,
		Images: []runtime.ImageRule{{Match: "echo", Command: []string{"python3"}}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		w.stop()
		if all, err := rt.List(context.Background()); err != nil || len(all) > 0 {
			w.t.Errorf("left running: %v, %v", all, err)
		}
		if err := rt.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.runtime = rt
	w.open()
}

func (w *world) model(id string, m *pb.Model) {
	w.t.Helper()
	m.Name, m.VersionId, m.DisplayName = location+"/models/"+id, "1", "the "+id
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: resource.KindModelVersions, Key: resource.VersionName(m.Name, "1")}, m)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// rename gives a model another display name.
func (w *world) rename(id, to string) {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		m := &pb.Model{}
		row, err := store.GetMessage(w.t.Context(), tx, resource.KindModelVersions, resource.VersionName(location+"/models/"+id, "1"), m)
		if err != nil {
			return err
		}
		m.DisplayName = to
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: row.Kind, Key: row.Key}, m)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// submit writes the row that the API writes.
func (w *world) submit(model, input string, change func(*pb.BatchPredictionJob)) string {
	w.t.Helper()
	job := &pb.BatchPredictionJob{
		Name: location + "/batchPredictionJobs/" + resource.NewID(), DisplayName: "j", State: pb.JobState_JOB_STATE_PENDING,
		Model: location + "/models/" + model, ModelVersionId: "1", CreateTime: timestamppb.Now(),
		InputConfig: &pb.BatchPredictionJob_InputConfig{InstancesFormat: "jsonl", Source: &pb.BatchPredictionJob_InputConfig_GcsSource{
			GcsSource: &pb.GcsSource{Uris: strings.Split(input, " ")},
		}},
		OutputConfig: &pb.BatchPredictionJob_OutputConfig{PredictionsFormat: "jsonl", Destination: &pb.BatchPredictionJob_OutputConfig_GcsDestination{
			GcsDestination: &pb.GcsDestination{OutputUriPrefix: "gs://b/out"},
		}},
	}
	if change != nil {
		change(job)
	}
	w.put(job)
	return job.Name
}

func (w *world) put(job *pb.BatchPredictionJob) {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: resource.KindBatchPredictionJobs, Key: job.Name, State: job.State.String()}, job)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// until waits for a job to be as wanted.
func (w *world) until(name string, want func(*pb.BatchPredictionJob) bool) *pb.BatchPredictionJob {
	w.t.Helper()
	watch := w.store.Watch(resource.KindBatchPredictionJobs)
	defer watch.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		job := &pb.BatchPredictionJob{}
		if _, err := store.GetMessage(ctx, w.store, resource.KindBatchPredictionJobs, name, job); err != nil {
			w.t.Fatal(err)
		}
		if want(job) {
			return job
		}
		if _, err := watch.Next(ctx); err != nil {
			w.t.Fatalf("the job is %v: %v", job, err)
		}
	}
}

func (w *world) ended(name string) *pb.BatchPredictionJob {
	w.t.Helper()
	return w.until(name, func(j *pb.BatchPredictionJob) bool { return batch.Finished(j.State) })
}

// results gives the lines of the two output files of a job.
func (w *world) results(job *pb.BatchPredictionJob) (results, failures []string) {
	w.t.Helper()
	found := w.objects.under(job.GetOutputInfo().GetGcsOutputDirectory() + "/")
	cut := func(name string) []string {
		text, ok := found[name]
		if !ok {
			w.t.Fatalf("there is no %s in %v", name, found)
		}
		return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	}
	return cut("prediction.results-00000-of-00001"), cut("prediction.errors_stats-00000-of-00001")
}

func (w *world) write(uri string, lines ...string) {
	w.objects.mu.Lock()
	defer w.objects.mu.Unlock()
	w.objects.all[uri] = strings.Join(lines, "\n")
}

func rows(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("[%d,2,3,4,5,%d]", i%7, i)
	}
	return all
}
