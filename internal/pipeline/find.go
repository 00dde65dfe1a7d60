package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// mostNamed bounds the tasks that an error tells of.
const mostNamed = 100

// TaskOf gives the full name of a run's task by its path ("exit-handler-1/train"),
// or by its own name where that is enough. Programs are meant, not graphs.
func TaskOf(ctx context.Context, r store.Reader, job, name string) (string, error) {
	exact, found := "", ""
	var known []string
	err := eachTask(ctx, r, job, func(t *Task, row store.Row) error {
		switch {
		case t.Path == name:
			exact = row.Key
		case t.Kind == kindContainer && t.Name == name:
			found = row.Key
		case t.Kind == kindContainer && len(known) < mostNamed:
			known = append(known, t.Path)
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case exact != "":
		return exact, nil
	case found == "":
		slices.Sort(known)
		if len(known) == mostNamed {
			known = append(known, "...")
		}
		return "", resource.Errorf(codes.NotFound, "the run %s has no task %q", job, name).WithHint("its tasks are: %s", strings.Join(known, " "))
	}
	return found, nil
}

// LatestTask gives the full name of the newest task that is called name, of the
// most that were made last in each location that may be seen.
func LatestTask(ctx context.Context, r store.Reader, name string, most int, may func(location string) bool) (string, error) {
	locations, err := store.Parents(ctx, r, kindJobs)
	if err != nil {
		return "", fmt.Errorf("list the locations of runs: %w", err)
	}
	var found store.Row
	for _, location := range locations {
		if !may(location) {
			continue
		}
		row, err := latestTask(ctx, r, location, name, most)
		if err != nil {
			return "", err
		}
		if found.Key == "" || row.Created.After(found.Created) {
			found = row
		}
	}
	if found.Key == "" {
		return "", resource.NotFound(name)
	}
	return found.Key, nil
}

// latestTask looks in the runs of a location, the newest first; no key = there is none.
func latestTask(ctx context.Context, r store.Reader, location, name string, most int) (store.Row, error) {
	jobs := store.Query{Kind: kindJobs, Parent: location, Order: store.ByNewest, Limit: 50}
	for most > 0 {
		runs, err := r.List(ctx, jobs)
		if err != nil {
			return store.Row{}, fmt.Errorf("list runs: %w", err)
		}
		for _, run := range runs {
			rows, err := r.List(ctx, store.Query{Kind: KindTasks, Parent: run.Key, Order: store.ByNewest, Limit: most})
			if err != nil {
				return store.Row{}, fmt.Errorf("list tasks: %w", err)
			}
			for _, row := range rows {
				t, err := decodeTask(row)
				if err != nil {
					return store.Row{}, err
				}
				if t.Kind == kindContainer && (t.Name == name || t.Path == name) {
					return row, nil
				}
			}
			if most -= len(rows); most <= 0 {
				break
			}
		}
		if len(runs) < jobs.Limit {
			break
		}
		jobs.Beyond = &runs[len(runs)-1]
	}
	return store.Row{}, nil
}

// TaskEnded reports that a task, by its full name, is done.
func TaskEnded(ctx context.Context, r store.Reader, name string) (bool, error) {
	row, err := r.Get(ctx, KindTasks, name)
	if err != nil {
		return false, err
	}
	return State(row.State).done(), nil
}
