package app

import (
	"context"
	"strconv"
	"strings"

	"tategu/internal/api/console"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// logs finds the output of whatever ran for a resource.
type logs struct{ m *Main }

// Streams implements console.Logs: the streams of the resource itself and of
// what lies below it, such as the tasks of a run, oldest first.
func (l logs) Streams(ctx context.Context, name string) ([]console.Stream, error) {
	tasks, err := l.taskNames(ctx, name)
	if err != nil {
		return nil, err
	}
	rows, err := l.m.store.List(ctx, store.Query{Kind: kindLogs, Prefix: name, Order: store.ByCreated})
	if err != nil {
		return nil, err
	}
	var out []console.Stream
	for _, row := range rows {
		owner, workload, _ := strings.Cut(row.Key, "|")
		below, ok := strings.CutPrefix(owner, name)
		if !ok || below != "" && below[0] != '/' {
			continue // a sibling whose name starts with ours
		}
		label := workload
		if i := strings.LastIndexByte(below, '/'); i >= 0 {
			label = below[i+1:]
			if task, ok := tasks[label]; ok {
				label = task
			}
		}
		out = append(out, console.Stream{ID: row.Key, Label: label})
	}
	return out, nil
}

// taskNames maps the ids of a run's tasks to the names a person gave them.
func (l logs) taskNames(ctx context.Context, name string) (map[string]string, error) {
	n, err := resource.ParseName(name)
	if err != nil || n.Collection() != resource.KindPipelineJobs {
		return nil, err
	}
	details, err := pipeline.Details(ctx, l.m.store, name)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, d := range details {
		names[strconv.FormatInt(d.GetTaskId(), 10)] = d.GetTaskName()
	}
	return names, nil
}

// Read implements console.Logs.
func (l logs) Read(ctx context.Context, stream string, offset int64, limit int) ([]byte, error) {
	return l.m.blobs.ReadLog(ctx, stream, offset, limit)
}
