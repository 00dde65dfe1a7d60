package app

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/api/console"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
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
	details, err := pipeline.Details(ctx, l.m.store, name, nil)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, d := range details {
		names[strconv.FormatInt(d.GetTaskId(), 10)] = d.GetTaskName()
	}
	return names, nil
}

// Read implements console.Logs. What a program that is still known has written is
// read where it wrote it: it is put away a little later.
func (l logs) Read(ctx context.Context, stream string, offset int64, limit int) ([]byte, error) {
	owner, workload, _ := strings.Cut(stream, "|")
	in, err := l.m.runtime.Find(ctx, workload)
	if err == nil && owner == in.Owner() {
		p, err := readFrom(ctx, in, offset, limit)
		if err == nil {
			return p, nil
		}
		if !resource.IsNotFound(err) {
			return nil, err
		}
	} else if err != nil && !resource.IsNotFound(err) {
		return nil, err
	}
	return l.m.blobs.ReadLog(ctx, stream, offset, limit)
}

// Size implements console.Logs.
func (l logs) Size(ctx context.Context, stream string) (_ int64, err error) {
	kept, err := l.m.blobs.LogSize(ctx, stream)
	if err != nil {
		return 0, err
	}
	owner, workload, _ := strings.Cut(stream, "|")
	in, err := l.m.runtime.Find(ctx, workload)
	if resource.IsNotFound(err) || err == nil && owner != in.Owner() {
		return kept, nil
	}
	if err != nil {
		return 0, err
	}
	r, err := in.Log(ctx, kept) // what came after is small
	if resource.IsNotFound(err) {
		return kept, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if f, ok := r.(io.Seeker); ok {
		size, err := f.Seek(0, io.SeekEnd)
		return max(size, kept), err
	}
	more, err := io.Copy(io.Discard, r)
	return kept + more, err
}

func readFrom(ctx context.Context, in runtime.Instance, offset int64, limit int) (_ []byte, err error) {
	r, err := in.Log(ctx, offset)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(io.LimitReader(r, int64(limit)))
}

// Workloads implements console.Logs.
func (l logs) Workloads(ctx context.Context, name string) ([]console.Workload, error) {
	known, err := l.m.runtime.List(ctx)
	if err != nil {
		return nil, err
	}
	out := []console.Workload{}
	for _, in := range known {
		if below, ok := strings.CutPrefix(in.Owner(), name); !ok || below != "" && below[0] != '/' {
			continue
		}
		st := in.Status()
		w := console.Workload{ID: in.ID(), Phase: string(st.Phase), Message: st.Message, Address: in.Address(), Started: st.Started}
		if q := st.Queue; q != nil {
			w.Queue = &console.Queue{Position: q.Position, Length: q.Length, Waits: q.Waits}
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b console.Workload) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
