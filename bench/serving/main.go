// Command serving measures what an answer of a model costs: through an endpoint of
// tategu, beside the Python servers that a team would write or take, in turns, all
// on one core, the load on another. See CONTRIBUTING.md for how to run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options of the command line.
type options struct {
	tategu   string
	base     string // an older tategu beside it, for what the way through costs; "" = none
	programs string // folder of the peers' programs
	venvs    string // folder of the peers' environments
	only     string // models, by commas
	rounds   int
	closed   time.Duration // of each closed loop
	knee     bool          // look for it, half a minute for three
	cores    [2]string     // of the servers, of the load
	folder   string        // for everything that is written
	self     string
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] { // the programs that stand for a replica and a splice
		case "echo":
			exit(echo())
		case "splice":
			exit(splice(os.Args[2:]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-serving:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context) (err error) {
	o := options{cores: [2]string{"0", "1"}}
	flag.StringVar(&o.tategu, "tategu", "bin/tategu", "the binary under test")
	flag.StringVar(&o.base, "base", "", "an older binary, measured in turns with it in proxy and image")
	flag.StringVar(&o.programs, "peers", "bench/serving/peers", "folder of the peers' programs")
	flag.StringVar(&o.venvs, "venvs", ".venv/serving", "folder of the peers' environments")
	flag.StringVar(&o.only, "only", "proxy,image,zero,lgbm,onnx,sklearn", "what to measure")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, of which the best and the median are told")
	flag.DurationVar(&o.closed, "closed", time.Second, "how long 16 callers, then one, ask again and again in each round")
	flag.BoolVar(&o.knee, "knee", true, "look for the knee of each server; otherwise what the closed loop got stands for it")
	flag.Parse()
	for _, p := range []*string{&o.tategu, &o.base, &o.programs, &o.venvs} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if o.self, err = os.Executable(); err != nil {
		return err
	}
	if o.folder, err = os.MkdirTemp("", "bench-serving-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.folder)) }()
	b := &bench{options: o}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	var last []string
	for subject := range strings.SplitSeq(o.only, ",") {
		line, err := b.subject(ctx, subject)
		if err != nil {
			return fmt.Errorf("%s: %w", subject, err)
		}
		last = append(last, line...)
	}
	say("%s\n", strings.Join(last, " "))
	return nil
}

// bench holds what is under measurement.
type bench struct {
	options

	models  string // folder of the models, made by peers/models.py
	server  *platform
	older   *platform // of -base; nil = there is none
	running []*process
}

func (b *bench) open(ctx context.Context) error {
	b.models = filepath.Join(b.folder, "models")
	python := filepath.Join(b.venvs, "fastapi", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		return fmt.Errorf("there is no environment to train models in: run `make bench-serving` (%w)", err)
	}
	if out, err := command(ctx, "", python, filepath.Join(b.programs, "models.py"), b.models).CombinedOutput(); err != nil {
		return fmt.Errorf("train the models: %w\n%s", err, out)
	}
	var err error
	if b.server, err = startPlatform(ctx, b.options, "tategu", b.tategu); err != nil || b.base == "" {
		return err
	}
	b.older, err = startPlatform(ctx, b.options, "older", b.base)
	return err
}

func (b *bench) close() error {
	var errs []error
	for _, p := range b.running {
		errs = append(errs, p.stop())
	}
	for _, p := range []*platform{b.server, b.older} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	return errors.Join(errs...)
}

// subject measures one thing and gives its part of the last line.
func (b *bench) subject(ctx context.Context, name string) ([]string, error) {
	switch name {
	case "proxy":
		return b.proxy(ctx)
	case "image":
		return b.image(ctx)
	case "zero":
		return b.zero(ctx)
	case "lgbm", "onnx", "sklearn":
		return b.model(ctx, name)
	}
	return nil, errors.New("it is none of proxy, image, zero, lgbm, onnx, sklearn")
}

func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format, args...) } // nobody reads on: nothing to do
