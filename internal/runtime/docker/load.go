package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	"google.golang.org/grpc/codes"
)

// loadedName is the repository of images that came from the server's store; the
// tag is their digest there.
const loadedName = "localhost/tategu-image"

// loader gives images of the server's store to the engine, each once.
type loader struct {
	engine *client
	log    *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	busy map[string]chan struct{} // by name; closed when the load has ended
}

// load makes the engine have an image and gives its name there.
func (l *loader) load(ctx context.Context, image runtime.Image, say func()) (name string, err error) {
	name = loadedName + ":" + strings.TrimPrefix(image.Digest, "sha256:")
	release, err := l.enter(ctx, name)
	if err != nil {
		return "", err
	}
	defer release()
	if _, err := l.engine.image(ctx, name); status(err) != http.StatusNotFound {
		return name, err
	}
	say()
	start := l.now()
	config, err := imageConfig(image)
	if err != nil {
		return "", err
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() { // ends when the engine has read everything or gives up
		err := writeArchive(ctx, w, name, image, config)
		w.CloseWithError(err)
		written <- err
	}()
	err = l.engine.load(ctx, r)
	_ = r.CloseWithError(errors.New("the container engine gave up")) // wakes the writer, if it still writes
	if wrote := <-written; err == nil || ctx.Err() == nil && wrote != nil && status(err) == 0 {
		err = wrote
	}
	if err != nil {
		return "", loadError(image.Reference, err)
	}
	l.log.InfoContext(ctx, "loaded an image into the container engine", slog.String("image", image.Reference), slog.String("name", name), slog.Duration("took", l.now().Sub(start)))
	return name, nil
}

// enter waits until nobody else loads the image.
func (l *loader) enter(ctx context.Context, name string) (release func(), err error) {
	for {
		l.mu.Lock()
		other, busy := l.busy[name]
		if !busy {
			mine := make(chan struct{})
			l.busy[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.busy, name)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func loadError(reference string, err error) error {
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" {
		return err
	}
	return resource.Errorf(codes.FailedPrecondition, "load image %s into the container engine: %w", reference, err).WithResource(reference).WithCause(resource.CausePlatform)
}

// imageConfig is the image's configuration as the engine reads it, without times,
// so that loading it again gives the same image
// (github.com/opencontainers/image-spec/blob/main/config.md).
func imageConfig(image runtime.Image) ([]byte, error) {
	ports := map[string]struct{}{}
	for _, p := range image.Config.Ports {
		ports[p] = struct{}{}
	}
	diffs := make([]string, len(image.Layers))
	for i, layer := range image.Layers {
		diffs[i] = layer.DiffID
	}
	return json.Marshal(map[string]any{
		"architecture": goruntime.GOARCH, "os": "linux",
		"config": map[string]any{
			"Env": image.Config.Env, "User": image.Config.User, "WorkingDir": image.Config.WorkingDir,
			"Entrypoint": image.Config.Entrypoint, "Cmd": image.Config.Cmd, "ExposedPorts": ports,
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
}

// writeArchive writes what `docker save` would. A tar names the size of a layer
// before its bytes, so that each is read twice; nothing is kept on the disk.
func writeArchive(ctx context.Context, w io.Writer, name string, image runtime.Image, config []byte) error {
	out := tar.NewWriter(w)
	sum := sha256.Sum256(config)
	configName := hex.EncodeToString(sum[:]) + ".json"
	var files []string
	for _, layer := range image.Layers {
		file := strings.TrimPrefix(layer.DiffID, "sha256:") + ".tar"
		if !slices.Contains(files, file) {
			if err := writeLayer(ctx, out, file, layer); err != nil {
				return err
			}
		}
		files = append(files, file)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{name}, "Layers": files}})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{configName, config}, {"manifest.json", manifest}} {
		if err := out.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content))}); err != nil {
			return err
		}
		if _, err := io.Copy(out, bytes.NewReader(f.content)); err != nil {
			return err
		}
	}
	return out.Close()
}

func writeLayer(ctx context.Context, out *tar.Writer, file string, layer runtime.Layer) error {
	size, err := copyLayer(ctx, io.Discard, layer)
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err = copyLayer(ctx, out, layer)
	return err
}

func copyLayer(ctx context.Context, w io.Writer, layer runtime.Layer) (n int64, err error) {
	r, err := layer.Open(ctx)
	if err != nil {
		return 0, fmt.Errorf("read layer %s: %w", layer.DiffID, err)
	}
	n, err = io.Copy(w, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return n, fmt.Errorf("read layer %s: %w", layer.DiffID, err)
	}
	return n, nil
}
