// Package launch does what the launchers of google-cloud-pipeline-components do: it
// makes a job, a model or an endpoint through the platform's own API, waits for the
// end, and writes what came of it where the pipeline looks for it. It runs as a task
// of a pipeline, with the rights of the task; `tategu launch` is its command line.
//
// What it makes has an id that follows from the task, so that a task which is started
// again finds what it had made (resource.IDHeader).
package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
)

// Config is one launch.
type Config struct {
	API    *API
	Module string   // of google-cloud-pipeline-components
	Args   []string // as the component gives them
	// Task names the task of the pipeline, and Attempt says which start of it this is,
	// from 1. "" stands for no task: then what is made has a new id.
	Task    string
	Attempt int
	Labels  string    // of the run, as JSON: VERTEX_AI_PIPELINES_RUN_LABELS
	GCS     string    // the directory that is /gcs, "" where it is mounted
	Log     io.Writer // what happens, one line each
}

// launcher is a launch that has begun.
type launcher struct {
	Config
	args gcpc.Arguments
	in   gcpc.ExecutorInput // of components with artifacts
	seed string
}

// Run does all of it. Its error is also written to executor_error.json beside the
// outputs, where the pipeline reads why the task failed.
func Run(ctx context.Context, cfg Config) error {
	l := &launcher{Config: cfg, seed: cfg.Task}
	if l.seed == "" {
		l.seed = resource.RandomID()
	}
	l.Attempt = max(l.Attempt, 1)
	api := *cfg.API
	api.Away = func(err error) { l.say("%s; trying again", err.Error()) }
	l.API = &api
	err := l.launch(ctx)
	if err == nil {
		return nil
	}
	if unwritten := l.writeFault(err); unwritten != nil {
		return fmt.Errorf("%w (and this could not be written down: %s)", err, unwritten.Error())
	}
	return err
}

func (l *launcher) launch(ctx context.Context) (err error) {
	if l.args, err = gcpc.ParseArguments(l.Module, l.Args); err != nil {
		return err
	}
	if l.args.ExecutorInput != "" {
		if l.in, err = gcpc.ParseExecutorInput(l.args.ExecutorInput); err != nil {
			return err
		}
	}
	switch strings.TrimPrefix(l.Module, gcpc.Prefix) {
	case gcpc.CustomJob, gcpc.CustomJobPreview:
		return l.customJob(ctx)
	case gcpc.BatchPrediction:
		return l.batchJob(ctx)
	case gcpc.UploadModel:
		return l.uploadModel(ctx)
	case gcpc.GetModel:
		return l.getModel(ctx)
	case gcpc.DeleteModel:
		return l.deleteModel(ctx)
	case gcpc.CreateEndpoint:
		return l.createEndpoint(ctx)
	case gcpc.DeleteEndpoint:
		return l.deleteEndpoint(ctx)
	case gcpc.DeployModel:
		return l.deployModel(ctx)
	case gcpc.UndeployModel:
		return l.undeployModel(ctx)
	case gcpc.WaitResources:
		return l.waitFor(ctx)
	}
	return gcpc.Check(l.Module)
}

// id is that of what is made in a round: each attempt of a task that finds all it
// had made failed begins a further one.
func (l *launcher) id(round int) string { return resource.IDOf(l.seed + "\x00" + strconv.Itoa(round)) }

func (l *launcher) parent() (string, error) {
	part := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.:_-]*$`)
	if !part.MatchString(l.args.Project) || !part.MatchString(l.args.Location) {
		return "", resource.Invalid("--project", "--project is %.80q and --location %.80q: want the names of a project and a location", l.args.Project, l.args.Location)
	}
	return "projects/" + l.args.Project + "/locations/" + l.args.Location, nil
}

func (l *launcher) say(format string, args ...any) {
	fmt.Fprintf(l.Log, format+"\n", args...) //nolint:errcheck // nobody to tell
}

// local gives the file that a path below /gcs stands for.
func (l *launcher) local(name string) string {
	if rest, ok := strings.CutPrefix(name, "/gcs/"); ok && l.GCS != "" {
		return filepath.Join(l.GCS, rest)
	}
	return name
}

func (l *launcher) write(name string, text []byte) error {
	name = l.local(name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// made writes gcp_resources.
func (l *launcher) made(typ, name string) error {
	uri := gcpc.URIOf(first(gcpc.LocationOf(name), l.args.Location), name)
	return l.write(l.args.GCPResources, gcpc.FormatResources(gcpc.Resource{Type: typ, URI: uri}))
}

// artifact writes the executor output with one artifact that stands for a resource.
func (l *launcher) artifact(output, name string) error {
	return l.outputs(map[string]gcpc.Made{output: {
		URI: gcpc.URIOf(gcpc.LocationOf(name), name), Metadata: map[string]any{"resourceName": name},
	}})
}

func (l *launcher) outputs(made map[string]gcpc.Made) error {
	text, err := l.in.Output(made)
	if err != nil {
		return err
	}
	return l.write(l.in.Outputs.OutputFile, text)
}

// writeFault tells the pipeline why the launch failed.
func (l *launcher) writeFault(err error) error {
	dir := path.Dir(first(l.args.GCPResources, l.in.Outputs.OutputFile))
	if dir == "." {
		return nil // by hand, without outputs
	}
	text, jsonErr := json.Marshal(gcpc.FaultOf(err))
	return errors.Join(jsonErr, l.write(dir+"/"+gcpc.FaultFile, text))
}

func cancelled(what string) error {
	return resource.Errorf(codes.Canceled, "the task was cancelled; %s was told to stop", what)
}
