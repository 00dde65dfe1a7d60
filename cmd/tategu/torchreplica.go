package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"syscall"

	"tategu/internal/app"
	"tategu/internal/modelformat"
	"tategu/internal/telemetry"
)

// torchReplica serves an archive of TorchServe's for a replica set: the server starts it.
func torchReplica(args []string) (err error) {
	r := app.TorchReplica{Port: os.Getenv("PORT"), Key: os.Getenv(modelformat.TorchKeyVariable)}
	if err := os.Unsetenv(modelformat.TorchKeyVariable); err != nil { // workers have no business with it
		return err
	}
	set := flag.NewFlagSet(app.TorchVerb, flag.ContinueOnError)
	set.StringVar(&r.Python, "python", "", "interpreter with the packages torchserve and torch")
	set.IntVar(&r.Workers, "workers", 1, "worker processes")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() != 1 || r.Port == "" {
		return errors.New("the server starts such replicas itself")
	}
	r.Archive = set.Arg(0)
	if r.Log, err = telemetry.NewLogger(os.Stderr, telemetry.Text, "info"); err != nil {
		return err
	}
	if r.Work, err = os.MkdirTemp("", "torch-replica-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.Work)) }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return r.Run(ctx)
}
