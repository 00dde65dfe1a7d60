package torchserve_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

// handler does what the body of a request says; it runs under the stand-in and under
// the real worker.
const handler = `
import json, os, signal, sys, time
from ts.handler_utils.utils import send_intermediate_predict_response

GARBAGE = b"\x00\x00\x00\xc8this is no answer of any worker, however long one looks at it"

def handle(data, context):
    if not data:
        return None
    out = []
    for i, row in enumerate(data):
        body = row.get("body") or row.get("data") or b""
        word = body.decode() if isinstance(body, (bytes, bytearray)) else str(body)
        if context.get_request_header(i, "describe") == "True":
            out.append(json.dumps({"about": context.model_name}))
        elif word == "exit":
            print("I am leaving", flush=True)
            os._exit(3)
        elif word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "hang":
            time.sleep(600)
        elif word == "oom":
            raise MemoryError()
        elif word == "raise":
            raise ValueError("no good")
        elif word == "garbage":
            context.cl_socket.sendall(GARBAGE)
            time.sleep(600)
        elif word == "short":
            return []
        elif word == "metrics":
            print("[METRICS]Seen.Count:2.0|#Level:Model,ModelName:m|#type:GAUGE|#hostname:h,1700000000,r", flush=True)
            out.append("ok")
        elif word == "teapot":
            context.set_response_status(code=418, phrase="I'm a teapot", idx=i)
            context.set_response_content_type(i, "text/plain")
            out.append("short and stout")
        elif word == "stream":
            for n in range(3):
                send_intermediate_predict_response(["piece %d " % n] * len(data), context.request_ids, "more", 200, context)
            out.append("end")
        elif word == "batch":
            out.append(str(len(data)))
        elif word == "where":
            out.append(json.dumps({"cwd": os.getcwd(), "dir": context.system_properties["model_dir"], "env": os.environ.get("SECRET_OF_SERVER"), "threads": os.environ.get("OMP_NUM_THREADS")}))
        elif word.startswith("until "):
            print("[METRICS]Waits.Count:1|#Level:Model|#type:COUNTER|#hostname:h,1700000000", flush=True)
            while not os.path.exists(word[6:]):
                time.sleep(0.01)
            out.append("done")
        elif word.startswith("sleep "):
            time.sleep(float(word[6:]))
            out.append("slept")
        else:
            out.append("%s:%s:%s" % (word, context.get_request_header(i, "explain"), context.get_request_header(i, "url_path") or ""))
    return out
`

const asyncHandler = `
import asyncio, os

class Handler:
    def __init__(self): pass
    def initialize(self, context): pass
    async def handle(self, data, context):
        word = data[0]["body"].decode()
        if word.startswith("sleep "):
            await asyncio.sleep(float(word[6:]))
        while word.startswith("until ") and not os.path.exists(word[6:]):
            await asyncio.sleep(0.01)
        return [word]

try:
    from ts.model_loader import ModelLoader
except ImportError:  # the stand-in takes a function
    async def handle(data, context):
        return await Handler().handle(data, context)
`

// writeArchive makes a .mar in a folder.
func writeArchive(tb testing.TB, folder, name string, files map[string]string) string {
	tb.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for path, text := range files {
		w, err := z.Create(path)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func manifest(name, version string, more map[string]string) string {
	model := map[string]string{"modelName": name, "modelVersion": version, "handler": "handler.py:handle"}
	maps.Copy(model, more)
	data, _ := json.Marshal(map[string]any{"createdOn": "01/01/2026 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"})
	return string(data)
}

// writeModel makes NAME.mar with the handler above and a model-config.yaml.
func writeModel(tb testing.TB, folder, name, version, config string) {
	tb.Helper()
	files := map[string]string{"handler.py": handler}
	more := map[string]string{}
	if config != "" {
		files["model-config.yaml"], more["configFile"] = config, "model-config.yaml"
	}
	files["MAR-INF/MANIFEST.json"] = manifest(name, version, more)
	writeArchive(tb, folder, name+".mar", files)
}

// world is a running server.
type world struct {
	*torchserve.Server
	store   string
	metrics *kept
	stop    func()
}

type kept struct {
	mu   sync.Mutex
	seen []torchserve.Metric
	news chan struct{}
}

func (k *kept) Observe(m torchserve.Metric) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = append(k.seen, m)
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// await waits for a metric of a name.
func (k *kept) await(t *testing.T, name string) torchserve.Metric {
	t.Helper()
	for {
		k.mu.Lock()
		for _, m := range k.seen {
			if m.Name == name {
				k.mu.Unlock()
				return m
			}
		}
		k.mu.Unlock()
		select {
		case <-k.news:
		case <-t.Context().Done():
			t.Fatalf("no metric %s", name)
		}
	}
}

// python gives the interpreter and its variables: the real worker's where
// TATEGU_TEST_TORCHSERVE names one, else the stand-in.
func python(tb testing.TB) (path string, env []string) {
	tb.Helper()
	env = append(os.Environ(), "SECRET_OF_SERVER=s", "PYTHONDONTWRITEBYTECODE=1")
	if path := os.Getenv("TATEGU_TEST_TORCHSERVE"); path != "" {
		return path, env
	}
	path, err := exec.LookPath("python3")
	if err != nil {
		tb.Skip("no python3 is installed, which runs the workers")
	}
	standin, err := filepath.Abs("testdata/standin")
	if err != nil {
		tb.Fatal(err)
	}
	return path, append(env, "PYTHONPATH="+standin)
}

func configure(tb testing.TB, change func(*torchserve.Config)) torchserve.Config {
	tb.Helper()
	cfg := torchserve.Defaults()
	cfg.Work, cfg.ModelStore, cfg.GPUs = tb.TempDir(), tb.TempDir(), 0
	cfg.Python, cfg.Environment = python(tb)
	cfg.DenyEnv = "SECRET_.*"
	if change != nil {
		change(&cfg)
	}
	return cfg
}

func start(tb testing.TB, cfg torchserve.Config) *world {
	tb.Helper()
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	k := &kept{news: make(chan struct{}, 1)}
	s, err := torchserve.New(cfg, torchserve.Deps{Log: slog.New(slog.NewTextHandler(logOf{tb}, &slog.HandlerOptions{Level: level})), Metrics: k})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	w := &world{Server: s, store: cfg.ModelStore, metrics: k, stop: func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				tb.Errorf("Run: %v", err)
			}
		})
	}}
	tb.Cleanup(w.stop)
	select {
	case <-s.Started():
	case err := <-done:
		done <- nil
		tb.Fatalf("Run: %v", err)
	}
	return w
}

type logOf struct{ tb testing.TB }

func (l logOf) Write(p []byte) (int, error) {
	l.tb.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// up registers a model with workers that run.
func (w *world) up(tb testing.TB, name string, workers int, config string) {
	tb.Helper()
	writeModel(tb, w.store, name, "1.0", config)
	if _, err := w.Register(tb.Context(), torchserve.Registration{URL: name + ".mar", InitialWorkers: &workers, Synchronous: true}); err != nil {
		tb.Fatal(err)
	}
}

// eventually waits until something holds.
func eventually(tb testing.TB, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-tb.Context().Done():
			tb.Fatal("it never came to hold")
		}
	}
}

func body(text string) torchserve.Request {
	return torchserve.Request{Headers: []torchserve.Pair{{Name: "explain", Value: "False"}}, Parts: []torchserve.Part{{Name: "body", Value: []byte(text)}}}
}

// ask gives the whole answer of a model.
func (w *world) ask(ctx context.Context, model, text string) (string, error) {
	var all strings.Builder
	err := w.Predict(ctx, model, "", body(text), func(f torchserve.Frame) error {
		if f.Status != 200 {
			fmt.Fprintf(&all, "[%d %s %s]", f.Status, f.Reason, f.ContentType)
		}
		all.Write(f.Body)
		return nil
	})
	return all.String(), err
}

func (w *world) want(tb testing.TB, model, text, want string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	got, err := w.ask(ctx, model, text)
	if err != nil || got != want {
		tb.Fatalf("%s: %q, %v; want %q", text, got, err, want)
	}
}

func wantCode(tb testing.TB, err error, code int, words string) {
	tb.Helper()
	var e *torchserve.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, words) {
		tb.Fatalf("the error is %#v (%v), want code %d with %q", e, err, code, words)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
