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
	"time"

	"golang.org/x/sync/errgroup"

	"tategu/internal/store"
)

// Config of an outbox.
type Config struct {
	Store    store.Store
	Webhooks []Webhook
	Log      *slog.Logger
	Now      func() time.Time
	Delay    time.Duration // after the first attempt that failed; 0 = 5 s
	// Transport sends the requests; nil = HTTP with the proxies of the environment.
	Transport http.RoundTripper
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
	oldest     = 3 * 24 * time.Hour
	limit      = 15 * time.Second // of one attempt
	atOnce     = 4                // requests to one webhook
	answerRead = 1 << 10
)

// Run sends what is in the outbox until ctx ends, to each webhook by itself.
func (o *Outbox) Run(ctx context.Context) error {
	defer o.client.CloseIdleConnections()
	if err := o.forget(ctx); err != nil && ctx.Err() == nil {
		o.cfg.Log.ErrorContext(ctx, "cannot go through the outbox", slog.Any("error", err)) // the next start does
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range o.cfg.Webhooks {
		l := &lane{Outbox: o, hook: w, log: o.cfg.Log.With(slog.String("webhook", w.ID()))}
		group.Go(func() error { return l.run(ctx) })
	}
	return group.Wait()
}

// forget drops the events of webhooks that are not configured any more.
func (o *Outbox) forget(ctx context.Context) error {
	rows, err := o.cfg.Store.List(ctx, store.Query{Kind: Kind, States: []string{statePending}})
	if err != nil {
		return err
	}
	for _, row := range rows {
		var e entry
		if err := json.Unmarshal(row.Data, &e); err != nil {
			return fmt.Errorf("event %s: %w", row.Key, err)
		}
		if slices.ContainsFunc(o.cfg.Webhooks, func(w Webhook) bool { return w.ID() == e.Webhook }) {
			continue
		}
		o.cfg.Log.WarnContext(ctx, "an event is dropped: its webhook is not configured any more", slog.String("event", e.ID), slog.String("webhook", e.Webhook))
		if err := o.drop(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

func (o *Outbox) drop(ctx context.Context, row store.Row) error {
	return o.cfg.Store.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, Kind, row.Key) })
}

// pause is how long nothing is tried after n failures in a row.
func (o *Outbox) pause(n int) time.Duration { return min(o.cfg.Delay<<min(n-1, 10), mostDelay) }

// New makes an outbox; nothing is sent before Run.
func New(cfg Config) *Outbox {
	if cfg.Delay == 0 {
		cfg.Delay = firstDelay
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute}
	}
	return &Outbox{cfg: cfg, client: &http.Client{
		Timeout:   limit,
		Transport: cfg.Transport,
		// A redirect would take the event where nobody configured it to go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// errThisOne is a receiver that is there and does not take this event: others may do.
var errThisOne = errors.New("not taken")

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
	switch status := resp.StatusCode; {
	case status == http.StatusGone:
		return errGone
	case status == http.StatusTooManyRequests || status >= http.StatusInternalServerError:
		return fmt.Errorf("the webhook answered %s", resp.Status)
	case status < http.StatusOK || status >= http.StatusMultipleChoices:
		return fmt.Errorf("%w: the webhook answered %s", errThisOne, resp.Status)
	}
	return nil
}
