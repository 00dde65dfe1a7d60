package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// bucket is there for every fault.
const bucket = "faults"

// world is what faults are injected into.
type world struct {
	options

	dir     string
	program string // the misbehaving one
	server  *server
	index   *index
	n       atomic.Int64

	probing sync.Mutex
	probed  bool
	boxes   error // why no container can run here
}

func newWorld(ctx context.Context, o options) (w *world, err error) {
	w = &world{options: o}
	if w.binary, err = filepath.Abs(o.binary); err != nil {
		return nil, err
	}
	if w.dir, err = os.MkdirTemp("", "tategu-fault-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	w.program = filepath.Join(w.dir, "program")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.program, "./test/fault/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the program: %w: %s", err, out)
	}
	if w.index, err = newIndex(); err != nil {
		return nil, err
	}
	if w.server, err = start(ctx, w.binary, w.dir, filepath.Join(w.dir, "cache"), w.config()); err != nil {
		return nil, err
	}
	if err := w.server.must(ctx, http.MethodPost, "/storage/v1/b?project=p", map[string]string{"name": bucket}, nil); err != nil {
		return nil, err
	}
	return w, w.put(ctx, "here.txt", "here\n")
}

func (w *world) config() string {
	rule := func(match string, command ...string) string {
		data, err := json.Marshal(map[string]any{"match": match, "command": command})
		if err != nil { // strings always marshal
			return ""
		}
		return "  - " + string(data) + "\n"
	}
	text := "tunnel: false\nimages:\n" + rule("sh", "sh", "-c") + rule("program", w.program) + rule("none", "/nonexistent/program") +
		"  - {match: env, python: \"3.11\", python.match: any}\n"
	if w.python != "" {
		text += rule("clients", w.python)
	}
	return text
}

func (w *world) close() error {
	var errs []error
	if w.server != nil {
		errs = append(errs, w.server.close())
	}
	if w.index != nil {
		errs = append(errs, w.index.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// name gives one that nothing else has.
func (w *world) name(what string) string { return fmt.Sprintf("%s-%d", what, w.n.Add(1)) }

func (w *world) put(ctx context.Context, name, content string) error {
	return w.server.must(ctx, http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name="+strings.ReplaceAll(name, "/", "%2F"), content, nil)
}
