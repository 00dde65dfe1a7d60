// Command benchstorage measures tategu's storage beside a plain file copy and
// fake-gcs-server, in turns, on the same work and the same file system.
//
//	benchstorage -tategu BINARY [-fake BINARY] [-repeats 5] [-dir FOLDER]
//
// The client of all measurements is this program: net/http with buffers of 1 MB,
// which sends files by sendfile(2). The last line is
// `up_vs_cp=…x down_vs_cp=…x small_per_s=… rss_mb=…`.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
)

type options struct {
	tategu, fake, dir string
	repeats           int
	megabytes         int64
	small, listed     int
}

func main() {
	var o options
	flag.StringVar(&o.tategu, "tategu", "bin/tategu", "the binary under test")
	flag.StringVar(&o.fake, "fake", "", "fake-gcs-server's binary; without it that column is left out")
	flag.StringVar(&o.dir, "dir", "", "folder for all data (default: a temporary one)")
	flag.IntVar(&o.repeats, "repeats", 5, "rounds; minimum and median are printed")
	flag.Int64Var(&o.megabytes, "megabytes", 512, "size of the large object, in units of 1,000,000 bytes")
	flag.IntVar(&o.small, "small", 3000, "small objects a round")
	flag.IntVar(&o.listed, "listed", 100_000, "objects in the bucket that is listed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-storage:", err)
		os.Exit(1)
	}
}

// run starts both servers on folders beside each other and measures in turns.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "bench-storage-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, binary := range []*string{&o.tategu, &o.fake} {
		if *binary != "" {
			if *binary, err = filepath.Abs(*binary); err != nil {
				return err
			}
		}
	}
	source := filepath.Join(dir, "random")
	if err := randomFile(source, o.megabytes*1_000_000); err != nil {
		return err
	}
	own, err := startTategu(ctx, o.tategu, filepath.Join(dir, "tategu"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, own.stop()) }()
	servers := []*server{own}
	if o.fake == "" {
		fmt.Println("fake-gcs-server: not built here, so its column is left out")
	} else {
		fake, err := startFake(ctx, o.fake, filepath.Join(dir, "fake"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, fake.stop()) }()
		servers = append(servers, fake)
	}
	b := bench{options: o, dir: dir, source: source, servers: servers}
	return b.all(ctx)
}

func randomFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}
