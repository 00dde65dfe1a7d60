package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"tategu/internal/batch/score"
	"tategu/internal/modelformat"
)

// A worker's heap beside the sections that it holds is small; the collector keeps it so.
const (
	workerHeap      = 96 << 20
	workerGrowth    = 50 // percent
	workerArguments = 1
)

// batchWorker evaluates a model file for batch prediction jobs: the server starts it.
// The runtime has it give way to whatever serves requests.
func batchWorker(args []string) error {
	port := os.Getenv("PORT")
	if len(args) != workerArguments || port == "" {
		return errors.New("the server starts batch workers itself")
	}
	debug.SetMemoryLimit(workerHeap)
	debug.SetGCPercent(workerGrowth)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f, err := os.Open(args[0]) //nolint:gosec // the server names it
	if err != nil {
		return fmt.Errorf("open the model: %w", err)
	}
	model, err := modelformat.ReadNative(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "batch worker:", model.Describe())
	return score.Serve(ctx, l, model, score.Host{Leave: newCores(func(text string) { fmt.Fprintln(os.Stderr, "batch worker:", text) }).leave, Secret: os.Getenv(score.SecretVariable)})
}
