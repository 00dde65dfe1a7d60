package pipeline

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

var update = flag.Bool("update", false, "write the results into the test files")

// TestMachine runs the cases of testdata/machine: a pipeline, a script of events,
// and what the machine makes of them. Script lines:
//
//	end PATH NAME=JSON...   the program succeeded and wrote these parameters
//	fail PATH MESSAGE       it failed
//	miss PATH | hit PATH    a cache lookup answered; a hit gives what the last end of
//	                        this task in this script gave
//	found PATH NAME         the artifact that an importer wants exists; no NAME: it does not
//	due PATH                the pause before a retry is over
//	cancel                  the caller asked for the end
//	restart                 the process was killed; the rows are all that is left
func TestMachine(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/machine/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]string{}
			for _, f := range archive.Files {
				parts[f.Name] = string(f.Data)
			}
			got := play(t, parts)
			if *update {
				archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
				archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(parts["want"], got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func play(t *testing.T, parts map[string]string) string {
	t.Helper()
	plan := parsePlan(t, parts["pipeline.yaml"])
	r := run{
		name: "projects/p/locations/l/pipelineJobs/j", id: "j", project: "p", location: "l", number: "7",
		root: "gs://b/root", created: time.Unix(1_800_000_000, 0).UTC(), parameters: map[string]any{},
		artifacts: map[string][]Artifact{}, failFast: strings.Contains(parts["script"], "# fail fast"),
	}
	config := &pb.PipelineJob_RuntimeConfig{ParameterValues: map[string]*structpb.Value{}}
	if p := parts["params.json"]; p != "" {
		if err := json.Unmarshal([]byte(p), &config.ParameterValues); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if r.parameters, err = plan.Parameters(config); err != nil {
		t.Fatal(err)
	}
	p := &player{t: t, m: newMachine(plan, r), now: r.created, last: map[string]Values{}}
	p.send("start", began{})
	for line := range strings.Lines(parts["script"]) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			p.line(line)
		}
	}
	return p.out.String()
}

func parsePlan(t *testing.T, text string) *Plan {
	t.Helper()
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	ir, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := ParseJSON(ir)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

type player struct {
	t    *testing.T
	m    *machine
	now  time.Time
	out  strings.Builder
	last map[string]Values
}

func (p *player) line(line string) {
	p.t.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	path, rest, _ := strings.Cut(rest, " ")
	n := p.m.nodes[path]
	if n == nil && verb != "cancel" && verb != "restart" {
		p.t.Fatalf("%s: there is no task %q\n%s", line, path, p.out.String())
	}
	switch verb {
	case "end":
		o := outcome{files: map[string][]byte{}}
		for field := range strings.FieldsSeq(rest) {
			k, v, _ := strings.Cut(field, "=")
			o.files[k] = []byte(v)
		}
		p.send(line, ended{path: path, attempt: n.Attempt, outcome: o})
		p.last[path] = n.Outputs
	case "fail":
		p.send(line, ended{path: path, attempt: n.Attempt, outcome: outcome{exit: runtime.Exit{Code: 1, Message: rest, Cause: resource.CauseUserCode}}})
	case "miss":
		p.send(line, looked{path: path})
	case "hit":
		p.send(line, looked{path: path, entry: &cacheEntry{Task: "earlier", Outputs: newValues()}})
	case "found":
		p.send(line, found{path: path, name: rest})
	case "due":
		p.send(line, due{path: path})
	case "cancel":
		p.send(line, cancel{})
	case "restart":
		p.restart()
	default:
		p.t.Fatalf("unknown line %q", line)
	}
}

// restart makes a new machine of the rows alone.
func (p *player) restart() {
	p.t.Helper()
	p.m = restored(p.t, p.m)
	p.send("restart", began{})
}

// send prints what one event changes and asks for.
func (p *player) send(line string, ev event) {
	p.now = p.now.Add(time.Second)
	actions := p.m.step(p.now, ev)
	fmt.Fprintf(&p.out, "> %s\n", line)
	for _, n := range p.m.notes {
		if n.State == Pending && n.Attempt == 0 {
			continue
		}
		fmt.Fprintf(&p.out, "%s %s%s\n", printPath(n.Task), n.State, p.extra(n))
	}
	for _, a := range actions {
		switch a := a.(type) {
		case lookup:
			fmt.Fprintf(&p.out, "  look up %s\n", a.path)
		case start:
			fmt.Fprintf(&p.out, "  start %s attempt %d %s%s\n", a.path, a.attempt, encode(p.m.nodes[a.path].inputs.Parameters), artifactsOf(p.m.nodes[a.path]))
		case stop:
			fmt.Fprintf(&p.out, "  stop %s\n", a.path)
		case find:
			fmt.Fprintf(&p.out, "  find %s %s\n", a.path, a.want.URI)
		case wake:
			fmt.Fprintf(&p.out, "  wake %s in %s\n", a.path, a.at.Sub(p.now))
		}
	}
	p.m.notes = nil
	for _, a := range actions {
		if a, ok := a.(grow); ok {
			p.send("grown "+a.path, grown(a))
		}
	}
	if p.m.done() {
		fmt.Fprintf(&p.out, "  run %s %s\n", p.m.root.State, encode(p.m.root.Outputs.Parameters))
	}
}

func (p *player) extra(n note) string {
	s := ""
	if n.State.ok() {
		if out := p.m.nodes[n.Task].Outputs.Parameters; len(out) > 0 {
			s += " " + string(encode(out))
		}
	}
	if n.Reason != "" {
		s += ": " + n.Reason
	}
	if n.Failure != nil {
		s += ": " + n.Failure.Message
	}
	return s
}

// artifactsOf lists the input artifacts by the folder they are in, without ids.
func artifactsOf(n *node) string {
	var b strings.Builder
	for _, k := range sortedKeys(n.inputs.Artifacts) {
		fmt.Fprintf(&b, " %s:", k)
		for _, a := range n.inputs.Artifacts[k] {
			b.WriteString(" " + strings.TrimPrefix(a.URI, "gs://b/root/p/j/"))
		}
	}
	return b.String()
}

func printPath(path string) string {
	if path == "" {
		return "(run)"
	}
	return path
}
