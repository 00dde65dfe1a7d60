package serving_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/modelformat"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/serving"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

const (
	project  = "projects/p/locations/us-central1"
	endpoint = project + "/endpoints/7"
)

// files are objects by gs:// URI.
type files map[string]string

// blind is an account that may read no objects.
const blind = "blind@p.iam.tategu.internal"

func (f files) as(account identity.Account) modelformat.Objects {
	if account.Email == blind {
		return denied{}
	}
	return f
}

// denied refuses as package access does.
type denied struct{}

func (denied) List(context.Context, string, blob.ListQuery) (blob.ListPage, error) {
	return blob.ListPage{}, resource.Errorf(codes.PermissionDenied, "%s may not list", blind).WithCause(resource.CauseInput)
}

func (denied) ReadObject(context.Context, string, string) (io.ReadCloser, error) {
	return nil, resource.Errorf(codes.PermissionDenied, "%s may not read", blind).WithCause(resource.CauseInput)
}

// Download gives programs nothing: those of tests do not read their artifacts.
func (files) Download(context.Context, identity.Account, string, string) error { return nil }

func (files) UploadFile(context.Context, identity.Account, string, string) error {
	return errors.New("nothing is uploaded")
}

func (files) MayWrite(context.Context, identity.Account, string) error { return nil }

func (f files) List(_ context.Context, bucket string, q blob.ListQuery) (blob.ListPage, error) {
	var page blob.ListPage
	for uri := range f {
		name, ok := strings.CutPrefix(uri, "gs://"+bucket+"/")
		if ok && strings.HasPrefix(name, q.Prefix) && !strings.Contains(strings.TrimPrefix(name, q.Prefix), "/") {
			page.Objects = append(page.Objects, blob.Object{Bucket: bucket, Name: name})
		}
	}
	return page, nil
}

func (f files) ReadObject(_ context.Context, bucket, name string) (io.ReadCloser, error) {
	uri := "gs://" + bucket + "/" + name
	text, ok := f[uri]
	if !ok {
		return nil, resource.NotFound(uri)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// world is an engine over a real store.
type world struct {
	t       *testing.T
	path    string
	store   store.Store
	engine  *serving.Engine
	runtime runtime.Runtime
	warm    *warmth // of the present engine
	fits    func(...runtime.Workload) error
	journal serving.Journal
	objects files
	torch   modelformat.Torch
	rights  serving.Rights
	random  int // what is drawn; negative = by chance
	stop    func()
	logs    slog.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	model, err := os.ReadFile("../modelformat/lightgbm/testdata/golden/regression.model.txt")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, path: filepath.Join(t.TempDir(), "t.db"), objects: files{
		"gs://b/good/model.txt": string(model), "gs://b/bad/model.txt": strings.Replace(string(model), "end of trees", "", 1),
	}}
	w.logs = slog.DiscardHandler
	w.open()
	w.put(resource.KindEndpoints, endpoint, &pb.Endpoint{Name: endpoint, DisplayName: "e"})
	w.model("native", &pb.Model{ArtifactUri: "gs://b/good", ContainerSpec: &pb.ModelContainerSpec{ImageUri: "tategu/lightgbm"}})
	return w
}

// warmth is a runtime.Warmer that knows for whom it keeps something.
type warmth struct {
	mu   sync.Mutex
	kept map[string]bool
}

func (o *warmth) KeepWarm(owner string, keep bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept[owner] = keep
}

func (o *warmth) keeps(owner string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept[owner]
}

// open starts the parts, as a server does; close ends them and keeps the rows.
func (w *world) open() {
	w.t.Helper()
	st, err := sqlite.Open(w.t.Context(), w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.store, w.warm = st, &warmth{kept: map[string]bool{}}
	w.engine = serving.New(serving.Config{
		Store: st, Objects: w.objects.as, Rights: w.rights, Journal: w.journal, Runtime: w.runtime, Warm: w.warm, Log: slog.New(w.logs), Now: time.Now, Limit: 20 * time.Second,
		HasImage: func(image string) bool { return image == "echo" }, Fits: w.fits, Torch: w.torch,
		Random: func(n int) int {
			if w.random < 0 {
				return rand.IntN(n)
			}
			return w.random
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	engine := w.engine
	go func() { done <- engine.Run(ctx) }()
	closed := false
	w.stop = func() {
		if closed {
			return
		}
		closed = true
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		if err := st.Close(); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(func() { w.stop() })
	if err := w.engine.Ready(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// withProcesses gives the world a runtime that starts programs.
func (w *world) withProcesses() *process.Runtime {
	w.t.Helper()
	w.stop()
	rt, err := process.New(process.Config{
		Dir: w.t.TempDir(), CacheDir: w.t.TempDir(), Log: slog.New(slog.DiscardHandler), Now: time.Now, NoMounts: true,
		Files: w.objects, Images: []runtime.ImageRule{{Match: "echo", Command: []string{"python3"}}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		w.stop()
		all, err := rt.List(context.Background())
		for _, in := range all {
			if err := in.Stop(context.Background(), 0); err != nil {
				w.t.Error(err)
			}
			if _, err := in.Wait(context.Background()); err != nil {
				w.t.Error(err)
			}
		}
		if err != nil {
			w.t.Error(err)
		}
		if err := rt.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.runtime = rt
	w.open()
	return rt
}

func (w *world) put(kind store.Kind, key string, m proto.Message) {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: kind, Key: key}, m)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) model(id string, m *pb.Model) {
	w.t.Helper()
	m.Name, m.VersionId, m.DisplayName = project+"/models/"+id, "1", "the "+id
	w.put(resource.KindModelVersions, resource.VersionName(m.Name, "1"), m)
}

// deploy writes the rows that the API writes and waits for the operation.
func (w *world) deploy(id, model string, change func(*pb.DeployModelRequest)) *longrunningpb.Operation {
	w.t.Helper()
	req := &pb.DeployModelRequest{Endpoint: endpoint, DeployedModel: &pb.DeployedModel{Id: id, Model: project + "/models/" + model, ModelVersionId: "1"}}
	if change != nil {
		change(req)
	}
	key := resource.DeploymentKey(endpoint, id)
	var op *longrunningpb.Operation
	err := w.store.Update(w.t.Context(), func(tx store.Tx) (err error) {
		if op, err = operation.Start(w.t.Context(), tx, endpoint, nil); err != nil {
			return err
		}
		if err := tx.Put(w.t.Context(), store.Row{Kind: resource.KindDeploymentOps, Key: key, Data: []byte(op.Name)}); err != nil {
			return err
		}
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: resource.KindDeployments, Key: key, Parent: endpoint, State: resource.StateDeploying}, req)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.finished(op.Name)
}

func (w *world) finished(name string) *longrunningpb.Operation {
	w.t.Helper()
	watch := w.store.Watch(operation.Kind)
	defer watch.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	for {
		op, err := operation.Get(ctx, w.store, name)
		if err != nil {
			w.t.Fatal(err)
		}
		if op.Done {
			return op
		}
		if _, err := watch.Next(ctx); err != nil {
			w.t.Fatalf("the operation did not end: %v", err)
		}
	}
}

// undeploy does what the API does and waits until the row is gone.
func (w *world) undeploy(id string) {
	w.t.Helper()
	key := resource.DeploymentKey(endpoint, id)
	watch := w.store.Watch(resource.KindDeployments)
	defer watch.Close()
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		row, err := tx.Get(w.t.Context(), resource.KindDeployments, key)
		if err != nil {
			return err
		}
		row.State = resource.StateUndeploying
		return tx.Put(w.t.Context(), row)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	for {
		if _, err := w.store.Get(ctx, resource.KindDeployments, key); resource.IsNotFound(err) {
			return
		}
		if _, err := watch.Next(ctx); err != nil {
			w.t.Fatalf("the row is still there: %v", err)
		}
	}
}

func (w *world) endpoint() *pb.Endpoint {
	w.t.Helper()
	e := &pb.Endpoint{}
	if _, err := store.GetMessage(w.t.Context(), w.store, resource.KindEndpoints, endpoint, e); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// leftovers are the rows that a failed or ended deployment must not leave.
func (w *world) leftovers() (keys []string) {
	w.t.Helper()
	for _, kind := range []store.Kind{resource.KindDeployments, resource.KindDeploymentOps} {
		rows, err := w.store.List(w.t.Context(), store.Query{Kind: kind})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, row := range rows {
			keys = append(keys, string(kind)+" "+row.Key)
		}
	}
	return keys
}

func (w *world) predict(body string) (*serving.Response, string, error) {
	w.t.Helper()
	resp, err := w.engine.Predict(w.t.Context(), endpoint, serving.Request{Body: []byte(body)})
	if err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		w.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		w.t.Fatal(err)
	}
	return resp, b.String(), nil
}

func newRequest(body string) serving.Request { return serving.Request{Body: []byte(body)} }

// programs lists what the runtime knows, in order.
func programs(t *testing.T, w *world) (ids []string) {
	t.Helper()
	all, err := w.runtime.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range all {
		ids = append(ids, in.ID())
	}
	slices.Sort(ids)
	return ids
}
