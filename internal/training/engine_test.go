package training_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/training"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

const parent = "projects/p/locations/us-central1"

// bench is a store, a runtime and an engine, as the server has them.
type bench struct {
	t     *testing.T
	store store.Store
	files *runtimetest.Files
	logs  *runtimetest.Logs
	cfg   process.Config

	stop func()
}

func newBench(t *testing.T, objects map[string]string) *bench {
	t.Helper()
	if objects == nil {
		objects = map[string]string{}
	}
	dir := t.TempDir()
	st, err := sqlite.Open(t.Context(), filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: st, files: runtimetest.NewFiles(objects), logs: runtimetest.NewLogs()}
	b.cfg = process.Config{
		Dir: filepath.Join(dir, "w"), CacheDir: filepath.Join(dir, "c"), Files: b.files, Logs: b.logs,
		Images: []runtime.ImageRule{{Match: "sh", Command: []string{"sh", "-c"}}, {Match: "*-docker.pkg.dev/vertex-ai/*", Python: "3.11"}},
		Log:    slog.New(slog.DiscardHandler), Now: time.Now,
	}
	if uv, err := exec.LookPath("uv"); err == nil {
		b.cfg.UV = uv
	}
	b.up()
	t.Cleanup(func() {
		b.down()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// up starts the runtime and the engine; down ends both, programs stay.
func (b *bench) up() {
	b.t.Helper()
	rt, err := process.New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	e := training.New(training.Config{Store: b.store, Runtime: rt, Log: b.cfg.Log, Now: time.Now})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
		if err := rt.Close(); err != nil {
			b.t.Error(err)
		}
	}
}

func (b *bench) down() { b.stop() }

func (b *bench) put(job *pb.CustomJob) {
	b.t.Helper()
	err := b.store.Update(b.t.Context(), func(tx store.Tx) error {
		return store.PutMessage(b.t.Context(), tx, store.Row{Kind: resource.KindCustomJobs, Key: job.Name, Parent: parent, State: job.State.String()}, job)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// await waits until the job is in the state.
func (b *bench) await(name string, is func(*pb.CustomJob) bool) *pb.CustomJob {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Minute)
	defer cancel()
	w := b.store.Watch(resource.KindCustomJobs)
	defer w.Close()
	for {
		job := &pb.CustomJob{}
		if _, err := store.GetMessage(ctx, b.store, resource.KindCustomJobs, name, job); err != nil {
			b.t.Fatal(err)
		}
		if is(job) {
			return job
		}
		if _, err := w.Next(ctx); err != nil {
			b.t.Fatalf("%v; the job is %v", err, job)
		}
	}
}

func finished(j *pb.CustomJob) bool { return training.Finished(j.State) }

func in(state pb.JobState) func(*pb.CustomJob) bool {
	return func(j *pb.CustomJob) bool { return j.State == state }
}

func job(id string, pools ...*pb.WorkerPoolSpec) *pb.CustomJob {
	return &pb.CustomJob{
		Name: parent + "/customJobs/" + id, DisplayName: id, State: pb.JobState_JOB_STATE_QUEUED,
		JobSpec: &pb.CustomJobSpec{
			WorkerPoolSpecs: pools, ServiceAccount: "default@p.iam.tategu.internal",
			BaseOutputDirectory: &pb.GcsDestination{OutputUriPrefix: "gs://out/base"},
		},
	}
}

func pool(replicas int64, script string, env ...*pb.EnvVar) *pb.WorkerPoolSpec {
	return &pb.WorkerPoolSpec{
		ReplicaCount: replicas, MachineSpec: &pb.MachineSpec{MachineType: "n1-standard-4"},
		Task: &pb.WorkerPoolSpec_ContainerSpec{ContainerSpec: &pb.ContainerSpec{ImageUri: "sh", Command: []string{script}, Env: env}},
	}
}

func TestSucceeds(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	j := job("1", pool(1, `echo "$AIP_MODEL_DIR $AIP_CHECKPOINT_DIR $AIP_TENSORBOARD_LOG_DIR $CLOUD_ML_JOB_ID $CLOUD_ML_PROJECT_ID $MINE"; echo model > /gcs/out/base/model/m.txt`,
		&pb.EnvVar{Name: "MINE", Value: "given"}))
	b.put(j)
	got := b.await(j.Name, finished)
	if got.State != pb.JobState_JOB_STATE_SUCCEEDED || got.Error != nil || got.StartTime == nil || got.EndTime == nil || got.JobSpec.WorkerPoolSpecs[0].MachineSpec.MachineType != "n1-standard-4" {
		t.Fatalf("job %v", got)
	}
	want := "gs://out/base/model/ gs://out/base/checkpoints/ gs://out/base/logs/ 1 p given\n"
	if text := b.logs.Text("customjob-1-0-0"); text != want {
		t.Errorf("the program saw %q, want %q", text, want)
	}
	if b.files.Content("gs://out/base/model/m.txt") != "model\n" {
		t.Error("the model was not published")
	}
}

func TestFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	j := job("2", pool(1, "echo the reason; exit 3"))
	b.put(j)
	got := b.await(j.Name, finished)
	if got.State != pb.JobState_JOB_STATE_FAILED {
		t.Fatalf("job %v", got)
	}
	for _, want := range []string{"exit code 3", "user code", "the reason"} {
		if !strings.Contains(got.GetError().GetMessage(), want) {
			t.Errorf("the error has no %q: %v", want, got.Error)
		}
	}
	info := &errdetails.ErrorInfo{}
	if len(got.Error.GetDetails()) == 0 || got.Error.Details[0].UnmarshalTo(info) != nil || info.Metadata["exitCode"] != "3" {
		t.Errorf("the error's details do not tell the exit code: %v", got.Error)
	}
	unknown := job("3", pool(1, "true"))
	unknown.JobSpec.WorkerPoolSpecs[0].GetContainerSpec().ImageUri = "nobody/knows:1"
	b.put(unknown)
	if got := b.await(unknown.Name, finished); got.State != pb.JobState_JOB_STATE_FAILED || !strings.Contains(got.Error.Message, "images:") {
		t.Fatalf("job %v", got)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	j := job("4", pool(1, "echo up; sleep 1000"))
	b.put(j)
	running := b.await(j.Name, in(pb.JobState_JOB_STATE_RUNNING))
	running.State = pb.JobState_JOB_STATE_CANCELLING
	b.put(running)
	if got := b.await(j.Name, finished); got.State != pb.JobState_JOB_STATE_CANCELLED || codes.Code(got.GetError().GetCode()) != codes.Canceled {
		t.Fatalf("job %v", got)
	}
	early := job("5", pool(1, "echo must not run"))
	early.State = pb.JobState_JOB_STATE_CANCELLING
	b.put(early)
	if got := b.await(early.Name, finished); got.State != pb.JobState_JOB_STATE_CANCELLED || b.logs.Text("customjob-5-0-0") != "" {
		t.Fatalf("job %v", got)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	j := job("6", pool(1, "sleep 1000"))
	j.JobSpec.Scheduling = &pb.Scheduling{Timeout: durationpb.New(100 * time.Millisecond)}
	b.put(j)
	if got := b.await(j.Name, finished); got.State != pb.JobState_JOB_STATE_FAILED || codes.Code(got.GetError().GetCode()) != codes.DeadlineExceeded {
		t.Fatalf("job %v", got)
	}
}

// TestRestart: the server goes and comes back; the program runs once.
func TestRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	flag := filepath.Join(t.TempDir(), "go")
	j := job("7", pool(1, "echo start; while [ ! -e "+flag+" ]; do sleep 0.02; done; echo end"))
	b.put(j)
	b.await(j.Name, in(pb.JobState_JOB_STATE_RUNNING))
	b.down()
	if err := exec.CommandContext(t.Context(), "touch", flag).Run(); err != nil {
		t.Fatal(err)
	}
	b.up()
	if got := b.await(j.Name, finished); got.State != pb.JobState_JOB_STATE_SUCCEEDED {
		t.Fatalf("job %v", got)
	}
	if text := b.logs.Text("customjob-7-0-0"); text != "start\nend\n" {
		t.Fatalf("log %q", text)
	}
}

// TestPutAway: a server is killed after the end of a job was written and before
// its working directory went; the next one removes it, and nobody else's.
func TestPutAway(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	j, other := job("20", pool(1, "true")), job("21", pool(1, "sleep 1000"))
	b.put(other)
	b.await(other.Name, in(pb.JobState_JOB_STATE_RUNNING))
	b.down()
	rt, err := process.New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"customjob-20-0-0", "task-5-1"} {
		instance, err := rt.Start(t.Context(), runtime.Workload{ID: id, Command: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := instance.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := rt.Close(); err != nil {
		t.Fatal(err)
	}
	j.State = pb.JobState_JOB_STATE_SUCCEEDED
	b.put(j)
	b.up()
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		left, err := os.ReadDir(b.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 2 && left[0].Name() == "customjob-21-0-0" && left[1].Name() == "task-5-1" {
			break
		}
	}
	other.State = pb.JobState_JOB_STATE_CANCELLING
	b.put(other)
	b.await(other.Name, finished)
}

func TestCluster(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	script := `echo "$CLUSTER_SPEC"; echo "$TF_CONFIG"; echo "rank $RANK of $WORLD_SIZE at $MASTER_ADDR"`
	j := job("8", pool(1, script+`; sleep 0.2`), pool(2, script), &pb.WorkerPoolSpec{})
	b.put(j)
	if got := b.await(j.Name, finished); got.State != pb.JobState_JOB_STATE_SUCCEEDED {
		t.Fatalf("job %v", got)
	}
	chief, worker := b.logs.Text("customjob-8-0-0"), b.logs.Text("customjob-8-1-1")
	if !strings.Contains(chief, `"task":{"type":"chief","index":0}`) || !strings.Contains(chief, "rank 0 of 3 at 127.0.0.1") {
		t.Errorf("chief %s", chief)
	}
	if !strings.Contains(worker, `"task":{"type":"workerpool1","index":1}`) || !strings.Contains(worker, "rank 2 of 3") || strings.Contains(worker, ":0\"") {
		t.Errorf("worker %s", worker)
	}
	bad := job("9", pool(1, "sleep 1000"), pool(1, "exit 4"))
	b.put(bad)
	if got := b.await(bad.Name, finished); got.State != pb.JobState_JOB_STATE_FAILED || !strings.Contains(got.Error.Message, "customjob-9-1-0") {
		t.Fatalf("job %v", got)
	}
}

// sdist is what the SDK's packager uploads for a local script.
func sdist(t *testing.T, task string) string {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	root := "aiplatform_custom_trainer_script-0.1/"
	for _, f := range [][2]string{
		{"setup.py", "from setuptools import find_packages, setup\nsetup(name='aiplatform_custom_trainer_script', version='0.1', packages=find_packages(), install_requires=(\"six==1.16.0\"))\n"},
		{"aiplatform_custom_trainer_script/__init__.py", ""},
		{"aiplatform_custom_trainer_script/task.py", task},
	} {
		if err := tw.WriteHeader(&tar.Header{Name: root + f[0], Mode: 0o644, Size: int64(len(f[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// TestLocalScript runs the two forms that CustomJob.from_local_script sends: a
// shell line for any image, a package spec for a prebuilt one.
func TestLocalScript(t *testing.T) {
	t.Parallel()
	object := "staging/aiplatform-2026-01-01-aiplatform_custom_trainer_script-0.1.tar.gz"
	b := newBench(t, map[string]string{"gs://" + object: sdist(t, "import six, sys\nopen('/gcs/out/base/model/' + sys.argv[1], 'w').write(six.__version__)\n")})
	if b.cfg.UV == "" {
		t.Skip("uv is not on this machine")
	}
	shell := job("10", &pb.WorkerPoolSpec{ReplicaCount: 1, Task: &pb.WorkerPoolSpec_ContainerSpec{ContainerSpec: &pb.ContainerSpec{
		ImageUri: "python:3.11",
		Command: []string{"sh", "-c", "pip install --upgrade pip && pip3 install -q --user /gcs/" + object +
			" && python3 -m aiplatform_custom_trainer_script.task shell"},
	}}})
	packaged := job("11", &pb.WorkerPoolSpec{ReplicaCount: 1, Task: &pb.WorkerPoolSpec_PythonPackageSpec{PythonPackageSpec: &pb.PythonPackageSpec{
		ExecutorImageUri: "us-docker.pkg.dev/vertex-ai/training/x:1", PackageUris: []string{"gs://" + object},
		PythonModule: "aiplatform_custom_trainer_script.task", Args: []string{"packaged"},
	}}})
	for name, j := range map[string]*pb.CustomJob{"shell": shell, "packaged": packaged} {
		b.put(j)
		got := b.await(j.Name, finished)
		if strings.Contains(got.GetError().GetMessage(), "Failed to establish a new connection") || strings.Contains(got.GetError().GetMessage(), "dependency") {
			t.Skip("no package index: " + got.Error.Message)
		}
		if got.State != pb.JobState_JOB_STATE_SUCCEEDED || b.files.Content("gs://out/base/model/"+name) != "1.16.0" {
			t.Fatalf("%s: %v", name, got)
		}
	}
}
