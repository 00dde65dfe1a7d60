package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	api "tategu/internal/api/torchserve"
	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/torchserve"
)

// TorchVerb is the hidden verb by which a server starts replicas of TorchServe's
// archives: TorchVerb [--python PYTHON] --workers N ARCHIVE.
const TorchVerb = "torch-replica"

// TorchModels is what serves TorchServe's archives on endpoints.
type TorchModels struct {
	// Python is the path of an interpreter that has the packages torchserve and torch;
	// "" = python3 on the PATH.
	Python string `yaml:"python"`
}

func (m TorchModels) validate() error {
	if m.Python == "" {
		return nil
	}
	if !filepath.IsAbs(m.Python) {
		return resource.Invalid("torchserve.python", "torchserve.python is %q, which is not a full path", m.Python)
	}
	if _, err := os.Stat(m.Python); err != nil {
		return resource.Invalid("torchserve.python", "torchserve.python: %w", err)
	}
	return nil
}

// models gives what plans replicas; self is our own program.
func (m TorchModels) models(self string) modelformat.Torch {
	return modelformat.Torch{Program: func() ([]string, error) {
		python := m.Python
		if python == "" {
			found, err := exec.LookPath("python3")
			if err != nil {
				return nil, resource.Errorf(codes.FailedPrecondition, "there is no python3, which runs TorchServe's workers, on this machine").WithCause(resource.CauseDependency).
					WithHint("name a Python that has the packages torchserve and torch in torchserve.python of tategu.yaml")
			}
			python = found
		}
		return []string{self, TorchVerb, "--python", python}, nil
	}}
}

// TorchReplica serves one archive on a loopback port, for the replica set of a server:
// TorchServe's inference routes, where the model is called "model" and takes and gives
// {"instances": [...]} and {"predictions": [...]}, as Vertex AI's images for PyTorch do.
// Of an archive that is a workflow, each instance goes through its graph by itself.
type TorchReplica struct {
	Archive string // path of the file
	Port    string
	Python  string
	Workers int    // at most, by load; and the cores that they have
	Work    string // folder of its own
	Key     string // of who may manage it; "" = nobody
	Log     *slog.Logger
}

// Run serves until ctx is done. It fails when the model has no worker at the start.
func (t *TorchReplica) Run(ctx context.Context) error {
	c := torchserve.Defaults()
	c.Python, c.Work, c.ModelStore = t.Python, t.Work, filepath.Dir(t.Archive)
	c.Envelope, c.Requirements = "json", true
	c.DefaultWorkers, c.DefaultMost, c.Cores = 1, t.Workers, t.Workers
	c.MaxResponse, c.Listen.MaxRequest = maxTorchBody, maxTorchBody // the platform has limits of its own
	load, isWorkflow := []string{modelformat.TorchModel + "=" + filepath.Base(t.Archive)}, modelformat.IsWorkflow(t.Archive)
	if c.BareNodes = true; isWorkflow {
		c.LoadWorkflows = load
	} else {
		c.LoadModels = load
	}
	metrics := api.NewMetrics(api.MetricsConfig{Mode: api.ModePrometheus, Definitions: api.Definitions(), Detect: true, Log: t.Log}) // nobody configures definitions there
	c.Listen.ModelAPI = true
	engine, err := torchserve.New(c, torchserve.Deps{Log: t.Log, Metrics: metrics, Objects: cloudObjects{}, HTTP: &http.Client{}})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group.Go(func() error { return engine.Run(serving) })
	group.Go(func() error {
		defer end() // after the requests that go on: they need its workers
		select {
		case <-engine.Started():
		case <-ctx.Done():
			return nil
		}
		if err := engine.StartError(); err != nil {
			return err
		}
		served := api.New(c.Listen, api.Deps{Engine: engine, Metrics: metrics, Log: t.Log})
		manager, err := newTorchManager(engine, served, t.Key)
		if err != nil {
			return err
		}
		inference := served.Inference()
		if manager.deployed = "models"; isWorkflow {
			manager.deployed, inference = "workflows", served.Instances(modelformat.TorchInstances, modelformat.TorchModel)
		}
		return t.serve(ctx, manager.beside(inference))
	})
	return group.Wait()
}

// maxTorchBody is that of TorchServe's protocol with its workers.
const maxTorchBody = 1 << 30

func (t *TorchReplica) serve(ctx context.Context, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", t.Port))
	if err != nil {
		return fmt.Errorf("listen for predictions: %w", err)
	}
	end := serveHTTP(l, h, t.Log)
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		done <- end.shutdown(last)
	}()
	if err := end.serve(); err != nil {
		return err
	}
	return errors.Join(<-done)
}
