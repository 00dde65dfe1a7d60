package process

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"tategu/internal/runtime"
	"tategu/internal/runtime/process/wrapper"
)

// recipe is what makes a zygote: two programs share one when all that Python and
// its modules read at their start is the same for both.
type recipe struct {
	base    environment
	dir     string   // that stands for the workload's own in variables
	env     []string // without private ones
	private []string // names of variables that differ from task to task
	bare    bool     // nothing but kfp beforehand
	kfp     string   // the executor's module; "" = a script
	imports []string // what to load: of a program, what it would like
}

// newRecipe takes it from how a cold start is described. The mark of a workload is
// not part of it, nor are names of credentials and what pipelines say of their run.
func newRecipe(base environment, dir string, s wrapper.Spec, perTask []string, python runtime.Python, i importer) recipe {
	script := python.Script
	r := recipe{base: base, dir: dir, bare: len(python.Preload) == 0 && i.touches(script)}
	for _, v := range s.Env {
		name, value, _ := strings.Cut(v, "=")
		own := slices.Contains(perTask, name)
		if own || strings.Contains(value, dir) && name != gcsVariable { // our hook's alone
			r.private = append(r.private, name)
		}
		if !own && name != wrapper.DirVariable {
			r.env = append(r.env, v)
		}
	}
	if s.Command[1] == "-m" {
		r.kfp = s.Command[2]
		r.imports = []string{r.kfp, rehearsal}
	}
	if !r.bare {
		for _, entry := range slices.Concat(i.imports(script), python.Preload) {
			if !slices.Contains(r.imports, entry) {
				r.imports = append(r.imports, entry)
			}
		}
	}
	return r
}

// environment is that of a zygote whose own directory is dir.
func (r recipe) environment(dir string) []string {
	env := make([]string, len(r.env))
	for i, v := range r.env {
		env[i] = strings.ReplaceAll(v, r.dir, dir)
	}
	return env
}

// key is the same for all whose programs can be forked from one zygote.
func (r recipe) key() string {
	h := sha256.New()
	for _, part := range slices.Concat([]string{r.base.dir, r.base.python, r.kfp, map[bool]string{true: "bare"}[r.bare]}, r.environment("\x00"), r.private) {
		_, _ = h.Write([]byte(part)) // a hash takes all
		_, _ = h.Write([]byte{0, 0xff})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// perTask names the variables that are another's for every program.
func perTask(credentials map[string]string) []string {
	// The labels of a run are read by kfp's executor when it runs, not before, and what
	// a model's server is told of its place by the server.
	return append(slices.Sorted(maps.Keys(credentials)), "VERTEX_AI_PIPELINES_RUN_LABELS", "PORT", "AIP_HTTP_PORT",
		"AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "AIP_STORAGE_URI", "AIP_ENDPOINT_ID", "AIP_DEPLOYED_MODEL_ID", "AIP_MODEL_NAME", "AIP_VERSION_NAME",
		"AIP_PROJECT_NUMBER", "AIP_MACHINE_TYPE", "AIP_ACCELERATOR_TYPE")
}
