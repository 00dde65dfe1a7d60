package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// Append implements blob.Content. Every step leaves a chain that is either the one
// before it or the one after it: a new segment counts from the moment it is there,
// what it replaces is deleted afterwards, and what is to be dropped is deleted from
// the end.
func (c *Content) Append(ctx context.Context, id string, offset int64, r io.Reader) (n int64, err error) {
	if err := wellFormed(id); err != nil {
		return 0, err
	}
	unlock, err := c.ids.lock(ctx, id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if c.ids.doomed(id) { // removed and named anew: what its readers did not fetch yet is gone
		if err := c.bury(ctx, id); err != nil {
			return 0, err
		}
	}
	live, err := c.current(ctx, id)
	if err != nil {
		return 0, err
	}
	if offset > live.size() {
		return 0, fmt.Errorf("append to content %s at %d: it has %d bytes", id, offset, live.size())
	}
	c.ids.forget(id) // until it is known how this ends
	if live, err = c.truncate(ctx, id, live, offset); err != nil {
		return 0, fmt.Errorf("append to content %s: %w", id, err)
	}
	live, n, readErr, err := c.extend(ctx, id, live, r)
	if err != nil {
		return n, fmt.Errorf("append to content %s: %w", id, err)
	}
	live, err = c.merge(ctx, id, live)
	if err != nil { // the bytes are durable; the next Append lists and tries again
		c.log.WarnContext(ctx, "segments were not merged", slog.String("content", id), slog.Any("error", err))
	} else {
		c.ids.remember(id, live)
	}
	return n, readErr
}

// current gives the chain of id, empty when there is none, with nothing stale beside
// it. The caller holds the lock of id.
func (c *Content) current(ctx context.Context, id string) (chain, error) {
	if live := c.ids.chain(id); live != nil {
		return live, nil
	}
	live, stale, err := c.list(ctx, id)
	if err != nil {
		return nil, err
	}
	return live, c.removeAll(ctx, stale)
}

// truncate drops what is at and after offset.
func (c *Content) truncate(ctx context.Context, id string, live chain, offset int64) (chain, error) {
	live = slices.Clone(live)
	for len(live) > 1 && live[len(live)-1].offset >= offset {
		if err := c.remove(ctx, live[len(live)-1].key); err != nil {
			return nil, err
		}
		live = live[:len(live)-1]
	}
	if len(live) == 0 {
		return live, nil
	}
	tail := live[len(live)-1]
	keep := offset - tail.offset
	// A content that Create wrote is read as one object, which it must not be once
	// something follows it.
	if keep == tail.size && (tail.level != wholeLevel || tail.size >= c.splitSize) {
		return live, nil
	}
	shorter := segment{offset: tail.offset, level: tail.level, sequence: c.ids.next(c.now(), tail.sequence)}
	if shorter.level == wholeLevel {
		shorter.level = 0
	}
	shorter.key = segmentKey(id, shorter.offset, shorter.level, shorter.sequence)
	r := c.read(ctx, id, live, tail.offset, offset)
	n, readErr, err := c.put(ctx, shorter.key, r, putting{empty: true})
	if err = errors.Join(readErr, err, r.end()); err != nil {
		return nil, err
	}
	shorter.size = n
	live[len(live)-1] = shorter
	return live, c.remove(ctx, tail.key)
}

// extend adds what r gives, as one segment for each splitSize bytes; n bytes were
// added also with an error.
func (c *Content) extend(ctx context.Context, id string, live chain, r io.Reader) (_ chain, n int64, readErr, err error) {
	write := context.WithoutCancel(ctx) // what came counts, also from a caller who left
	r = reader(ctx, r)
	for {
		s := segment{offset: live.size(), sequence: c.ids.next(c.now(), live.last())}
		s.key = segmentKey(id, s.offset, s.level, s.sequence)
		s.size, readErr, err = c.put(write, s.key, r, putting{keep: true, empty: len(live) == 0})
		if err != nil {
			return nil, n, nil, err
		}
		n += s.size
		switch {
		case s.size > 0 && live.size() == 0 && len(live) == 1: // the object of a content without bytes
			if err := c.remove(write, live[0].key); err != nil {
				return nil, n, nil, err
			}
			live[0] = s
		case s.size > 0 || len(live) == 0:
			live = append(live, s)
		}
		if readErr != nil || s.size < c.splitSize {
			return live, n, readErr, nil
		}
	}
}

// merge makes the last segments one of the next level once fan of them share a
// level: a byte is written again once for each level, and many small appends leave
// few segments.
func (c *Content) merge(ctx context.Context, id string, live chain) (chain, error) {
	for {
		from := len(live)
		for from > 0 && live[from-1].level == live[len(live)-1].level && live.size()-live[from-1].offset <= c.maxMerged {
			from--
		}
		run := live[from:]
		if len(run) < c.fan || run[0].level+1 >= wholeLevel {
			return live, nil
		}
		one := segment{offset: run[0].offset, level: run[0].level + 1, sequence: c.ids.next(c.now(), live.last())}
		one.key = segmentKey(id, one.offset, one.level, one.sequence)
		r := c.read(ctx, id, live, one.offset, live.size())
		n, readErr, err := c.put(ctx, one.key, r, putting{})
		if err = errors.Join(readErr, err, r.end()); err != nil {
			return nil, err
		}
		one.size = n
		if err := c.removeAll(ctx, run); err != nil {
			return nil, err
		}
		live = append(slices.Clone(live[:from]), one)
	}
}
