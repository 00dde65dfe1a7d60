package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"tategu/internal/runtime/process"
	"tategu/internal/runtime/process/box"
	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/record"
)

// bare starts the wrapper on a directory that is ready: namespaces, mounts and the
// program, without accepting, preparing and putting away.
func bare(dir, program string) *way {
	if process.Packed() == nil {
		return missing(nameBare, errors.New("built without the tag embedwrapper"))
	}
	ids := box.DefaultMapping()
	self, root := filepath.Join(dir, "wrapper"), filepath.Join(dir, "image")
	if err := prepareBare(self, root, program, ids); err != nil {
		return missing(nameBare, err)
	}
	started := 0
	var work string
	ready := func() error {
		started++
		work = filepath.Join(dir, fmt.Sprintf("start-%d", started))
		if err := os.Mkdir(work, 0o700); err != nil {
			return err
		}
		c := &box.Container{Root: root, Overlay: true, IDs: ids, Filter: true, Host: "bench", Dir: "/"}
		return errors.Join(box.Make(work, ids), record.WriteWhole(filepath.Join(work, wrapper.FileSpec), wrapper.Spec{Command: []string{"/program"}, Container: c}))
	}
	return &way{name: nameBare, before: ready, run: func(ctx context.Context) (string, error) {
		cmd := exec.CommandContext(ctx, self, wrapper.Verb, work)
		cmd.SysProcAttr = box.Attr(ids, false)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}}
}

func prepareBare(self, root, program string, ids box.Mapping) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	packed, err := gzip.NewReader(bytes.NewReader(process.Packed()))
	if err != nil {
		return err
	}
	small, err := io.ReadAll(packed)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(root, "program"), content, 0o755), os.WriteFile(self, small, 0o755)); err != nil { //nolint:gosec // a directory of our own
		return err
	}
	if ids.Count <= 1 {
		return nil
	}
	return box.ChownTree(root, ids.Base, ids.Base)
}
