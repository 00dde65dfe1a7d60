package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tategu/internal/load"
)

// peer is a server that others wrote.
type peer struct {
	name   string
	venv   string
	argv   []string // PORT, PEERS and KIND stand for those; the first is in the environment's bin
	env    []string
	path   string // of predictions
	health string
	form   string // of a request
}

func peers() []peer {
	const cpr = "google.cloud.aiplatform.prediction.model_server:CprModelServer"
	uvicorn := []string{"uvicorn", "--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning", "--no-access-log"}
	with := func(more ...string) []string { return append(append([]string{}, uvicorn...), more...) }
	return []peer{
		{name: "fastapi, 1 worker", venv: "fastapi", argv: with("fastapi_app:app"), path: "/predict", health: "/health", form: "instances"},
		{name: "fastapi, 2 workers", venv: "fastapi", argv: with("--workers", "2", "fastapi_app:app"), path: "/predict", health: "/health", form: "instances"},
		{name: "bentoml", venv: "bentoml", argv: []string{"bentoml", "serve", "bento_service:Model", "--host", "127.0.0.1", "--port", "PORT"}, path: "/predict", health: "/livez", form: "instances", env: []string{"BENTOML_DO_NOT_TRACK=true"}},
		{name: "litserve", venv: "litserve", argv: []string{"python", "lit_server.py", "PORT"}, path: "/predict", health: "/health", form: "instances"},
		{name: "mlserver", venv: "mlserver", argv: []string{"mlserver", "start", "mlserver_KIND"}, path: "/v2/models/model/infer", health: "/v2/health/ready", form: "inputs"},
		{name: "cpr", venv: "cpr", argv: with("--factory", cpr), path: "/predict", health: "/health", form: "instances", env: []string{
			"AIP_HTTP_PORT=PORT", "AIP_HEALTH_ROUTE=/health", "AIP_PREDICT_ROUTE=/predict", "AIP_STORAGE_URI=MODEL",
			"HANDLER_MODULE=google.cloud.aiplatform.prediction.handler", "HANDLER_CLASS=PredictionHandler",
			"PREDICTOR_MODULE=cpr_predictor", "PREDICTOR_CLASS=Predictor",
		}},
	}
}

// contestants starts all that can be had; the others are named with the reason.
func (b *bench) contestants(ctx context.Context, kind string, rows []byte) ([]*contestant, error) {
	var out []*contestant
	for _, p := range peers() {
		c, err := b.peer(ctx, p, kind, rows)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			say("%s: without %s: %v\n", kind, p.name, err)
			continue
		}
		out = append(out, c)
	}
	return out, nil
}

func (b *bench) peer(ctx context.Context, p peer, kind string, rows []byte) (*contestant, error) {
	bin := filepath.Join(b.venvs, p.venv, "bin")
	if reason, err := os.ReadFile(filepath.Join(b.venvs, p.venv, "skipped")); err == nil {
		return nil, fmt.Errorf("it could not be installed: %s", strings.TrimSpace(string(reason)))
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	model := filepath.Join(b.models, kind, "model")
	fill := strings.NewReplacer("PORT", strconv.Itoa(port), "KIND", kind, "PEERS", b.programs, "MODEL", model)
	argv := make([]string, len(p.argv))
	for i, a := range p.argv {
		argv[i] = fill.Replace(a)
	}
	argv[0] = filepath.Join(bin, argv[0])
	env := []string{"KIND=" + kind, "MODEL_DIR=" + model, "PYTHONPATH=" + b.programs, "PATH=" + bin + ":" + os.Getenv("PATH"), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"}
	for _, v := range p.env {
		key, value, _ := strings.Cut(v, "=")
		env = append(env, key+"="+fill.Replace(value))
	}
	dir := b.programs
	if p.venv == "mlserver" {
		if dir, err = b.mlserver(ctx, kind, port); err != nil {
			return nil, err
		}
	}
	server, err := b.start(ctx, p.venv+"-"+kind+"-"+strconv.Itoa(port), dir, env, argv...)
	if err != nil {
		return nil, err
	}
	url := "127.0.0.1:" + strconv.Itoa(port)
	if err := server.answers(ctx, "http://"+url+p.health, 90*time.Second); err != nil {
		return nil, err
	}
	bodies, err := requests(p.form, rows)
	if err != nil {
		return nil, err
	}
	target, err := load.NewEndpoint(load.EndpointConfig{Address: url, Path: p.path, Bodies: bodies})
	if err != nil {
		return nil, err
	}
	c := &contestant{name: p.name, target: target, server: server}
	if err := c.works(ctx); err != nil {
		return nil, err
	}
	server.pause()
	return c, nil
}

// works waits for the first good answer: some are healthy before they can.
func (c *contestant) works(ctx context.Context) error {
	limit := time.Now().Add(30 * time.Second)
	for {
		failure, detail := c.target.Do(ctx, 0)
		if failure == "" {
			return nil
		}
		if time.Now().After(limit) || ctx.Err() != nil {
			return fmt.Errorf("it does not answer: %s: %s; %s", failure, detail, c.server.tail())
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// mlserver writes the settings that MLServer wants: a folder for each model.
func (b *bench) mlserver(ctx context.Context, kind string, port int) (string, error) {
	dir := filepath.Join(b.folder, "mlserver-"+strconv.Itoa(port))
	folder := filepath.Join(dir, "mlserver_"+kind)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	settings := map[string]any{"host": "127.0.0.1", "http_port": port, "parallel_workers": 0, "debug": false, "metrics_endpoint": nil}
	for _, key := range []string{"grpc_port", "metrics_port"} {
		n, err := freePort(ctx)
		if err != nil {
			return "", err
		}
		settings[key] = n
	}
	for name, v := range map[string]any{
		"settings.json":       settings,
		"model-settings.json": map[string]any{"name": "model", "implementation": "mlserver_model.Model"},
	} {
		text, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// requests puts each row into a request of a server's own form.
func requests(form string, rows []byte) ([][]byte, error) {
	var all [][]float64
	if err := json.Unmarshal(rows, &all); err != nil {
		return nil, err
	}
	out := make([][]byte, len(all))
	for i, row := range all {
		var body any = map[string]any{"instances": [][]float64{row}}
		if form == "inputs" {
			body = map[string]any{"inputs": []any{map[string]any{"name": "x", "shape": []int{1, len(row)}, "datatype": "FP64", "data": row}}}
		}
		var err error
		if out[i], err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	return out, nil
}
