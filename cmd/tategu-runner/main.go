// Command tategu-runner serves one model by a native library: an ONNX model by ONNX
// Runtime or by Tract. The tategu server starts it as a replica (docs/adr/0021); by hand it is
//
//	AIP_HTTP_PORT=8080 tategu-runner --library libonnxruntime.so model.onnx
//
// It exits with 65 when the model cannot be served, and with 69 when the library is
// not there; the last line of its output says why.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tategu/internal/runner"
	"tategu/internal/runner/onnxruntime"
	"tategu/internal/runner/tract"
)

var version = "dev" // set by the linker

// Exit codes of sysexits.h.
const (
	exitUsage       = 64
	exitModel       = 65
	exitUnavailable = 69
	exitSoftware    = 70
)

// exitError is an error with the code to exit with.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func main() {
	// The C library gives its main thread memory that grows in large steps; in other
	// threads' it costs 2,000 system calls to load a model. Runs have threads of their own.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err == nil {
		return
	}
	code := exitSoftware
	if e, ok := errors.AsType[*exitError](err); ok {
		code = e.code
	}
	// One line: it is what the server tells of the end of a replica.
	fmt.Fprintln(os.Stderr, "tategu-runner: "+strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
	os.Exit(code)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("tategu-runner", flag.ContinueOnError)
	engine := flags.String("engine", cmp.Or(os.Getenv("TATEGU_ONNX_ENGINE"), "onnxruntime"), "what evaluates the model: onnxruntime, or tract (neural nets alone)")
	library := flags.String("library", os.Getenv("TATEGU_ONNXRUNTIME"), "path of the engine's shared library; default: that of the Python package onnxruntime or tract")
	show := flags.Bool("version", false, "print the version")
	if err := flags.Parse(args); err != nil {
		return &exitError{exitUsage, err}
	}
	if *show {
		fmt.Println(version)
		return nil
	}
	if flags.NArg() != 1 {
		return &exitError{exitUsage, errors.New("name one model file")}
	}
	cfg, err := settings(flags.Arg(0))
	if err != nil {
		return &exitError{exitUsage, err}
	}
	cfg.Samples = samples(filepath.Dir(flags.Arg(0)))
	cfg.Load = loader(flags.Arg(0), *engine, *library)
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", cmp.Or(os.Getenv("AIP_HTTP_PORT"), "8080")))
	if err != nil {
		return err
	}
	return runner.New(cfg).Run(ctx, l)
}

// loader loads the library of an engine when the model is first asked for: by then those
// who wait for it can connect.
func loader(model, engine, library string) runner.Loader {
	var load func(model string, threads int) (runner.Engine, error)
	return func(threads int) (runner.Engine, error) {
		if load == nil {
			var err error
			if load, err = open(engine, library); err != nil {
				return nil, err
			}
		}
		session, err := load(model, threads)
		if err != nil {
			return nil, &exitError{exitModel, fmt.Errorf("%s cannot be served: %w", filepath.Base(model), err)}
		}
		return session, nil
	}
}

// open loads the library of an engine, which then loads a model with so many threads
// for a run.
func open(engine, path string) (load func(model string, threads int) (runner.Engine, error), err error) {
	names := map[string][]string{
		"onnxruntime": {"onnxruntime/capi/libonnxruntime.so.*", "onnxruntime/capi/libonnxruntime.so", "onnxruntime/capi/libonnxruntime.*.dylib"},
		"tract":       {"tract/*.so", "tract/*.dylib"},
	}[engine]
	if names == nil {
		return nil, &exitError{exitUsage, fmt.Errorf("there is no engine %q: onnxruntime and tract are there", engine)}
	}
	if path == "" {
		if path, err = find(engine, names); err != nil {
			return nil, &exitError{exitUnavailable, err}
		}
	}
	// Nobody is told what is run here: ONNX Runtime would send names and hashes of models.
	if err := os.Setenv("ORT_DISABLE_TELEMETRY", "1"); err != nil {
		return nil, err
	}
	if engine == "tract" {
		l, err := tract.Open(path)
		if err != nil {
			return nil, &exitError{exitUnavailable, err}
		}
		return func(model string, _ int) (runner.Engine, error) { return l.Load(model) }, nil
	}
	l, err := onnxruntime.Open(path)
	if err != nil {
		return nil, &exitError{exitUnavailable, err}
	}
	return func(model string, threads int) (runner.Engine, error) { return l.Load(model, threads) }, nil
}

// find looks where the server has put the Python package of an engine.
func find(engine string, names []string) (string, error) {
	site := os.Getenv("TATEGU_SITE_PACKAGES")
	for _, name := range names {
		found, err := filepath.Glob(filepath.Join(site, filepath.FromSlash(name)))
		if site != "" && err == nil && len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("the library of %s is not in %q (TATEGU_SITE_PACKAGES): install the Python package %s there, or name the library with --library", engine, site, engine)
}

// samples takes instances to warm up with from the rows that the server checks; without
// them there are made-up ones. What is wrong with the file the server tells.
func samples(dir string) []byte {
	const most, bytes = 8, 1 << 20
	f, err := os.Open(filepath.Join(dir, "tategu-samples.jsonl"))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	var rows []json.RawMessage
	for d := json.NewDecoder(io.LimitReader(f, bytes)); len(rows) < most; {
		var row struct {
			Instance json.RawMessage `json:"instance"`
		}
		if err := d.Decode(&row); err != nil || row.Instance == nil {
			break
		}
		rows = append(rows, row.Instance)
	}
	if len(rows) == 0 {
		return nil
	}
	b, err := json.Marshal(map[string]any{"instances": rows})
	if err != nil {
		return nil
	}
	return b
}

// settings reads the variables of the contract, and those of models' containers.
func settings(model string) (runner.Config, error) {
	stem := strings.TrimSuffix(filepath.Base(model), filepath.Ext(model))
	cfg := runner.Config{
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil)), Version: version, Names: []string{stem}, Cores: runtime.GOMAXPROCS(0),
		Health: cmp.Or(os.Getenv("AIP_HEALTH_ROUTE"), "/health"), Predict: cmp.Or(os.Getenv("AIP_PREDICT_ROUTE"), "/predict"),
	}
	for _, name := range []string{"AIP_MODEL_NAME", "AIP_DEPLOYED_MODEL_ID"} {
		if v := os.Getenv(name); v != "" {
			cfg.Names = append(cfg.Names, v)
		}
	}
	body := 0
	for _, v := range []struct {
		name     string
		value    *int
		fallback int
	}{
		{"OMP_NUM_THREADS", &cfg.Cores, cfg.Cores}, // the cores of the machine type
		{"TATEGU_ONNX_THREADS", &cfg.Threads, 0},
		{"TATEGU_ONNX_MAX_BATCH", &cfg.Batch, 128},
		{"TATEGU_ONNX_MAX_BODY", &body, 256 << 20},
	} {
		*v.value = v.fallback
		text := os.Getenv(v.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return cfg, fmt.Errorf("%s is %q, which is not a number from 1 up", v.name, text)
		}
		*v.value = n
	}
	cfg.Body = int64(body)
	if text := os.Getenv("TATEGU_ONNX_MAX_BATCH_DELAY"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return cfg, fmt.Errorf("TATEGU_ONNX_MAX_BATCH_DELAY is %q, which is not a duration such as 5ms", text)
		}
		cfg.Delay = d
	}
	cfg.Cores = min(cfg.Cores, runtime.NumCPU())
	return cfg, nil
}
