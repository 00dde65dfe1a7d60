package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tategu/bench/harness"
)

const queriesAsked = 1000 // different ones, of which the truth of the first is known

// small is the index that is timed: built from JSON and from Avro, asked over both
// protocols, asked with upserts, brought back from idleness.
func (b *bench) small(ctx context.Context, s *server) error {
	space := newSpace(b.seeds)
	queries := space.queries(queriesAsked)
	truth := newExact(queries[:truths])
	if err := s.bucket(ctx, bucketName); err != nil {
		return err
	}
	endpoint, err := s.endpoint(ctx)
	if err != nil {
		return err
	}
	var index *deployed
	for _, format := range []string{"avro", "json"} {
		if index != nil {
			if err := index.drop(ctx); err != nil {
				return err
			}
		}
		note("write %d datapoints as %s", b.rows, format)
		f := file{rows: b.rows, seen: func(int, []float32) {}}
		write := f.avro(ctx, space)
		if format == "json" {
			f.seen = truth.see
			write = f.json(ctx, space)
		}
		if err := s.upload(ctx, bucketName, format+"/points."+format, write); err != nil {
			return err
		}
		begun := time.Now()
		if index, err = s.build(ctx, endpoint, format); err != nil {
			return err
		}
		took := time.Since(begun)
		b.build = max(b.build, took)
		i, err := index.info(ctx)
		if err != nil {
			return err
		}
		say("%d x %d as %-4s: built and deployed in %.1f s (%s; it measured a recall of %.3f)\n", b.rows, dims, format, took.Seconds(), i.Method, i.Recall)
	}
	all, err := index.protocols(queries)
	if err != nil {
		return err
	}
	for _, p := range all {
		l, err := b.alone(ctx, p, truth)
		if err != nil {
			return err
		}
		b.p50, b.p99 = max(b.p50, l.p50), max(b.p99, l.p99)
	}
	for i, p := range all {
		l, err := b.beside(ctx, p, index, space.stream(ofUpserts+uint64(i)), i<<24)
		if err != nil {
			return err
		}
		b.p99Upserts = max(b.p99Upserts, l.p99)
	}
	if err := b.updating(ctx, all[0], index, "avro"); err != nil {
		return err
	}
	return b.reload(ctx, index, all[0])
}

// updating is a load while the index is built anew of its files.
func (b *bench) updating(ctx context.Context, p protocol, index *deployed, folder string) error {
	var all sync.WaitGroup
	var failed error
	var took time.Duration
	begun := time.Now()
	all.Go(func() {
		failed = index.update(ctx, folder)
		took = time.Since(begun)
	})
	l := open(ctx, b.qps, b.length(), p.do)
	all.Wait()
	say("%s and a batch update, of %.1f s, for %d s: p50 %s ms, p99 %s ms, worst %s ms\n", p.name, took.Seconds(), b.seconds, ms(l.p50), ms(l.p99), ms(l.worst))
	return errors.Join(failed, l.err())
}

func (b *bench) length() time.Duration { return time.Duration(b.seconds) * time.Second }

// alone is a load with nothing else at work.
func (b *bench) alone(ctx context.Context, p protocol, truth *exact) (load, error) {
	share, err := recall(ctx, p, truth) // warms, too
	if err != nil {
		return load{}, err
	}
	l := open(ctx, b.qps, b.length(), p.do)
	say("%s: %d requests/s for %d s: p50 %s ms, p99 %s ms, worst %s ms; recall@%d %.3f\n", p.name, b.qps, b.seconds, ms(l.p50), ms(l.p99), ms(l.worst), neighbors, share)
	return l, l.err()
}

// beside is a load with upserts, in whose middle the server merges what was streamed.
func (b *bench) beside(ctx context.Context, p protocol, index *deployed, next func([]float32), first int) (load, error) {
	const mergeAt = 4096 // of the server, unless it is told
	i, err := index.info(ctx)
	if err != nil {
		return load{}, err
	}
	n := max(0, mergeAt-b.upserts*b.seconds/2-i.Unmerged)
	for at := 0; at < n; at += 100 {
		if err := index.upsert(ctx, next, first+at, min(100, n-at)); err != nil {
			return load{}, err
		}
	}
	for k := range 50 { // warm
		if err := p.do(ctx, k); err != nil {
			return load{}, err
		}
	}
	var mu sync.Mutex // of next
	var up load
	var all sync.WaitGroup
	all.Go(func() {
		up = open(ctx, b.upserts, b.length(), func(ctx context.Context, k int) error {
			mu.Lock()
			v := make([]float32, dims)
			next(v)
			mu.Unlock()
			return index.upsert(ctx, func(into []float32) { copy(into, v) }, first+n+k, 1)
		})
	})
	l := open(ctx, b.qps, b.length(), p.do)
	all.Wait()
	after, err := index.info(ctx)
	if err != nil {
		return l, err
	}
	merged := "no merge"
	if after.Segments > i.Segments || after.Unmerged < n {
		merged = "with a merge"
	}
	say("%s and %d upserts/s for %d s (%s): p50 %s ms, p99 %s ms, worst %s ms; an upsert: p50 %s ms, p99 %s ms\n",
		p.name, b.upserts, b.seconds, merged, ms(l.p50), ms(l.p99), ms(l.worst), ms(up.p50), ms(up.p99))
	if err := up.err(); err != nil {
		return l, fmt.Errorf("upserts: %w", err)
	}
	return l, l.err()
}

// reload is the first query of an index that had left memory.
func (b *bench) reload(ctx context.Context, index *deployed, p protocol) error {
	var worst, best time.Duration
	const times = 3
	for n := range times {
		err := harness.Until(ctx, time.Minute, poll, "the index has left memory", func() (bool, error) {
			i, err := index.info(ctx)
			return i.Bytes == 0, err
		})
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := p.do(ctx, n); err != nil {
			return err
		}
		took := time.Since(begun)
		worst = max(worst, took)
		if n == 0 || took < best {
			best = took
		}
	}
	say("first query of an index that was idle: reload_ms=%s (best of %d: %s)\n", ms(worst), times, ms(best))
	return nil
}

// large is the index whose memory is measured. Its files are Avro, whose floats are
// four bytes: on the disk are the files, then the segment.
func (b *bench) large(ctx context.Context, s *server) error {
	space := newSpace(b.seeds)
	queries := space.queries(queriesAsked)
	if err := s.bucket(ctx, bucketName); err != nil {
		return err
	}
	note("write %d datapoints as avro", b.million)
	const perFile, folder = 100_000, "million"
	truth := newExact(queries[:truths])
	var names []string
	for first := 0; first < b.million; first += perFile {
		f := file{number: len(names), first: first, rows: min(perFile, b.million-first), seen: truth.see}
		name := fmt.Sprintf("%s/points-%02d.avro", folder, f.number)
		if err := s.upload(ctx, bucketName, name, f.avro(ctx, space)); err != nil {
			return err
		}
		names = append(names, name)
	}
	endpoint, err := s.endpoint(ctx)
	if err != nil {
		return err
	}
	note("build an index of %d datapoints", b.million)
	begun := time.Now()
	watched, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	var builder int64
	all.Go(func() { builder = s.watchBuilders(watched) })
	index, err := s.build(ctx, endpoint, folder)
	stop()
	all.Wait()
	if err != nil {
		return err
	}
	took := time.Since(begun)
	for _, name := range names {
		if err := s.remove(ctx, bucketName, name); err != nil {
			return err
		}
	}
	peak, err := s.memory("VmHWM")
	if err != nil {
		return err
	}
	i, err := index.info(ctx)
	if err != nil {
		return err
	}
	say("%d x %d as avro: built and deployed in %.1f s, with up to %d MiB of memory, and %d MiB of the process that built it (%s; it measured a recall of %.3f)\n",
		b.million, dims, took.Seconds(), peak>>20, builder>>20, i.Method, i.Recall)
	protocols, err := index.protocols(queries)
	if err != nil {
		return err
	}
	for _, p := range protocols {
		if err := b.resident(ctx, s, p, truth); err != nil {
			return err
		}
	}
	return nil
}

// watchBuilders gives the most memory that a process which builds has had, until ctx ends.
func (s *server) watchBuilders(ctx context.Context) (most int64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		most = max(most, s.builders())
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
		}
	}
}

// resident is a load during which the server's memory is read, mapped files included.
func (b *bench) resident(ctx context.Context, s *server, p protocol, truth *exact) error {
	done := make(chan struct{})
	var all sync.WaitGroup
	var most, own int64
	var failed error
	all.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			now, err := s.memory("VmRSS")
			if err != nil {
				failed = err
				return
			}
			if now > most {
				most = now
				own, failed = s.memory("RssAnon")
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	_, err := b.alone(ctx, p, truth)
	close(done)
	all.Wait()
	if err == nil {
		err = failed
	}
	say("%s: resident up to %d MiB, of which %d MiB are mapped files\n", p.name, most>>20, (most-own)>>20)
	b.rss = max(b.rss, most)
	return err
}
