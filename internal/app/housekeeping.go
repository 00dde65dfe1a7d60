package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"tategu/internal/image"
	"tategu/internal/training"
)

const (
	// housekeepingEvery is how often storage is kept tidy. Lifecycle rules count in
	// days, so that an hour is early enough for all of them.
	housekeepingEvery = time.Hour
	// orphanAge is how old content without a row must be before it is removed: an
	// upload that is still coming has none yet.
	orphanAge = 24 * time.Hour
)

// keepHouse executes the lifecycle rules of buckets and removes what a crash left
// half done, at the start and then every hour, beside the requests. A failure is
// told and tried again: it must not end the server.
func (m *Main) keepHouse(ctx context.Context) error {
	tick := time.NewTicker(housekeepingEvery)
	defer tick.Stop()
	for {
		m.keepHouseOnce(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m *Main) keepHouseOnce(ctx context.Context) {
	done, err := m.blobs.RunLifecycle(ctx)
	if err != nil && ctx.Err() == nil {
		m.log.ErrorContext(ctx, "execute lifecycle rules", slog.Any("error", err))
	}
	swept, err := m.blobs.Sweep(ctx, orphanAge)
	if err != nil && ctx.Err() == nil {
		m.log.ErrorContext(ctx, "sweep objects", slog.Any("error", err))
	}
	collected, err := m.collectImages(ctx)
	if err != nil && ctx.Err() == nil {
		m.log.ErrorContext(ctx, "collect images", slog.Any("error", err))
	}
	m.log.InfoContext(ctx, "storage tidied", slog.Any("lifecycle", done), slog.Any("swept", swept), slog.Any("images", collected))
}

// collectImages removes images that nothing needs. A job that waits for weeks has not
// started its image yet, so that it is made young here.
func (m *Main) collectImages(ctx context.Context) (image.Collected, error) {
	needed, err := training.Images(ctx, m.store)
	if err != nil {
		return image.Collected{}, err
	}
	for _, reference := range needed {
		if err := m.images.Keep(ctx, reference); err != nil {
			return image.Collected{}, fmt.Errorf("keep image %s: %w", reference, err)
		}
	}
	return m.registered.Collect(ctx, image.Policy{Age: orphanAge, Untagged: m.cfg.Registry.Untagged, Packed: m.cfg.Registry.Packed})
}
