package app

import (
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
)

// ONNX is what serves ONNX models.
type ONNX struct {
	// Runner is the path of the program tategu-runner; "" = beside our own binary, or on
	// the PATH.
	Runner string `yaml:"runner"`
	// Engine evaluates models that do not name one: onnxruntime, or tract.
	Engine string `yaml:"engine"`
	// Library is the path of the engine's shared library; "" = that of the Python package
	// of its name, which uv fetches into the cache.
	Library string `yaml:"library"`
}

func (o ONNX) validate() error {
	for name, path := range map[string]string{"runner": o.Runner, "library": o.Library} {
		if path == "" {
			continue
		}
		if !filepath.IsAbs(path) {
			return resource.Invalid("onnx."+name, "onnx.%s is %q, which is not a full path", name, path)
		}
		if _, err := os.Stat(path); err != nil {
			return resource.Invalid("onnx."+name, "onnx.%s: %w", name, err)
		}
	}
	if err := modelformat.CheckEngine(o.Engine); err != nil {
		return resource.Invalid("onnx.engine", "onnx.engine: %w", err)
	}
	return nil
}

// runnerName is the program's.
const runnerName = "tategu-runner"

func (o ONNX) modelRunner() modelformat.Runner {
	return modelformat.Runner{Program: o.program, Engine: o.Engine, Library: o.Library}
}

// program looks anew each time: it may be put there while the server runs.
func (o ONNX) program() (string, error) {
	if o.Runner != "" {
		return o.Runner, nil
	}
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		if beside := filepath.Join(filepath.Dir(self), runnerName); isProgram(beside) {
			return beside, nil
		}
	}
	if path, err := exec.LookPath(runnerName); err == nil {
		return filepath.Abs(path)
	}
	return "", resource.Errorf(codes.FailedPrecondition, "the program %s, which serves ONNX models, is not on this machine", runnerName).WithCause(resource.CauseDependency).
		WithHint("put it beside tategu or on the server's PATH (`make build` makes both), or name it in onnx.runner of tategu.yaml")
}

func isProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}
