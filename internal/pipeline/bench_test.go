package pipeline_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/access"
	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/identity"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == process.Verb {
		syscall.Exit(process.Main(os.Args[2:])) // os.Exit of the race detector takes a second
	}
	goleak.VerifyTestMain(m)
}

const jobParent = "projects/p/locations/us-central1"

// bench is an engine over a real store, real objects and some runtime.
type bench struct {
	t       *testing.T
	store   *sqlite.Store
	objects *blob.Store
	guarded *access.Objects
	runtime runtime.Runtime
	log     *slog.Logger
	secrets pipeline.Secrets
	runs    int    // submitted so far
	stop    func() // ends the engine as a killed process would, save for its goroutines
}

// newBench opens the parts; makeRuntime sees the object store.
func newBench(t *testing.T, makeRuntime func(b *bench) runtime.Runtime) *bench {
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
	b := &bench{t: t, store: st, objects: blob.New(st, content, time.Now), log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	b.guarded = access.New(b.objects, authority)
	b.runtime = makeRuntime(b)
	b.start()
	return b
}

// start runs an engine until stop.
func (b *bench) start() {
	b.t.Helper()
	volumes, _ := b.runtime.(runtime.Volumes) // the fake has none
	engine := pipeline.New(pipeline.Config{Store: b.store, Objects: func(as identity.Account) pipeline.Objects { return b.guarded.As(as) }, Runtime: b.runtime, Volumes: volumes, Secrets: b.secrets, Launcher: "launcher", Log: b.log, Now: time.Now})
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("engine: %v", err)
		}
	})
	b.t.Cleanup(b.stop)
}

// processRuntime runs real programs; environments are kept between test runs.
func processRuntime(t *testing.T) func(b *bench) runtime.Runtime {
	t.Helper()
	return func(b *bench) runtime.Runtime {
		cache := os.Getenv("TATEGU_TEST_CACHE")
		if cache == "" {
			cache = filepath.Join(os.TempDir(), "tategu-test-cache")
		}
		r, err := process.New(process.Config{
			Dir: filepath.Join(b.t.TempDir(), "workloads"), Volumes: filepath.Join(b.t.TempDir(), "volumes"), CacheDir: cache, Files: b.guarded, Logs: b.objects,
			Images: []runtime.ImageRule{
				{Match: "alpine*", Command: []string{"env"}},
				{Match: "jetbrainsinfra/jq", Command: []string{"env"}}, // jq of the host
				{Match: "*python-311*", Python: "3.11", PythonMatch: "any"},
				{Match: "*python*", Python: "3.11", PythonMatch: "any"},
			},
			Log: b.log, Now: time.Now,
		})
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() {
			b.stop()
			_ = r.Close()
		})
		return r
	}
}

// needPython skips when lightweight components cannot run.
func needPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("uv"); err != nil {
		t.Skip("uv is not on PATH")
	}
	if testing.Short() {
		t.Skip("-short: makes Python environments")
	}
}

// submit writes a job row as the API does.
func (b *bench) submit(id string, ir []byte, params map[string]any) string {
	b.t.Helper()
	return b.submitOf("", id, ir, params)
}

// submitScheduled submits a run of a schedule.
func (b *bench) submitScheduled(id string, ir []byte) string {
	b.t.Helper()
	return b.submitOf(jobParent+"/schedules/1", id, ir, nil)
}

func (b *bench) submitOf(schedule, id string, ir []byte, params map[string]any) string {
	b.t.Helper()
	spec := &structpb.Struct{}
	if err := protojson.Unmarshal(ir, spec); err != nil {
		b.t.Fatal(err)
	}
	name := jobParent + "/pipelineJobs/" + id
	b.runs++
	job := &pb.PipelineJob{
		Name: name, ScheduleName: schedule, PipelineSpec: spec, State: pb.PipelineState_PIPELINE_STATE_PENDING, CreateTime: timestamppb.Now(),
		Labels:        map[string]string{pipeline.RunNumberLabel: strconv.Itoa(b.runs)},
		RuntimeConfig: &pb.PipelineJob_RuntimeConfig{GcsOutputDirectory: "gs://artifacts/root", ParameterValues: map[string]*structpb.Value{}},
	}
	for k, v := range params {
		value, err := structpb.NewValue(v)
		if err != nil {
			b.t.Fatal(err)
		}
		job.RuntimeConfig.ParameterValues[k] = value
	}
	b.update(func(tx store.Tx) error {
		return store.PutMessage(b.t.Context(), tx, store.Row{Kind: resource.KindPipelineJobs, Key: name, Parent: jobParent, State: job.State.String()}, job)
	})
	return name
}

// object writes an object, and its bucket.
func (b *bench) object(uri, content string) {
	b.t.Helper()
	bucket, _, _ := strings.Cut(strings.TrimPrefix(uri, "gs://"), "/")
	if err := b.objects.EnsureBucket(b.t.Context(), "p", bucket); err != nil {
		b.t.Fatal(err)
	}
	if err := b.objects.WriteObject(b.t.Context(), uri, "text/plain", []byte(content)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) update(fn func(tx store.Tx) error) {
	b.t.Helper()
	if err := b.store.Update(b.t.Context(), fn); err != nil {
		b.t.Fatal(err)
	}
}

// cancel asks for the end of a job, as the API does.
func (b *bench) cancel(name string) {
	b.t.Helper()
	b.update(func(tx store.Tx) error {
		job := &pb.PipelineJob{}
		row, err := store.GetMessage(b.t.Context(), tx, resource.KindPipelineJobs, name, job)
		if err != nil {
			return err
		}
		job.State = pb.PipelineState_PIPELINE_STATE_CANCELLING
		row.State = job.State.String()
		return store.PutMessage(b.t.Context(), tx, row, job)
	})
}

// wait gives the job once it has ended.
func (b *bench) wait(name string) *pb.PipelineJob {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Minute)
	defer cancel()
	w := b.store.Watch(resource.KindPipelineJobs)
	defer w.Close()
	for {
		job := &pb.PipelineJob{}
		if _, err := store.GetMessage(ctx, b.store, resource.KindPipelineJobs, name, job); err != nil {
			b.t.Fatal(err)
		}
		if pipeline.Finished(job.State) {
			return job
		}
		if _, err := w.Next(ctx); err != nil {
			b.t.Fatalf("job %s is still %s: %v\n%v", name, job.State, err, b.tasks(name))
		}
	}
}

// tasks gives the tasks of a job by path.
func (b *bench) tasks(name string) map[string]pipeline.Task {
	b.t.Helper()
	rows, err := b.store.List(b.t.Context(), store.Query{Kind: pipeline.KindTasks, Parent: name})
	if err != nil {
		b.t.Fatal(err)
	}
	tasks := map[string]pipeline.Task{}
	for _, row := range rows {
		var task pipeline.Task
		if err := json.Unmarshal(row.Data, &task); err != nil {
			b.t.Fatal(err)
		}
		tasks[task.Path] = task
	}
	return tasks
}

func noConditions() blob.Conditions { return blob.Conditions{} }
