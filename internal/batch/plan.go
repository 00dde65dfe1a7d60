package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/batch/score"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// Kinds of rows beside the jobs' own. They go in the transaction that ends the job.
const (
	kindPlan    store.Kind = "batchPlan"    // key: the job; how its input is cut
	kindSection store.Kind = "batchSection" // key: sectionKey; parent: the job; a section that is done
)

// Sizes of sections: small enough that little is done twice after a kill, large
// enough that there are not very many files.
const (
	sectionMost   = 64 << 20
	sectionNative = 8 << 20
	sectionPlaced = 16 << 20 // of files that workers read, with which the server has nothing in memory
	sectionRemote = 1 << 20
	sectionFiles  = 64 << 10 // of a list of files
	sectionsGoal  = 1000
)

// plan is how the input of a job is cut into sections, each of which becomes one
// file of results and one of errors. It is made once and kept, so that a job that
// starts again cuts the same.
type plan struct {
	Inputs   []input   `json:"inputs"`
	Sections []section `json:"sections"`
	Key      string    `json:"key,omitempty"` // kind of the key, see package score
	Dir      string    `json:"dir,omitempty"` // of the files; "" = by an earlier version, or there are none
	// Secret is what workers know the server by; "" = by an earlier version: they read no files.
	Secret string `json:"secret,omitempty"`
}

// input is one object.
type input struct {
	Bucket     string   `json:"bucket"`
	Name       string   `json:"name"`
	Generation int64    `json:"generation"`
	Gzip       bool     `json:"gzip,omitempty"`
	Length     int64    `json:"length"`            // bytes, unpacked, after the header; rows of Parquet
	Header     int64    `json:"header,omitempty"`  // bytes of CSV's
	Columns    []string `json:"columns,omitempty"` // of CSV and Parquet
	Placed     bool     `json:"-"`                 // workers read it by themselves
	Step       int64    `json:"step"`              // length of a section
	CRC32C     uint32   `json:"crc32c,omitempty"`  // of the object
}

func (i input) uri() string { return "gs://" + i.Bucket + "/" + i.Name }

// section is one or more pieces of inputs, one after the other.
type section []piece

// piece is the records of an input that begin in [From, To).
type piece struct {
	Input int   `json:"input"`
	From  int64 `json:"from"`
	To    int64 `json:"to"`
}

func sectionKey(job string, n int) string { return fmt.Sprintf("%s/%06d", job, n) }

// planned reads the job's plan, or makes one.
func (r *run) planned(ctx context.Context, model *pb.Model) (*plan, error) {
	p := &plan{}
	row, err := r.engine.cfg.Store.Get(ctx, kindPlan, r.job.GetName())
	if err == nil {
		return p, json.Unmarshal(row.Data, p)
	}
	if !r.table {
		p.Dir = directory(r.job, model)
	}
	if !resource.IsNotFound(err) {
		return nil, err
	}
	if err := r.look(ctx, p); err != nil {
		return nil, err
	}
	p.cut()
	p.Secret = resource.RandomID()
	if err := r.firstKey(ctx, p); err != nil {
		return nil, err
	}
	text, err := json.Marshal(p) //nolint:gosec // its secret is kept in our own row alone
	if err != nil {
		return nil, err
	}
	return p, r.engine.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return tx.Put(ctx, store.Row{Kind: kindPlan, Key: r.job.GetName(), Data: text})
	})
}

// look finds out what the inputs are.
func (r *run) look(ctx context.Context, p *plan) error {
	objects, err := r.inputs(ctx, r.job.GetInputConfig().GetGcsSource().GetUris())
	if err != nil {
		return err
	}
	total, placed := int64(0), true
	for _, o := range objects {
		in, err := r.inspect(ctx, o)
		if err != nil {
			return err
		}
		total += in.Length
		placed = placed && in.Placed
		p.Inputs = append(p.Inputs, in)
	}
	if r.format == score.Parquet {
		return nil // counted in rows
	}
	least := int64(sectionNative)
	switch {
	case r.format == score.FileList:
		least = sectionFiles
	case r.remote:
		least = sectionRemote
	case placed: // each core gets several, so that none is done long before the others
		least = min(max(least, total/int64(4*r.width)), sectionPlaced)
	}
	step := min(max(least, total/sectionsGoal), sectionMost)
	for i := range p.Inputs {
		p.Inputs[i].Step = step
	}
	return nil
}

// cut makes the sections: an input by its steps, small ones together. What has other
// columns than what is before it begins a section.
func (p *plan) cut() {
	var open section
	size := int64(0)
	flush := func() {
		if len(open) > 0 {
			p.Sections = append(p.Sections, open)
		}
		open, size = nil, 0
	}
	for i, in := range p.Inputs {
		if i > 0 && !slices.Equal(in.Columns, p.Inputs[i-1].Columns) {
			flush()
		}
		for from := int64(0); from < in.Length || from == 0; from += in.Step {
			to := min(from+in.Step, in.Length)
			if size > 0 && size+to-from > in.Step {
				flush()
			}
			open, size = append(open, piece{Input: i, From: from, To: to}), size+to-from
		}
	}
	flush()
}

// firstKey finds the kind of the key in the first row, where the output has types.
func (r *run) firstKey(ctx context.Context, p *plan) (err error) {
	if Instances(r.job).GetKeyField() == "" || !r.typed() {
		return nil
	}
	p.Key = score.KeyText
	src := r.source(p)
	defer func() { err = errors.Join(err, src.Close()) }()
	for _, s := range p.Sections {
		spec, body, err := src.section(ctx, s, nil)
		if err != nil {
			return err
		}
		if key := score.FirstKey(spec, body); key != nil {
			p.Key = score.KindOf(key)
			return nil
		}
	}
	return nil
}

// done reads the sections that are finished.
func (r *run) done(ctx context.Context) (map[int]score.Stats, error) {
	rows, err := r.engine.cfg.Store.List(ctx, store.Query{Kind: kindSection, Parent: r.job.GetName()})
	if err != nil {
		return nil, err
	}
	done := make(map[int]score.Stats, len(rows))
	for _, row := range rows {
		var s struct {
			N     int         `json:"n"`
			Stats score.Stats `json:"stats"`
		}
		if err := json.Unmarshal(row.Data, &s); err != nil {
			return nil, fmt.Errorf("section %s: %w", row.Key, err)
		}
		done[s.N] = s.Stats
	}
	return done, nil
}

// record keeps that a section is done, and how far the job is.
func (r *run) record(ctx context.Context, n int, stats score.Stats) error {
	text, err := json.Marshal(map[string]any{"n": n, "stats": stats})
	if err != nil {
		return err
	}
	return r.engine.change(ctx, r.job.GetName(), &pb.BatchPredictionJob{}, func(tx store.Tx, job *pb.BatchPredictionJob) error {
		row := store.Row{Kind: kindSection, Key: sectionKey(r.job.GetName(), n), Parent: r.job.GetName(), Data: text}
		if err := tx.Put(ctx, row); err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.finished[n] = stats
		job.CompletionStats = r.stats()
		return nil
	})
}

// stats adds up what is done. The caller holds the lock.
func (r *run) stats() *pb.CompletionStats {
	s := &pb.CompletionStats{IncompleteCount: -1} // nobody has counted what is not read yet
	for _, one := range r.finished {
		s.SuccessfulCount += one.Successful
		s.FailedCount += one.Failed
	}
	if r.plan != nil && len(r.finished) == len(r.plan.Sections) {
		s.IncompleteCount = 0
	}
	return s
}

// samples gives the first failures.
func (r *run) samples() (errs []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range len(r.plan.Sections) {
		for _, f := range r.finished[n].Failures {
			if len(errs) == partialsShown {
				return errs
			}
			errs = append(errs, f.Error())
		}
	}
	return errs
}

// forget removes what was kept of a job that ends.
func forget(ctx context.Context, tx store.Tx, job string) error {
	if err := forgetSections(ctx, tx, job); err != nil {
		return err
	}
	return tx.Delete(ctx, kindPlan, job)
}

func forgetSections(ctx context.Context, tx store.Tx, job string) error {
	rows, err := tx.List(ctx, store.Query{Kind: kindSection, Parent: job})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := tx.Delete(ctx, kindSection, row.Key); err != nil {
			return err
		}
	}
	return nil
}
