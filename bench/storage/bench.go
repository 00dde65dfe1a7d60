package main

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// bench holds what all measurements share.
type bench struct {
	options
	dir, source string
	servers     []*server // tategu first
}

// rates are the values of one measurement, larger is better.
type rates []float64

func (r rates) median() float64 {
	s := slices.Sorted(slices.Values(r))
	if len(s) == 0 {
		return 0
	}
	return s[len(s)/2]
}

func (b *bench) all(ctx context.Context) error {
	large, err := b.large(ctx)
	if err != nil {
		return err
	}
	small, err := b.smallObjects(ctx)
	if err != nil {
		return err
	}
	if err := b.lists(ctx); err != nil {
		return err
	}
	rss, err := b.servers[0].status("VmRSS")
	if err != nil {
		return err
	}
	fmt.Printf("up_vs_cp=%.2fx down_vs_cp=%.2fx small_per_s=%.0f rss_mb=%.0f\n",
		large["tategu up"].median()/large["cp and fsync"].median(), large["tategu down"].median()/large["cp"].median(), small, float64(rss)/1e6)
	return nil
}

// copies are the yardsticks: cp of the same file, and cp that ends on the disk.
func (b *bench) copies(ctx context.Context) map[string]func() error {
	target := filepath.Join(b.dir, "copy")
	command := func(script string) func() error {
		return func() error {
			out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", b.source, target).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s: %w: %s", script, err, out)
			}
			return err
		}
	}
	return map[string]func() error{"cp": command(`cp "$1" "$2"`), "cp and fsync": command(`cp "$1" "$2" && sync "$2"`)}
}

// work lists the measurements of a round, in order.
func (b *bench) work(ctx context.Context) (names []string, do map[string]func() error) {
	do = b.copies(ctx)
	do["MD5 alone"] = func() error {
		f, err := os.Open(b.source)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{md5.New()}, struct{ io.Reader }{f}, make([]byte, buffer))
		return errors.Join(err, f.Close())
	}
	names = []string{"cp", "cp and fsync", "MD5 alone"}
	size := b.megabytes * 1_000_000
	add := func(name string, f func() error) { names, do[name] = append(names, name), f }
	for _, s := range b.servers {
		add(s.name+" up", func() error { return s.uploadFile(ctx, "big", "object", b.source) })
		add(s.name+" down", func() error { return s.download(ctx, "big", "object", io.Discard, size) })
		add(s.name+" down to a file", func() error {
			f, err := os.Create(filepath.Join(b.dir, "copy"))
			if err != nil {
				return err
			}
			return errors.Join(s.download(ctx, "big", "object", f, size), f.Close())
		})
	}
	return names, do
}

// large moves one large object up and down. Each round does everything once; a
// file that a step made is removed, and the disk is idle, before the next.
func (b *bench) large(ctx context.Context) (map[string]rates, error) {
	before, err := b.servers[0].status("VmHWM")
	if err != nil {
		return nil, err
	}
	names, do := b.work(ctx)
	got := map[string]rates{}
	for range b.repeats {
		for _, name := range names {
			began := time.Now()
			if err := do[name](); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			got[name] = append(got[name], float64(b.megabytes)/time.Since(began).Seconds())
			if err := os.Remove(filepath.Join(b.dir, "copy")); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			if err := exec.CommandContext(ctx, "sync", "-f", b.dir).Run(); err != nil {
				return nil, fmt.Errorf("sync: %w", err)
			}
		}
	}
	after, err := b.servers[0].status("VmHWM")
	if err != nil {
		return nil, err
	}
	fmt.Printf("\n%d MB of random bytes, %d rounds in turns; up: durable when answered (tategu); down: read and dropped by the client; every upload has an MD5, which one core has to compute\n", b.megabytes, b.repeats)
	fmt.Printf("%-32s %10s %10s %10s\n", "MB/s", "slowest", "median", "of cp")
	for _, name := range names {
		yardstick := "cp"
		if name == "cp and fsync" || name == "MD5 alone" || name == "tategu up" {
			yardstick = "cp and fsync"
		}
		r := got[name]
		fmt.Printf("%-32s %10.0f %10.0f %9.2fx  (%s)\n", name, slices.Min(r), r.median(), r.median()/got[yardstick].median(), yardstick)
	}
	fmt.Printf("tategu's memory high water: %.0f MB before, %.0f MB after: +%.0f MB\n", float64(before)/1e6, float64(after)/1e6, float64(after-before)/1e6)
	return got, nil
}

// smallObjects gives tategu's median rate, of the better number of connections.
func (b *bench) smallObjects(ctx context.Context) (float64, error) {
	connections := []int{16, 32}
	got := map[string]rates{}
	key := func(s *server, n int) string { return fmt.Sprintf("%s, %d connections", s.name, n) }
	for round := range b.repeats {
		for _, n := range connections {
			for _, s := range b.servers {
				took, err := s.many(ctx, "small", n, b.small, func(i int) string { return fmt.Sprintf("%d/%d/%d", n, round, i) })
				if err != nil {
					return 0, err
				}
				got[key(s, n)] = append(got[key(s, n)], float64(b.small)/took.Seconds())
			}
		}
	}
	fmt.Printf("\nsmall objects of 1 KB, %d a round; each durable when answered (tategu; fake-gcs-server never syncs)\n", b.small)
	fmt.Printf("%-32s %10s %10s\n", "objects/s", "slowest", "median")
	best := 0.0
	for _, s := range b.servers {
		for _, n := range connections {
			r := got[key(s, n)]
			fmt.Printf("%-32s %10.0f %10.0f\n", key(s, n), slices.Min(r), r.median())
			if s == b.servers[0] {
				best = max(best, r.median())
			}
		}
	}
	return best, nil
}
