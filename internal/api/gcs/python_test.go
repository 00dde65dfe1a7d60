package gcs_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
)

// TestPythonClient runs the unmodified google-cloud-storage against the handler.
func TestPythonClient(t *testing.T) {
	t.Parallel()
	python := os.Getenv("TATEGU_TEST_PYTHON")
	if python == "" {
		t.Skip("TATEGU_TEST_PYTHON names no Python with google-cloud-storage")
	}
	for _, script := range []string{"client", "transfer"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			runPython(t, python, "testdata/"+script+".py")
		})
	}
}

func runPython(t *testing.T, python, script string) {
	t.Helper()
	h, _ := newHandler(t)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	cmd := exec.CommandContext(t.Context(), python, script)
	cmd.Env = append(os.Environ(), "STORAGE_EMULATOR_HOST="+srv.URL, "PYTHONDONTWRITEBYTECODE=1", "NO_PROXY=127.0.0.1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
