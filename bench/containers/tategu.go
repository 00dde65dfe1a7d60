package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
)

const (
	nameHost      = "tategu, no image"
	nameContainer = "tategu, image"
	nameBare      = "tategu, wrapper alone"
)

// one is a store of one image, of a single file.
type one struct{ image runtime.Image }

func (o one) Image(_ context.Context, reference string) (runtime.Image, error) {
	if reference != o.image.Reference {
		return runtime.Image{}, resource.NotFound(reference)
	}
	return o.image, nil
}

func newImage(program string) (one, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return one{}, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "program", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}); err != nil {
		return one{}, err
	}
	if _, err := w.Write(content); err != nil {
		return one{}, err
	}
	if err := w.Close(); err != nil {
		return one{}, err
	}
	sum := sha256.Sum256(b.Bytes())
	digest := "sha256:" + hex.EncodeToString(sum[:])
	return one{runtime.Image{
		Reference: "program:1", Digest: digest, Config: runtime.ImageConfig{Entrypoint: []string{"/program"}},
		Layers: []runtime.Layer{{DiffID: digest, Size: int64(b.Len()), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b.Bytes())), nil
		}}},
	}}, nil
}

// openTategu gives the program started by the runtime, in an image and without:
// both with all that a task gets, and the wrapper alone on a directory that is ready.
func openTategu(binary, dir, program string) ([]*way, func() error, error) {
	self, err := filepath.Abs(binary)
	if err != nil {
		return nil, nil, err
	}
	image, err := newImage(program)
	if err != nil {
		return nil, nil, err
	}
	r, err := process.New(process.Config{
		Dir: filepath.Join(dir, "workloads"), CacheDir: filepath.Join(dir, "cache"), ImageStore: image, Self: self, Wrapper: process.Packed(),
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		return nil, nil, err
	}
	started := 0
	var last runtime.Instance
	run := func(w runtime.Workload) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			started++
			w.ID = fmt.Sprintf("start-%d", started)
			if last, err = r.Start(ctx, w); err != nil {
				return "", err
			}
			exit, err := last.Wait(ctx)
			if err != nil {
				return "", err
			}
			if !exit.OK() {
				return exit.Message, errors.New("it failed")
			}
			return strings.Join(exit.Tail, "\n"), nil
		}
	}
	release := func() error { return last.Release(context.Background()) }
	ways := []*way{
		{name: nameHost, after: release, run: run(runtime.Workload{Command: []string{program}})},
		{name: nameContainer, after: release, run: run(runtime.Workload{Image: image.image.Reference})},
		bare(filepath.Join(dir, "bare"), program),
	}
	for _, w := range ways[:2] { // probes of the machine and the unpacking come once
		if _, err := w.run(context.Background()); err != nil {
			return nil, nil, errors.Join(err, r.Close())
		}
	}
	return ways, r.Close, nil
}
