package serving

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/modelformat"
	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// manageLimit bounds a change of models: archives are fetched, and workers load them.
const manageLimit = 15 * time.Minute

// managed is what is kept of a deployed TorchServe: a row, as JSON.
type managed struct {
	Key string `json:"key"` // that its replicas were started with
	// Touched says that a change was begun: what replicas are may not be what they were
	// started as. Models is what they are to be; none = as they were started.
	Touched bool            `json:"touched,omitempty"`
	Models  json.RawMessage `json:"models,omitempty"`
}

// manager brings the models of a deployed TorchServe about, in each of its replicas: one
// is asked, what it says is written down, and then told to the others, and to each that
// starts later.
type manager struct {
	store store.Store
	row   string // key of KindTorchModels
	key   string

	turn chan struct{} // of one change at a time
}

// manage gives the manager of a deployment, whose row is made where there is none.
func (a *actor) manage(ctx context.Context) (*manager, error) {
	m := &manager{store: a.engine.cfg.Store, row: a.key, turn: make(chan struct{}, 1)}
	is, err := m.read(ctx, m.store)
	if resource.IsNotFound(err) {
		is.Key = rand.Text()
		err = m.store.Update(ctx, func(tx store.Tx) error { return m.write(ctx, tx, is) })
	}
	m.key = is.Key
	return m, err
}

func (m *manager) read(ctx context.Context, r store.Reader) (is managed, err error) {
	row, err := r.Get(ctx, resource.KindTorchModels, m.row)
	if err == nil {
		err = json.Unmarshal(row.Data, &is)
	}
	return is, err
}

func (m *manager) write(ctx context.Context, tx store.Tx, is managed) error {
	data, err := json.Marshal(is)
	if err != nil {
		return err
	}
	key, err := resource.ParseName(m.row)
	if err != nil {
		return err
	}
	return tx.Put(ctx, store.Row{Kind: resource.KindTorchModels, Key: m.row, Parent: key.Parent().String(), Data: data})
}

// update changes the row of a model that is still deployed.
func (m *manager) update(ctx context.Context, change func(*managed)) error {
	return m.store.Update(ctx, func(tx store.Tx) error {
		is, err := m.read(ctx, tx)
		if err != nil {
			return err
		}
		change(&is)
		return m.write(ctx, tx, is)
	})
}

// prepare makes a replica that starts, or was found running, what the others are. A
// change that is written down meanwhile is told again, so that the last one stays. What a
// replica cannot open any more it goes on without, and says so in its log.
func (m *manager) prepare(ctx context.Context, b replica.Backend) error {
	for told := []byte("?"); ; {
		is, err := m.read(ctx, m.store)
		if err != nil || !is.Touched || bytes.Equal(told, is.Models) {
			return err
		}
		if err := m.tell(ctx, b, is.Models); err != nil {
			if _, ok := errors.AsType[*untold](err); !ok {
				return err
			}
		}
		told = is.Models
		if len(told) == 0 {
			told = nil
		}
	}
}

// untold is what a replica could not become.
type untold struct{ text string }

func (e *untold) Error() string { return e.text }

// tell makes a replica what the models say.
func (m *manager) tell(ctx context.Context, b replica.Backend, models []byte) error {
	resp, err := b.Do(ctx, m.request(http.MethodPut, "", nil, models))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxTold))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	switch resp.Status {
	case http.StatusNoContent:
		return nil
	case http.StatusConflict:
		return &untold{strings.TrimSpace(string(text))}
	}
	return fmt.Errorf("it answered %d: %s", resp.Status, bytes.TrimSpace(text))
}

// maxTold bounds what a replica says of what it could not become.
const maxTold = 64 << 10

func (m *manager) request(method, path string, header http.Header, body []byte) *replica.Request {
	h := http.Header{modelformat.TorchKeyHeader: {m.key}}
	if t := header.Get("Content-Type"); t != "" {
		h.Set("Content-Type", t)
	}
	return &replica.Request{Method: method, Path: modelformat.TorchManagement + path, Header: h, Body: body}
}

// Manage asks TorchServe's management API of a deployed model, whose id r names; r.Route
// is the path of that API. What it changes is durable and the same in every replica when
// it is answered; an error says what a replica
// could not do. /metrics is that of all replicas.
func (e *Engine) Manage(ctx context.Context, endpoint string, r Request) (*modelformat.TorchAnswer, error) {
	_, d, err := e.choose(ctx, endpoint, r.DeployedModel)
	if err != nil {
		return nil, err
	}
	m := d.manager
	if m == nil {
		return nil, resource.Errorf(codes.FailedPrecondition, "deployed model %s is no archive of TorchServe's: it has no management API", d.id).WithResource(d.model.GetName())
	}
	if path, _, _ := strings.Cut(r.Route, "?"); path == torchMetrics {
		return d.measured(ctx, r.Route)
	}
	ctx, cancel := context.WithTimeout(ctx, manageLimit)
	defer cancel()
	ask := m.request(r.Method, r.Route, r.Header, r.Body)
	if r.Method == http.MethodGet || r.Method == http.MethodOptions {
		ask.Again = true
		return d.managed(ctx, ask)
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	was, err := m.read(ctx, m.store)
	if err == nil && !was.Touched {
		was.Touched = true
		err = m.update(ctx, func(is *managed) { is.Touched = true })
	}
	if err != nil {
		return nil, err
	}
	answer, err := d.managed(ctx, ask)
	// From here on replicas may differ: also when the caller leaves, they end up equal.
	after, done := context.WithTimeout(context.WithoutCancel(ctx), manageLimit)
	defer done()
	models := was.Models
	if err == nil && answer.Status < http.StatusMultipleChoices {
		models = answer.State
		if err = m.update(after, func(is *managed) { is.Models = models }); err != nil {
			models = was.Models
		}
	}
	told := d.set.Each(after, func(ctx context.Context, _ int, b replica.Backend) error { return m.tell(ctx, b, models) })
	if err == nil && told != nil && answer.Status < http.StatusMultipleChoices {
		err = resource.Errorf(codes.Aborted, "it is done and written down, but not every replica could do it: %w", told).WithResource(d.key).WithCause(resource.CauseModel).
			WithHint("those are left out of predictions until they were told again; `tategu logs %s` has what they say", endpoint)
	}
	return answer, err
}

// managed asks any replica of the management API, which is no prediction: it is counted
// by what TorchServe answers.
func (d *deployment) managed(ctx context.Context, ask *replica.Request) (answer *modelformat.TorchAnswer, err error) {
	begin := time.Now()
	defer func() {
		o := outcome{d: d, ask: ask, err: err, took: time.Since(begin)}
		if err == nil {
			o.resp = &replica.Response{Status: answer.Status}
		}
		d.meters.administered(statusOf(o))
		d.accessed(ctx, o)
	}()
	resp, end, err := d.do(ctx, ask, func(context.Context, outcome) {})
	if err != nil {
		return nil, err
	}
	defer end()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 2*modelformat.MaxTorchState))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("the answer of deployed model %s broke off: %w", d.id, err)
	}
	if resp.Status == http.StatusNotFound {
		return nil, resource.Errorf(codes.FailedPrecondition, "the replicas of deployed model %s were started by a version of tategu that did not offer their management", d.id).
			WithResource(d.key).WithHint("deploy the model anew")
	}
	answer = &modelformat.TorchAnswer{}
	if err := json.Unmarshal(data, answer); err != nil || resp.Status != http.StatusOK {
		return nil, resource.Errorf(codes.Internal, "the management of deployed model %s answered %d: %.500s", d.id, resp.Status, data)
	}
	return answer, nil
}
