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

// TaskOf gives the full name of a run's task by its path ("exit-handler-1/train"),
// or by its own name where that is enough. Programs are meant, not graphs.
func TaskOf(ctx context.Context, r store.Reader, job, name string) (string, error) {
	rows, err := r.List(ctx, store.Query{Kind: KindTasks, Parent: job})
	if err != nil {
		return "", fmt.Errorf("list tasks: %w", err)
	}
	found := ""
	var known []string
	for _, row := range rows {
		t, err := decodeTask(row)
		switch {
		case err != nil:
			return "", err
		case t.Path == name:
			return row.Key, nil
		case t.Kind == kindContainer && t.Name == name:
			found = row.Key
		case t.Kind == kindContainer:
			known = append(known, t.Path)
		}
	}
	if found == "" {
		slices.Sort(known)
		return "", resource.Errorf(codes.NotFound, "the run %s has no task %q", job, name).WithHint("its tasks are: %s", strings.Join(known, " "))
	}
	return found, nil
}

// LatestTask gives the full name of the newest task that is called name, of the
// most that were made last and that may be seen, by their full names.
func LatestTask(ctx context.Context, r store.Reader, name string, most int, may func(task string) bool) (string, error) {
	rows, err := r.List(ctx, store.Query{Kind: KindTasks, Order: store.ByNewest, Limit: most})
	if err != nil {
		return "", fmt.Errorf("list tasks: %w", err)
	}
	for _, row := range rows {
		t, err := decodeTask(row)
		if err != nil {
			return "", err
		}
		if t.Kind == kindContainer && (t.Name == name || t.Path == name) && may(row.Key) {
			return row.Key, nil
		}
	}
	return "", resource.NotFound(name)
}

// TaskEnded reports that a task, by its full name, is done.
func TaskEnded(ctx context.Context, r store.Reader, name string) (bool, error) {
	row, err := r.Get(ctx, KindTasks, name)
	if err != nil {
		return false, err
	}
	return State(row.State).done(), nil
}
