package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

const waitingHandler = `
import os, time
def handle(data, context):
    for row in data or []:
        folder = bytes(row["body"]).decode()
        open(folder + "/begun", "w").close()
        while not os.path.exists(folder + "/done"):
            time.sleep(0.01)
    return data and ["done" for row in data]
`

// TestTorchServeEnds: a request that goes on when the server is told to end is answered.
func TestTorchServeEnds(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 is installed, which runs the workers")
	}
	standin, err := filepath.Abs("../torchserve/testdata/standin")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ts") //nolint:usetesting // short: names of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for path, text := range map[string]string{
		"m/handler.py": waitingHandler, "m/MAR-INF/MANIFEST.json": `{"model": {"modelName": "m", "modelVersion": "1.0", "handler": "handler.py:handle"}}`,
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	c := torchserve.Defaults()
	c.ModelStore, c.Work, c.Python, c.GPUs, c.DefaultWorkers, c.LoadModels = dir, filepath.Join(dir, "work"), python, 0, 1, []string{"m"}
	c.Environment = append(os.Environ(), "PYTHONPATH="+standin, "PYTHONDONTWRITEBYTECODE=1")
	c.Listen.Inference, c.Listen.Management, c.Listen.MetricsAddress = "unix:"+dir+"/i", "unix:"+dir+"/i", "unix:"+dir+"/i"
	c.Listen.GRPCInferencePort, c.Listen.GRPCManagementPort, c.Listen.MetricsMode = 0, 0, "prometheus"
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ready, ended := make(chan struct{}), make(chan error, 1)
	s := &TorchServe{Config: c, Logs: dir, Metrics: dir, Log: slog.New(slog.DiscardHandler), Ready: func() { close(ready) }}
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	dial := func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", dir+"/i") }
	answer := make(chan string, 1)
	go func() { answer <- askWaiting(t, dial, dir) }()
	wait := func(holds func() bool) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for !holds() {
			<-tick.C
		}
	}
	wait(func() bool { _, err := os.Stat(filepath.Join(dir, "begun")); return err == nil })
	stop()
	wait(func() bool { // it listens no more
		conn, err := dial(t.Context())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	if err := os.WriteFile(filepath.Join(dir, "done"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "200 OK done" {
		t.Errorf("the answer is %s", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func askWaiting(t *testing.T, dial func(context.Context) (net.Conn, error), dir string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, "http://ts/predictions/m", strings.NewReader(dir))
	if err != nil {
		return err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return resp.Status + " " + string(text)
}
