package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
)

type submitFlags struct {
	params              []string
	file, name, account string
	root                string
	project, location   string
	noCache, detach     bool
}

func submitCommand() *cobra.Command {
	var f submitFlags
	cmd := &cobra.Command{
		Use: "submit FILE", Short: "Run a compiled pipeline", Args: cobra.ExactArgs(1),
		Long: `submit runs a pipeline that kfp compiled to YAML or JSON and shows its tasks until it has ended: a line
a change, or on a terminal a table that is drawn in place. Parameters are read by the types that
the pipeline declares: 3, 0.5, true, text, and JSON for lists and structs.

Exit codes: 0 when the run succeeded, 1 when it failed, 130 when it was cancelled. Ctrl-C cancels the
run; once more leaves it alone.`,
		Example: "  tategu submit train.yaml -p epochs=3 -p 'layers=[64, 32]'\n  tategu submit train.yaml --params params.yaml --no-cache\n  run=$(tategu submit --detach train.yaml)",
		RunE: func(cmd *cobra.Command, args []string) error {
			return stopped(cmd, f.submit(cmd, args))
		},
	}
	s := cmd.Flags()
	s.StringArrayVarP(&f.params, "param", "p", nil, "parameter NAME=VALUE (repeatable)")
	s.StringVar(&f.file, "params", "", "YAML or JSON file of parameters; --param wins over it")
	s.StringVar(&f.name, "name", "", "display name of the run (default: the pipeline's)")
	s.BoolVar(&f.noCache, "no-cache", false, "run every task, also one that ran before with the same inputs")
	s.StringVar(&f.account, "service-account", "", "service account to run as (default: the project's)")
	s.StringVar(&f.root, "root", "", "gs://BUCKET/PREFIX that outputs are below (default: the pipeline's)")
	s.StringVar(&f.project, "project", "", "project of the run (default: the server's)")
	s.StringVar(&f.location, "location", "", "location of the run (default: the server's)")
	s.BoolVarP(&f.detach, "detach", "d", false, "print the run's name and do not wait for it")
	s.String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

func (f *submitFlags) submit(cmd *cobra.Command, args []string) error {
	job, err := f.job(args[0])
	if err != nil {
		return err
	}
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	r := &runner{cmd: cmd, c: c}
	project, location := or(f.project, c.project), or(f.location, c.location)
	r.parent = "projects/" + project + "/locations/" + location
	if job.RuntimeConfig.GcsOutputDirectory == "" { // the API wants one; the bucket is the SDK's
		job.RuntimeConfig.GcsOutputDirectory = "gs://" + project + "-vertex-pipelines-" + location + "/output_artifacts"
	}
	return r.launch(job, f.detach)
}

// launch makes a run, and follows it.
func (r *runner) launch(job *pb.PipelineJob, detach bool) error {
	if err := r.create(resource.KindPipelineJobs, job); err != nil {
		return err
	}
	if detach {
		return r.print(r.name + "\n")
	}
	r.say("run %s", r.name)
	if page := r.c.page(r.name); page != "" {
		r.say("page %s", page)
	}
	return r.attend(&board{out: r.cmd.OutOrStdout(), terminal: isTerminal(r.cmd.OutOrStdout())})
}

// job reads the file and the parameters.
func (f *submitFlags) job(file string) (*pb.PipelineJob, error) {
	job, err := readPipeline(file)
	if err != nil {
		return nil, err
	}
	plan, err := pipeline.Parse(job.PipelineSpec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if job.RuntimeConfig == nil {
		job.RuntimeConfig = &pb.PipelineJob_RuntimeConfig{}
	}
	given, err := f.given(plan)
	if err != nil {
		return nil, err
	}
	if job.RuntimeConfig.ParameterValues == nil {
		job.RuntimeConfig.ParameterValues = map[string]*structpb.Value{}
	}
	for k, v := range given {
		if job.RuntimeConfig.ParameterValues[k], err = structpb.NewValue(v); err != nil {
			return nil, resource.Invalid("parameters", "parameter %q: %v", k, err)
		}
	}
	if _, err := plan.Parameters(job.RuntimeConfig); err != nil {
		return nil, err
	}
	job.RuntimeConfig.GcsOutputDirectory = or(f.root, or(job.RuntimeConfig.GcsOutputDirectory, plan.Root))
	if f.noCache {
		uncached(job.PipelineSpec)
	}
	job.DisplayName = or(f.name, or(job.DisplayName, plan.Name))
	job.ServiceAccount = or(f.account, job.ServiceAccount)
	return job, nil
}

// given are the parameters of the file, and of the command line over them.
func (f *submitFlags) given(plan *pipeline.Plan) (map[string]any, error) {
	values := map[string]any{}
	if f.file != "" {
		text, err := readFile(f.file)
		if err != nil {
			return nil, err
		}
		documents, err := parseYAML(f.file, text)
		if err != nil {
			return nil, err
		}
		if len(documents) > 0 {
			values = documents[0]
		}
	}
	text := map[string]string{}
	for _, p := range f.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, resource.Invalid("param", "--param %.80q is not NAME=VALUE", p).WithHint("write it as -p epochs=3")
		}
		text[name] = value
	}
	typed, err := plan.Given(text)
	if err != nil {
		return nil, err
	}
	maps.Copy(values, typed)
	return values, nil
}

// readPipeline reads what kfp compiles: a pipeline spec, with a second document of
// platforms where a pipeline has some, or a whole job as older compilers wrote it.
func readPipeline(file string) (*pb.PipelineJob, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	return decodePipeline(file, text)
}

// decodePipeline is readPipeline for the content of a file.
func decodePipeline(file string, text []byte) (*pb.PipelineJob, error) {
	documents, err := parseYAML(file, text)
	if err != nil {
		return nil, err
	}
	if len(documents) == 0 {
		return nil, resource.Invalid("file", "%s is empty", file)
	}
	whole, spec := documents[0], documents[0]
	inner, isJob := whole["pipelineSpec"].(map[string]any)
	if isJob {
		spec = inner
	}
	if spec["pipelineInfo"] == nil && spec["root"] == nil {
		return nil, resource.Invalid("file", "%s is not a compiled pipeline", file).WithHint("compile it: kfp dsl compile --py pipeline.py --output pipeline.yaml")
	}
	for _, more := range documents[1:] {
		spec["platforms"] = more["platforms"]
	}
	if !isJob {
		whole = map[string]any{"pipelineSpec": spec}
	}
	if text, err = json.Marshal(whole); err != nil {
		return nil, resource.Invalid("file", "%s: %v", file, err)
	}
	if err := pipeline.WeighJSON(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	job := &pb.PipelineJob{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, job); err != nil {
		return nil, resource.Invalid("file", "%s is not a pipeline job: %v", file, err)
	}
	return job, nil
}

// readFile reads a file that is no larger than a pipeline may be: YAML in memory
// takes many times its size.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, resource.Invalid("file", "%v", err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, pipeline.MaxSpec+1))
	if err != nil {
		return nil, resource.Invalid("file", "%v", err)
	}
	if len(text) > pipeline.MaxSpec {
		return nil, resource.Invalid("file", "%s has more than %d bytes; %d (16 MiB) is the most", file, pipeline.MaxSpec, pipeline.MaxSpec).
			WithHint("put large values into a bucket, and their URI into the pipeline")
	}
	return text, nil
}

// parseYAML reads the documents of a text, of which JSON is one.
func parseYAML(file string, text []byte) ([]map[string]any, error) {
	var out []map[string]any
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document map[string]any
		switch err := dec.Decode(&document); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, resource.Invalid("file", "%s is neither YAML nor JSON of the right form: %v", file, err)
		}
		if document != nil {
			out = append(out, document)
		}
	}
}

// uncached switches the cache off for every task, as the SDK does it.
func uncached(spec *structpb.Struct) {
	fields := func(s *structpb.Struct, name string) *structpb.Struct { return s.GetFields()[name].GetStructValue() }
	components := slices.Collect(maps.Values(fields(spec, "components").GetFields()))
	components = append(components, spec.GetFields()["root"])
	off := structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"enableCache": structpb.NewBoolValue(false)}})
	for _, c := range components {
		for _, task := range fields(fields(c.GetStructValue(), "dag"), "tasks").GetFields() {
			if t := task.GetStructValue(); t != nil {
				t.Fields["cachingOptions"] = off
			}
		}
	}
}
