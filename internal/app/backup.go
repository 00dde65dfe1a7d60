package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"tategu/internal/backup"
	"tategu/internal/blob"
	"tategu/internal/blob/bucket"
	"tategu/internal/blob/disk"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// backup copies the running server into a directory.
func (m *Main) backup(ctx context.Context, dir string, progress func(backup.Progress)) (backup.Manifest, error) {
	if rel, err := filepath.Rel(m.cfg.Data, dir); err == nil && filepath.IsLocal(rel) {
		return backup.Manifest{}, resource.Invalid("directory", "%s is inside the data directory", dir).WithHint("name a directory on another disk")
	}
	return backup.Create(ctx, dir, backup.Source{
		Version: m.version, Now: m.now, Hold: m.blobs.Hold, State: m.store.Snapshot, Open: openSnapshot, Logs: logContents,
		Read: m.blobs.ReadContent, Link: m.blobs.LinkContent,
		Secrets: map[string]string{"ca": filepath.Join(m.cfg.Data, "ca"), "identity": filepath.Join(m.cfg.Data, "identity")},
		Lock:    func(path string) (io.Closer, error) { return lockFile(ctx, path) },
	}, progress)
}

func openSnapshot(path string) (backup.Snapshot, error) { return sqlite.OpenSnapshot(path) }

// logContents lists the contents that logs are kept in.
func logContents(ctx context.Context, r store.Reader) ([]string, error) {
	rows, err := r.List(ctx, store.Query{Kind: kindLogs})
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(rows))
	for _, row := range rows {
		ids = append(ids, blob.LogContent(row.Key))
	}
	return ids, nil
}

// VerifyBackup reads a whole backup against what was written.
func VerifyBackup(ctx context.Context, dir string, progress func(backup.Progress)) (backup.Manifest, error) {
	return backup.Verify(ctx, dir, openSnapshot, progress)
}

// Restore makes the data directory of cfg of a backup, with its objects in the bucket
// that cfg names, if it names one.
func Restore(ctx context.Context, cfg Config, dir string, progress func(backup.Progress)) (m backup.Manifest, err error) {
	if err := cfg.absolute(); err != nil {
		return m, err
	}
	schema, err := sqlite.NewestSchema()
	if err != nil {
		return m, err
	}
	target := backup.Target{
		Data: cfg.Data, Open: openSnapshot, Schema: schema,
		Contents: func(data string) (backup.Content, error) { return disk.Open(filepath.Join(data, "objects")) },
	}
	if cfg.Storage.Objects != "" {
		content, openErr := bucket.Open(ctx, cfg.Storage.Objects, slog.New(slog.DiscardHandler), time.Now)
		if openErr != nil {
			return m, openErr
		}
		defer func() { err = errors.Join(err, content.Close()) }()
		into := &restoring{content: content}
		target.Contents = func(data string) (backup.Content, error) { return content, into.claim(ctx, cfg, data) }
		m, err = backup.Restore(ctx, dir, target, progress)
		if err != nil && into.claimed {
			err = errors.Join(err, content.Abandon(context.WithoutCancel(ctx)))
		}
		return m, err
	}
	return backup.Restore(ctx, dir, target, progress)
}

// restoring is a bucket that contents are restored into.
type restoring struct {
	content *bucket.Content
	claimed bool
}

// claim makes the bucket that of the data directory which is being made in data.
func (r *restoring) claim(ctx context.Context, cfg Config, data string) error {
	address, _, err := bucket.Parse(cfg.Storage.Objects)
	if err != nil {
		return err
	}
	cfg.Data = data
	m := &Main{cfg: cfg}
	if err := m.claim(ctx, r.content, placement{}, address.String()); err != nil {
		return err
	}
	r.claimed = true
	return nil
}
