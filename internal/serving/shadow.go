package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/serving/shadow"
	"tategu/internal/store"
)

// Labels of an endpoint whose requests are copied to a shadow.
const (
	ShadowLabel         = "tategu-shadow"          // id of a deployed model
	ShadowEndpointLabel = "tategu-shadow-endpoint" // id of the endpoint that it is of; left out: the same
	ShadowPercentLabel  = "tategu-shadow-percent"  // of the requests; left out: 100
)

// ShadowReport is how a shadow answered.
type ShadowReport = shadow.Report

// shadowing says who gets copies of an endpoint's requests.
type shadowing struct {
	endpoint, id string
	rate         float64
}

func shadowOf(endpoint *pb.Endpoint) (*shadowing, error) {
	labels := endpoint.GetLabels()
	s := &shadowing{id: labels[ShadowLabel], endpoint: endpoint.GetName(), rate: 1}
	for name, value := range labels {
		if !strings.HasPrefix(name, ShadowLabel) {
			continue
		}
		invalid := func(format string, args ...any) error {
			return resource.Invalid("endpoint.labels", "the label %s is %q: "+format, append([]any{name, value}, args...)...).
				WithHint("docs/guide/serving.md tells what the labels mean")
		}
		switch name {
		case ShadowLabel:
		case ShadowEndpointLabel:
			location, _, _ := strings.Cut(s.endpoint, "/endpoints/")
			s.endpoint = location + "/endpoints/" + value
		case ShadowPercentLabel:
			n, err := strconv.ParseFloat(value, 64)
			if err != nil || !(n > 0 && n <= 100) {
				return nil, invalid("want a percentage above 0")
			}
			s.rate = n / 100
		default:
			return nil, invalid("there is no such label")
		}
		if s.id == "" {
			return nil, invalid("it goes with %s, which is not set", ShadowLabel)
		}
	}
	if s.id == "" {
		return nil, nil //nolint:nilnil // no shadow is no error
	}
	return s, nil
}

// Bounds of the work for shadows.
const (
	shadowsAtOnce = 8                // requests to shadows
	shadowLimit   = 30 * time.Second // of one
	shadowSave    = 5 * time.Second  // a report is written that often
)

// reports are those of all endpoints with shadows.
type reports struct {
	mu      sync.Mutex
	byName  map[string]*shadow.Report
	changed map[string]bool
}

// change alters the report of an endpoint; another shadow begins a new one.
func (r *reports) change(endpoint, model string, now time.Time, f func(*shadow.Report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.byName[endpoint]
	if report == nil || report.Model != model {
		report = &shadow.Report{Model: model, Since: now}
		r.byName[endpoint] = report
	}
	f(report)
	r.changed[endpoint] = true
}

// drop forgets the report of an endpoint that is gone.
func (r *reports) drop(endpoint string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byName, endpoint)
	delete(r.changed, endpoint)
}

func (e *Engine) dropShadow(at *entry) {
	e.reports.change(at.endpoint.GetName(), at.shadow.key(), e.cfg.Now(), func(r *shadow.Report) { r.Dropped++ })
}

func (s *shadowing) key() string { return resource.DeploymentKey(s.endpoint, s.id) }

// ShadowReport gives the comparison of an endpoint's answers with its shadow's, as
// JSON; NotFound where nothing was copied.
func (e *Engine) ShadowReport(endpoint string) ([]byte, error) {
	e.reports.mu.Lock()
	defer e.reports.mu.Unlock()
	report := e.reports.byName[endpoint]
	if report == nil {
		return nil, resource.Errorf(5, "no request of %s was copied to a shadow", endpoint).WithResource(endpoint).
			WithHint("`tategu shadow %s --to DEPLOYED_MODEL` begins, or the label %s of the endpoint; then send it requests", path.Base(endpoint), ShadowLabel)
	}
	return json.Marshal(report)
}

// runShadows sends copies until ctx ends.
func (e *Engine) runShadows(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	for range shadowsAtOnce {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case x := <-e.shadowed:
					e.shadow(ctx, x)
					x.done()
				}
			}
		})
	}
	tick := time.NewTicker(shadowSave)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shadowSave)
			defer cancel()
			if err := e.saveReports(last); err != nil {
				e.cfg.Log.ErrorContext(ctx, "cannot write what shadows answered", slog.Any("error", err))
			}
			return
		case <-tick.C:
			if err := ignoreCancel(ctx, e.saveReports(ctx)); err != nil {
				e.cfg.Log.ErrorContext(ctx, "cannot write what shadows answered", slog.Any("error", err))
			}
		}
	}
}

// shadow sends one copy and compares.
func (e *Engine) shadow(ctx context.Context, x *exchange) {
	s := x.at.shadow
	begin := time.Now()
	body, took, err := e.askShadow(ctx, s, x, begin)
	if ctx.Err() != nil {
		return
	}
	e.reports.change(x.at.endpoint.GetName(), s.key(), e.cfg.Now(), func(r *shadow.Report) {
		if err != nil {
			r.Missed(err.Error())
			return
		}
		r.Compared(x.response, body, x.took, took)
	})
}

func (e *Engine) askShadow(ctx context.Context, s *shadowing, x *exchange, begin time.Time) (body []byte, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, shadowLimit)
	defer cancel()
	d := e.find(s.key())
	if d == nil {
		return nil, 0, fmt.Errorf("deployed model %s of %s is not running", s.id, s.endpoint)
	}
	resp, err := e.ask(ctx, x.at, d, x.again())
	if err != nil {
		return nil, 0, err
	}
	took = time.Since(begin)
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, copyBytes+1)); err != nil {
		return nil, 0, err
	}
	switch {
	case len(body) > copyBytes:
		return nil, 0, fmt.Errorf("its answer has more than %d bytes", copyBytes)
	case (resp.Status == http.StatusOK) != (x.status == http.StatusOK):
		return nil, 0, fmt.Errorf("it answered %d where the other answered %d: %.200s", resp.Status, x.status, body)
	}
	return body, took, nil
}

// saveReports writes the reports that changed.
func (e *Engine) saveReports(ctx context.Context) error {
	data := map[string][]byte{}
	e.reports.mu.Lock()
	for name := range e.reports.changed {
		b, err := json.Marshal(e.reports.byName[name])
		if err != nil {
			e.reports.mu.Unlock()
			return err
		}
		data[name] = b
	}
	clear(e.reports.changed)
	e.reports.mu.Unlock()
	if len(data) == 0 {
		return nil
	}
	var gone []string // a copy that came back after its endpoint was deleted
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		gone = nil
		for name, b := range data {
			if _, err := tx.Get(ctx, resource.KindEndpoints, name); resource.IsNotFound(err) {
				if err := tx.Delete(ctx, resource.KindShadowReports, name); err != nil {
					return err
				}
				gone = append(gone, name)
				continue
			} else if err != nil {
				return err
			}
			if err := tx.Put(ctx, store.Row{Kind: resource.KindShadowReports, Key: name, Data: b}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, name := range gone {
		e.reports.drop(name)
	}
	return err
}

func (e *Engine) loadReports(ctx context.Context) error {
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: resource.KindShadowReports})
	if err != nil {
		return err
	}
	e.reports.mu.Lock()
	defer e.reports.mu.Unlock()
	for _, row := range rows {
		_, err := e.cfg.Store.Get(ctx, resource.KindEndpoints, row.Key)
		if resource.IsNotFound(err) { // left by an earlier version
			err = e.cfg.Store.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, resource.KindShadowReports, row.Key) })
			if err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("shadow report of %s: %w", row.Key, err)
		}
		report := &shadow.Report{}
		if err := json.Unmarshal(row.Data, report); err != nil {
			return fmt.Errorf("shadow report of %s: %w", row.Key, err)
		}
		e.reports.byName[row.Key] = report
	}
	return nil
}
