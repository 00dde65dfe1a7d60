package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// smallDisk mounts a file system of size; end takes it away.
func (w *world) smallDisk(size string) (dir string, end func() error, err error) {
	dir = filepath.Join(w.dir, w.name("disk"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		return "", nil, skipError{"a small file system cannot be mounted here (root is needed): " + err.Error()}
	}
	return dir, func() error { return syscall.Unmount(dir, syscall.MNT_DETACH) }, nil
}

// fullDisk lets a program write until nothing fits any more.
func fullDisk(ctx context.Context, w *world) (told []shown, err error) {
	dir, end, err := w.smallDisk("4m")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	return w.job(ctx, spec{image: "sh", command: []string{"dd if=/dev/zero of=" + dir + "/big bs=1M"}})
}

// fullCache lets an image be unpacked to a disk that is too small for it, by a
// server of its own.
func fullCache(ctx context.Context, w *world) (told []shown, err error) {
	if err := w.containers(ctx); err != nil {
		return nil, err
	}
	cache, end, err := w.smallDisk("8m")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	dir := filepath.Join(w.dir, w.name("server"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	second := &world{options: w.options, dir: dir, program: w.program}
	if second.server, err = start(ctx, w.binary, dir, cache, "tunnel: false\n"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, second.server.close()) }()
	layer, err := random(32 << 20)(w)
	if err != nil {
		return nil, err
	}
	called, err := second.push(ctx, second.server, layer, goarch(), v1.Config{Entrypoint: []string{"/program"}})
	if err != nil {
		return nil, err
	}
	return second.job(ctx, spec{image: called})
}
