package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tategu/internal/load"
)

// turns gives every contestant its turn in each round, and gives back those that went
// through all of them; why others did not is told.
func (b *bench) turns(ctx context.Context, all []*contestant) []*contestant {
	for range b.rounds {
		all = slices.DeleteFunc(all, func(c *contestant) bool {
			err := c.turn(ctx, b.closed, b.knee)
			if err != nil {
				say("without %s: %v\n", c.name, err)
			}
			return err != nil
		})
	}
	return all
}

// best and median of what a contestant's rounds measured; less says what is better.
func lowest[T cmp.Ordered](c *contestant, of func(round) T) (best, median T) {
	values := make([]T, len(c.rounds))
	for i, r := range c.rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[0], values[len(values)/2]
}

func highest[T cmp.Ordered](c *contestant, of func(round) T) (best, median T) {
	_, median = lowest(c, of)
	values := make([]T, len(c.rounds))
	for i, r := range c.rounds {
		values[i] = of(r)
	}
	return slices.Max(values), median
}

func rate(c *contestant) float64 {
	best, _ := highest(c, func(r round) float64 { return r.rate })
	return best
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func table(subject string, all []*contestant) {
	say("\n%s: servers on one core, load on another; best (median) of %d rounds\n", subject, len(all[0].rounds))
	say("%-26s %17s %15s %15s %19s %9s %9s %9s %8s\n", "", "req/s, 16 callers", "CPU µs/request", "CPU µs, 1 call", "p50 µs, one caller", "knee/s", "p50 70%", "p99 70%", "PSS MB")
	for _, c := range all {
		rate, rateMedian := highest(c, func(r round) float64 { return r.rate })
		cpu, cpuMedian := lowest(c, func(r round) time.Duration { return r.cpu })
		one, oneMedian := lowest(c, func(r round) time.Duration { return r.cpuAlone })
		alone, aloneMedian := lowest(c, func(r round) time.Duration { return r.alone })
		p50, _ := lowest(c, func(r round) time.Duration { return r.p50 })
		p99, _ := lowest(c, func(r round) time.Duration { return r.p99 })
		_, memory := lowest(c, func(r round) float64 { return r.memory })
		say("%-26s %8.0f (%6.0f) %6.0f (%6.0f) %6.0f (%6.0f) %9.0f (%7.0f) %9.0f %9s %9s %8.0f\n", c.name, rate, rateMedian,
			micros(cpu), micros(cpuMedian), micros(one), micros(oneMedian), micros(alone), micros(aloneMedian), c.knee, load.Told(p50), load.Told(p99), memory)
	}
}

// zero measures the first request of a model that has no replica.
func (b *bench) zero(ctx context.Context) ([]string, error) {
	var out []string
	for _, m := range [][3]string{{"onnx", "3001", "zero_native_ms"}, {"sklearn", "3002", "zero_python_ms"}, {"cpr", "3003", "zero_cpr_ms"}} {
		best, err := b.fromZero(ctx, m[0], m[1])
		if err != nil {
			say("from zero, %s: %v\n", m[0], err)
			continue
		}
		say("from zero, %s: best of %d: %s\n", m[0], b.rounds, load.Told(best))
		out = append(out, fmt.Sprintf("%s=%.0f", m[2], best.Seconds()*1e3))
	}
	return out, nil
}

func (b *bench) fromZero(ctx context.Context, kind, id string) (time.Duration, error) {
	rows, err := os.ReadFile(filepath.Join(b.models, kind, "rows.json"))
	if err != nil {
		return 0, err
	}
	bodies, err := requests("instances", rows)
	if err != nil {
		return 0, err
	}
	artifact, err := b.server.upload(ctx, "zero-"+kind, filepath.Join(b.models, kind, "model"))
	if err != nil {
		return 0, err
	}
	endpoint, err := b.server.deploy(ctx, id, imageOf(kind), artifact, map[string]any{
		"minReplicaCount": 0, "maxReplicaCount": 1, "scaleToZeroSpec": map[string]any{"idleScaledownPeriod": "1s", "minScaleupPeriod": "1s"},
	})
	if err != nil {
		return 0, err
	}
	target, err := b.server.through(endpoint, "predict", "", bodies)
	if err != nil {
		return 0, err
	}
	best := time.Hour
	for i := range b.rounds {
		if err := b.server.idle(ctx, endpoint); err != nil {
			return 0, err
		}
		sent := time.Now()
		if failure, detail := target.Do(ctx, i); failure != "" {
			return 0, fmt.Errorf("%s: %s", failure, detail)
		}
		best = min(best, time.Since(sent))
	}
	return best, nil
}

// model measures one kind of model in all servers that can be had.
func (b *bench) model(ctx context.Context, kind string) ([]string, error) {
	rows, err := os.ReadFile(filepath.Join(b.models, kind, "rows.json"))
	if err != nil {
		return nil, err
	}
	all, err := b.contestants(ctx, kind, rows)
	if err != nil {
		return nil, err
	}
	own, err := b.ours(ctx, kind, rows)
	if err != nil {
		say("%s: not in tategu: %v\n", kind, err)
	}
	all = append(all, own...)
	if all = b.turns(ctx, all); len(all) == 0 {
		return nil, errTurns
	}
	table(kind, all)
	return compare(kind, all, own), nil
}

var errTurns = errors.New("what was to be compared did not answer")

// compare gives how many times as much as the better FastAPI server the endpoint takes.
func compare(kind string, all, own []*contestant) []string {
	fast := 0.0
	for _, c := range all {
		if c.server != nil && (c.name == "fastapi, 1 worker" || c.name == "fastapi, 2 workers") {
			fast = max(fast, rate(c))
		}
	}
	if fast == 0 || len(own) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s_vs_fastapi=%.1fx", kind, rate(own[len(own)-1])/fast)}
}

// ours is the model in tategu: at its own program's port where it has one, and last
// through the endpoint.
func (b *bench) ours(ctx context.Context, kind string, rows []byte) ([]*contestant, error) {
	artifact, err := b.server.upload(ctx, kind, filepath.Join(b.models, kind, "model"))
	if err != nil {
		return nil, err
	}
	endpoint, err := b.server.replicated(ctx, map[string]string{"lgbm": "2001", "onnx": "2002", "sklearn": "2003"}[kind], imageOf(kind), artifact)
	if err != nil {
		return nil, err
	}
	bodies, err := requests("instances", rows)
	if err != nil {
		return nil, err
	}
	far, err := b.server.through(endpoint, "predict", "", bodies)
	if err != nil {
		return nil, err
	}
	through := &contestant{name: "tategu, through the endpoint", target: far, server: b.server.process, shared: true}
	address, err := b.server.replica(endpoint)
	if err != nil {
		return []*contestant{through}, nil //nolint:nilerr // evaluated in the server itself: there is no other way to it
	}
	near, err := load.NewEndpoint(load.EndpointConfig{
		Address: address, Path: "/v1/endpoints/" + filepath.Base(endpoint) + "/deployedModels/" + b.server.deployed(ctx, endpoint) + ":predict", Bodies: bodies,
	})
	if err != nil {
		return nil, err
	}
	direct := &contestant{name: "tategu, its replica direct", target: near, server: b.server.process, shared: true}
	if err := direct.works(ctx); err != nil {
		say("%s: without its replica, direct: %v\n", kind, err)
		return []*contestant{through}, nil
	}
	return []*contestant{direct, through}, nil
}

// imageOf is the image that a model is uploaded with; "" where the file alone says it.
func imageOf(kind string) string {
	switch kind {
	case "sklearn":
		return "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"
	case "cpr":
		return "tategu/cpr:3.11"
	}
	return ""
}
