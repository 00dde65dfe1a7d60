package torchserve_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"tategu/internal/torchserve"
)

// gpuHandler computes on the GPU that it was given, as the package's own handlers do.
const gpuHandler = `
import json, os
import torch

def handle(data, context):
    if not data:
        return None
    gpu = context.system_properties["gpu_id"]
    a = (torch.arange(250000, dtype=torch.float64, device="cuda:%s" % gpu) % 7).reshape(500, 500)
    total = int((a @ a).sum().item())
    return ["%d on %s" % (total, gpu)] * len(data)
`

// TestGPU: workers are forked from a parent that has torch loaded, each computes on
// the GPU that it was given, in turns where there are several, and so does the one
// after it when it dies.
func TestGPU(t *testing.T) {
	t.Parallel()
	path := os.Getenv("TATEGU_TEST_TORCHSERVE")
	if path == "" {
		t.Skip("TATEGU_TEST_TORCHSERVE names no Python with torch, torchserve and a GPU (make test-gpu)")
	}
	out, err := exec.CommandContext(t.Context(), path, "-c", "import torch; print(torch.cuda.device_count())").Output()
	if err != nil || strings.TrimSpace(string(out)) == "0" {
		t.Skipf("torch of %s sees no GPU: %s, %v", path, out, err)
	}
	w := start(t, configure(t, func(c *torchserve.Config) { c.GPUs = -1 }))
	writeArchive(t, w.store, "g.mar", map[string]string{"handler.py": gpuHandler, "MAR-INF/MANIFEST.json": manifest("g", "1.0", nil)})
	two := 2
	if _, err := w.Register(t.Context(), torchserve.Registration{URL: "g.mar", InitialWorkers: &two, Synchronous: true}); err != nil {
		t.Fatal(err)
	}
	found, err := w.Describe(t.Context(), "g", "", false)
	if err != nil || len(found) != 1 || len(found[0].Workers) != 2 {
		t.Fatalf("%+v, %v", found, err)
	}
	for _, one := range found[0].Workers {
		if one.GPU < 0 {
			t.Errorf("a worker has no GPU: %+v", one)
		}
		t.Logf("%+v", one)
	}
	for range 8 {
		got, err := w.ask(t.Context(), "g", "x")
		if err != nil || !strings.HasPrefix(got, "1124985487 on ") {
			t.Fatalf("%q, %v", got, err)
		}
	}
	process, err := os.FindProcess(found[0].Workers[0].PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		again, err := w.Describe(t.Context(), "g", "", false)
		return err == nil && len(again[0].Workers) == 2 && again[0].Workers[0].State == torchserve.WorkerReady && again[0].Workers[0].PID != found[0].Workers[0].PID
	})
	for range 8 {
		if got, err := w.ask(t.Context(), "g", "x"); err != nil || !strings.HasPrefix(got, "1124985487 on ") {
			t.Fatalf("%q, %v", got, err)
		}
	}
}
