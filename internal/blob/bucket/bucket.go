// Package bucket keeps content as objects of a cloud bucket (gs, s3, azure) or of a
// directory that other machines mount (file), through gocloud.dev/blob. Stores like
// these replace objects whole and cannot append, so a byte string is a chain of
// immutable segments; segment.go says how it is found again.
//
// One process at a time uses a prefix of a bucket, which Claim makes sure of. The
// store must be strongly consistent, also in its lists.
package bucket

import (
	"context"
	"crypto/md5" //nolint:gosec // the API's checksum, not a secret
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// Content is a blob.Content in a bucket.
type Content struct {
	bucket  *gcblob.Bucket
	address Address
	log     *slog.Logger
	now     func() time.Time
	buffers sync.Pool
	dirs    *dirs // of the file driver: what makes names durable; nil for the others

	minimumPart bool  // the driver refuses parts smaller than 5 MiB
	streamCopy  bool  // the driver's own copy is not durable or keeps old times
	splitSize   int64 // a longer content is several objects: services copy at most 5 GiB at once
	fan         int   // this many neighbours of a level become one of the next
	maxMerged   int64 // merges do not make objects larger than this
	stall       time.Duration

	ids ids
}

var _ blob.Content = (*Content)(nil)

// New makes a Content over an open bucket, which it closes. Open is New for a URL.
func New(b *gcblob.Bucket, address Address, log *slog.Logger, now func() time.Time) *Content {
	c := &Content{
		bucket: b, address: address, log: log, now: now,
		minimumPart: address.Scheme == "s3", streamCopy: address.Scheme == "file" || address.Scheme == "mem",
		splitSize: 4 << 30, fan: 16, maxMerged: 64 << 20, stall: stall, ids: newIDs(),
	}
	c.buffers.New = func() any { b := make([]byte, peekSize); return &b }
	return c
}

// Close releases the connections.
func (c *Content) Close() error { return c.bucket.Close() }

// Create implements blob.Content. A content of more than splitSize is several
// objects; a kill amid them leaves an id that nobody was told.
func (c *Content) Create(ctx context.Context, r io.Reader) (string, blob.Digest, error) {
	md, crc := md5.New(), crc32.New(crc32.MakeTable(crc32.Castagnoli)) //nolint:gosec // as above
	id := resource.RandomID()
	size, err := c.createAs(ctx, id, io.TeeReader(reader(ctx, r), io.MultiWriter(md, crc)))
	if err != nil {
		if size > 0 {
			err = errors.Join(err, c.erase(context.WithoutCancel(ctx), id))
		}
		return "", blob.Digest{}, fmt.Errorf("write content: %w", err)
	}
	return id, blob.Digest{Size: size, MD5: md.Sum(nil), CRC32C: crc.Sum32()}, nil
}

// createAs gives how many bytes are in the bucket, also with an error.
func (c *Content) createAs(ctx context.Context, id string, r io.Reader) (size int64, err error) {
	for key := wholeKey(id); ; key = segmentKey(id, size, 0, c.ids.next(c.now(), 0)) {
		n, readErr, err := c.put(ctx, key, r, putting{empty: size == 0})
		size += n
		if err = errors.Join(readErr, err); err != nil || n < c.splitSize {
			return size, err
		}
	}
}

// Size implements blob.Content.
func (c *Content) Size(ctx context.Context, id string) (int64, error) {
	if err := wellFormed(id); err != nil {
		return 0, err
	}
	if err := c.ids.enter(id); err != nil {
		return 0, err
	}
	defer c.leave(ctx, id)
	live, err := c.find(ctx, id)
	return live.size(), err
}

// find gives the chain of an id that has one.
func (c *Content) find(ctx context.Context, id string) (chain, error) {
	if live := c.ids.chain(id); live != nil {
		return live, nil
	}
	fill := c.ids.startFill(id)
	live, stale, err := c.list(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(live) == 0 {
		return nil, fmt.Errorf("content %s: %w", id, fs.ErrNotExist)
	}
	if len(stale) == 0 {
		c.ids.endFill(id, fill, live)
	}
	return live, nil
}

// list asks the bucket for the segments of an id.
func (c *Content) list(ctx context.Context, id string) (live chain, stale []segment, err error) {
	var all []segment
	err = c.each(ctx, folder(id), func(o *gcblob.ListObject) error {
		if of, s, ok := parseKey(o.Key); ok && of == id {
			s.size, s.written = o.Size, o.ModTime
			all = append(all, s)
		}
		return nil
	})
	if err == nil && len(all) == 0 && c.dirs != nil {
		err = c.failed("list", c.dirs.present(markerKey))
	}
	live, stale = resolve(all)
	return live, stale, err
}

// each calls fn for every object whose key starts with prefix, in order.
func (c *Content) each(ctx context.Context, prefix string, fn func(*gcblob.ListObject) error) error {
	page, token := 1000, gcblob.FirstPageToken
	if c.dirs != nil {
		page = 50_000 // its driver reads the whole directory for each page
	}
	for len(token) > 0 {
		objects, next, err := c.bucket.ListPage(ctx, token, page, &gcblob.ListOptions{Prefix: prefix})
		if err != nil {
			return c.failed("list", err)
		}
		for _, o := range objects {
			if err := fn(o); err != nil {
				return err
			}
		}
		token = next
	}
	return nil
}

// Link implements blob.Content: the service copies, no bytes pass through here.
func (c *Content) Link(ctx context.Context, id string) (string, error) {
	if err := wellFormed(id); err != nil {
		return "", err
	}
	if err := c.ids.enter(id); err != nil {
		return "", err
	}
	defer c.leave(ctx, id)
	for try := 0; ; try++ {
		live, err := c.find(ctx, id)
		if err != nil {
			return "", err
		}
		second := resource.RandomID()
		if err = c.copyAll(ctx, live, second); err == nil {
			return second, nil
		}
		c.ids.forget(id)
		err = errors.Join(err, c.erase(context.WithoutCancel(ctx), second))
		// A merge may have replaced segments since they were listed.
		if try == maxTries || !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("link content %s: %w", id, c.unreadable(err))
		}
	}
}

func (c *Content) copyAll(ctx context.Context, live chain, to string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, s := range live {
		key := wholeKey(to)
		if s.level != wholeLevel {
			key = segmentKey(to, s.offset, s.level, s.sequence)
		}
		g.Go(func() error { return c.copyOne(ctx, key, s) })
	}
	return g.Wait()
}

func (c *Content) copyOne(ctx context.Context, to string, s segment) error {
	if !c.streamCopy {
		return c.missing("copy in", c.bucket.Copy(ctx, to, s.key, nil))
	}
	r, err := c.bucket.NewReader(ctx, s.key, nil)
	if err != nil {
		return c.missing("read", err)
	}
	_, readErr, err := c.put(ctx, to, r, putting{empty: true})
	return errors.Join(readErr, err, r.Close())
}

// Remove implements blob.Content. While this process still reads the content, its
// removal is only noted in the bucket and done when the last reader closes: services
// answer NotFound to whoever asks for a deleted object's next segment.
func (c *Content) Remove(ctx context.Context, id string) error {
	if err := wellFormed(id); err != nil {
		return err
	}
	unlock, err := c.ids.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if !c.ids.doom(id) { // nobody reads it
		defer c.ids.revive(id)
		return c.erase(ctx, id)
	}
	_, readErr, err := c.put(ctx, removedFolder+id, eof{}, putting{empty: true})
	if err = errors.Join(readErr, err); err != nil {
		c.ids.revive(id)
		return err
	}
	// It may be that the last reader closed meanwhile, before the note was there.
	if c.ids.read(id) {
		return nil
	}
	return c.bury(ctx, id)
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// leave ends a read, and does the removal that waited for it.
func (c *Content) leave(ctx context.Context, id string) {
	if !c.ids.leave(id) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	unlock, err := c.ids.lock(ctx, id)
	if err != nil {
		return // the note stays, and the next start removes the content
	}
	defer unlock()
	if !c.ids.doomed(id) || c.ids.read(id) {
		return
	}
	if err := c.bury(ctx, id); err != nil {
		c.log.WarnContext(ctx, "a removed content is still in the bucket until the next start", slog.String("content", id), slog.Any("error", err))
	}
}

// bury removes a content whose removal was noted.
func (c *Content) bury(ctx context.Context, id string) error {
	if err := c.erase(ctx, id); err != nil {
		return err
	}
	c.ids.revive(id)
	return c.remove(ctx, removedFolder+id)
}

// buryAll does the removals that a kill left noted.
func (c *Content) buryAll(ctx context.Context) error {
	return c.each(ctx, removedFolder, func(o *gcblob.ListObject) error {
		id := o.Key[len(removedFolder):]
		if err := wellFormed(id); err != nil {
			return fmt.Errorf("%s in %s: %w", o.Key, c.address, err)
		}
		return c.bury(ctx, id)
	})
}

// erase deletes all segments of an id: what is stale first, so that it cannot take
// the place of the first segment, then that one, with which the content is gone.
func (c *Content) erase(ctx context.Context, id string) error {
	c.ids.forget(id)
	live, stale, err := c.list(ctx, id)
	if err != nil {
		return err
	}
	if err := c.removeAll(ctx, stale); err != nil || len(live) == 0 {
		return err
	}
	if err := c.remove(ctx, live[0].key); err != nil {
		return err
	}
	return c.removeAll(ctx, live[1:])
}

// removeAll deletes segments, several at once and in no order.
func (c *Content) removeAll(ctx context.Context, segments []segment) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, s := range segments {
		g.Go(func() error { return c.remove(ctx, s.key) })
	}
	return g.Wait()
}

// remove deletes one object; that it is not there is no error.
func (c *Content) remove(ctx context.Context, key string) error {
	err := c.bucket.Delete(ctx, key)
	if gcerrors.Code(err) == gcerrors.NotFound && !forbidden(err) {
		return nil
	}
	return c.failed("delete in", err)
}

// Walk implements blob.Content.
func (c *Content) Walk(ctx context.Context, fn func(id string, written time.Time) error) error {
	var current string
	var written time.Time
	flush := func() error {
		if current == "" || c.ids.doomed(current) {
			return nil
		}
		return fn(current, written)
	}
	err := c.each(ctx, contentFolder, func(o *gcblob.ListObject) error {
		id, _, ok := parseKey(o.Key)
		if !ok {
			return nil
		}
		if id != current {
			if err := flush(); err != nil {
				return err
			}
			current, written = id, time.Time{}
		}
		if o.ModTime.After(written) {
			written = o.ModTime
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("walk content: %w", err)
	}
	return flush()
}
