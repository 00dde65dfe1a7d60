package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"tategu/internal/store"
)

// Config of an outbox.
type Config struct {
	Store    store.Store
	Webhooks []Webhook
	Log      *slog.Logger
	Now      func() time.Time
	Delay    time.Duration // after the first attempt that failed; 0 = 5 s
}

// Outbox sends events.
type Outbox struct {
	cfg    Config
	client *http.Client
}

// Attempts: the pause doubles up to an hour, and after three days nobody waits any
// more.
const (
	firstDelay = 5 * time.Second
	mostDelay  = time.Hour
	attempts   = 84
	limit      = 15 * time.Second // of one attempt
	atOnce     = 4                // requests
	answerRead = 1 << 10
)

// New makes an outbox; nothing is sent before Run.
func New(cfg Config) *Outbox {
	if cfg.Delay == 0 {
		cfg.Delay = firstDelay
	}
	return &Outbox{cfg: cfg, client: &http.Client{
		Timeout:   limit,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute},
		// A redirect would take the event where nobody configured it to go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Run sends what is in the outbox until ctx ends.
func (o *Outbox) Run(ctx context.Context) error {
	watch := o.cfg.Store.Watch(Kind)
	defer watch.Close()
	defer o.client.CloseIdleConnections()
	for ctx.Err() == nil {
		next, err := o.round(ctx)
		if err != nil && ctx.Err() == nil {
			o.cfg.Log.ErrorContext(ctx, "cannot go through the outbox", slog.Any("error", err))
			next = o.cfg.Now().Add(o.cfg.Delay)
		}
		if err := o.wait(ctx, watch, next); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for a change, or until next, if that is a time.
func (o *Outbox) wait(ctx context.Context, watch store.Watcher, next time.Time) error {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if !next.IsZero() {
		waiting, cancel = context.WithTimeout(ctx, max(0, next.Sub(o.cfg.Now())))
	}
	defer cancel()
	if _, err := watch.Next(waiting); err != nil && waiting.Err() == nil {
		return fmt.Errorf("events: %w", err)
	}
	return nil
}

// round sends all that is due; next is when more will be, zero = nothing is left.
func (o *Outbox) round(ctx context.Context) (next time.Time, err error) {
	rows, err := o.cfg.Store.List(ctx, store.Query{Kind: Kind, States: []string{statePending}, Order: store.ByCreated})
	if err != nil {
		return time.Time{}, err
	}
	var mu sync.Mutex
	var errs []error
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, row := range rows {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			at, err := o.try(ctx, row)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		})
	}
	group.Wait()
	return next, errors.Join(errs...)
}

// try sends one entry if it is due, and gives the time of its next attempt.
func (o *Outbox) try(ctx context.Context, row store.Row) (next time.Time, err error) {
	var e entry
	if err := json.Unmarshal(row.Data, &e); err != nil {
		return time.Time{}, fmt.Errorf("event %s: %w", row.Key, err)
	}
	now := o.cfg.Now()
	if now.Before(e.Next) {
		return e.Next, nil
	}
	log := o.cfg.Log.With(slog.String("event", e.ID), slog.String("webhook", e.Webhook), slog.Int("attempt", e.Attempts+1))
	i := slices.IndexFunc(o.cfg.Webhooks, func(w Webhook) bool { return w.ID() == e.Webhook })
	if i < 0 {
		log.WarnContext(ctx, "an event is dropped: its webhook is not configured any more")
		return time.Time{}, o.drop(ctx, row)
	}
	sent := o.send(ctx, o.cfg.Webhooks[i], e)
	switch e.Attempts++; {
	case sent == nil:
		return time.Time{}, o.drop(ctx, row)
	case ctx.Err() != nil:
		return time.Time{}, nil //nolint:nilerr // the server ends: the next one sends it
	case errors.Is(sent, errGone), e.Attempts >= attempts:
		log.ErrorContext(ctx, "an event is given up", slog.Any("error", sent))
		return time.Time{}, o.drop(ctx, row)
	}
	e.Next = now.Add(min(o.cfg.Delay<<min(e.Attempts-1, 10), mostDelay))
	log.WarnContext(ctx, "an event was not taken and is sent again", slog.Time("at", e.Next), slog.Any("error", sent))
	return e.Next, o.cfg.Store.Update(ctx, func(tx store.Tx) error { return put(ctx, tx, row.Key, row.Parent, e) })
}

func (o *Outbox) drop(ctx context.Context, row store.Row) error {
	return o.cfg.Store.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, Kind, row.Key) })
}

// errGone is the answer of a receiver that wants no more.
var errGone = errors.New("the webhook answered 410: it wants no more events")

func (o *Outbox) send(ctx context.Context, w Webhook, e entry) error {
	key, err := w.Secret.key()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(e.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	for name, value := range sign(key, e.ID, o.cfg.Now(), e.Body) {
		req.Header.Set(name, value)
	}
	resp, err := o.client.Do(req)
	if told, ok := errors.AsType[*url.Error](err); ok {
		return told.Err // without the URL: many receivers have a secret in it
	}
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, answerRead) // lets the connection be used again
	_ = resp.Body.Close()                              // the status says all
	switch {
	case resp.StatusCode == http.StatusGone:
		return errGone
	case resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices:
		return fmt.Errorf("the webhook answered %s", resp.Status)
	}
	return nil
}
