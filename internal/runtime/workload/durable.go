package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"tategu/internal/volume"
)

// WriteDurable replaces a private file in one step that survives a power loss.
func WriteDurable(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to tell
		}
	}()
	if _, err = f.Write(b); err != nil {
		_ = f.Close() // the write error is the one to tell
		return err
	}
	if err = f.Sync(); err != nil {
		_ = f.Close() // the sync error is the one to tell
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Insist writes a file as soon as the disk has room for it: what it says is lost
// otherwise. log may be nil.
func Insist(ctx context.Context, log *slog.Logger, path string, v any) error {
	return volume.Retry(ctx, func(err error) {
		if log != nil {
			log.WarnContext(ctx, "waiting to write a workload's state", slog.String("file", path), slog.Any("error", err))
		}
	}, func() error { return WriteJSON(path, v) })
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // opened for reading
	return d.Sync()
}

// Exists reports a file of any kind.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// RemoveAll also removes what a program left without write permission.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory needs x; best effort, the second removal tells
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// FreePort asks the kernel for a loopback port. Another program may take it
// before the workload does; the caller sees that as a failed start.
func FreePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }() // it carried nothing
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("find a free port: got %v", l.Addr())
	}
	return addr.Port, nil
}

// WriteJSON is WriteDurable for a value.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return WriteDurable(path, b)
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
