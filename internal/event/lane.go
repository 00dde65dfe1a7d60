package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tategu/internal/store"
)

// lane sends the events of one webhook, so that one which is slow or away delays
// nobody else. A receiver that does not answer, or says that it cannot, is left alone
// for a while that doubles; then one event asks whether it is back.
type lane struct {
	*Outbox
	hook Webhook
	log  *slog.Logger

	mu     sync.Mutex
	failed int       // attempts in a row in which the receiver was away
	since  time.Time // the first of them
	until  time.Time // it is left alone
}

// pending is an entry with its row.
type pending struct {
	store.Row
	entry
}

// run sends until ctx ends.
func (l *lane) run(ctx context.Context) error {
	watch := l.cfg.Store.Watch(Kind)
	defer watch.Close()
	for ctx.Err() == nil {
		next, err := l.round(ctx)
		if err != nil && ctx.Err() == nil {
			l.log.ErrorContext(ctx, "cannot go through the outbox", slog.Any("error", err))
			next = l.cfg.Now().Add(l.cfg.Delay)
		}
		if err := l.wait(ctx, watch, next); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for a change, or until next, if that is a time.
func (l *lane) wait(ctx context.Context, watch store.Watcher, next time.Time) error {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if !next.IsZero() {
		waiting, cancel = context.WithTimeout(ctx, max(0, next.Sub(l.cfg.Now())))
	}
	defer cancel()
	if _, err := watch.Next(waiting); err != nil && waiting.Err() == nil {
		return fmt.Errorf("events: %w", err)
	}
	return nil
}

// own gives the webhook's entries, oldest first.
func (l *lane) own(ctx context.Context) ([]pending, error) {
	rows, err := l.cfg.Store.List(ctx, store.Query{Kind: Kind, States: []string{statePending}, Order: store.ByCreated})
	if err != nil {
		return nil, err
	}
	var own []pending
	for _, row := range rows {
		p := pending{Row: row}
		if err := json.Unmarshal(row.Data, &p.entry); err != nil {
			return nil, fmt.Errorf("event %s: %w", row.Key, err)
		}
		if p.Webhook == l.hook.ID() {
			own = append(own, p)
		}
	}
	return own, nil
}

// round sends all that is due; next is when more will be, zero = nothing is left.
func (l *lane) round(ctx context.Context) (next time.Time, err error) {
	own, err := l.own(ctx)
	if err != nil {
		return time.Time{}, err
	}
	var mu sync.Mutex
	var errs []error
	note := func(at time.Time, err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, p := range own {
		slots <- struct{}{}
		if asking := l.asking(); asking { // alone: the others follow if it is taken
			note(l.try(ctx, p))
			<-slots
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			note(l.try(ctx, p))
		})
	}
	group.Wait()
	return next, errors.Join(errs...)
}

// asking reports that it is not known whether the receiver is back.
func (l *lane) asking() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed > 0
}

// try sends one entry if it is due, and gives the time of its next attempt.
func (l *lane) try(ctx context.Context, p pending) (next time.Time, err error) {
	now := l.cfg.Now()
	log := l.log.With(slog.String("event", p.ID), slog.Int("attempt", p.Attempts+1))
	if at := l.notBefore(p); now.Before(at) {
		if !l.hopeless(p, now) {
			return at, nil
		}
		log.ErrorContext(ctx, "an event is given up: the webhook was away for too long")
		return time.Time{}, l.drop(ctx, p.Row)
	}
	sent := l.send(ctx, l.hook, p.entry)
	if ctx.Err() != nil {
		return time.Time{}, nil //nolint:nilerr // the server ends: the next one sends it
	}
	paused := l.learn(sent)
	switch p.Attempts++; {
	case sent == nil:
		return time.Time{}, l.drop(ctx, p.Row)
	case errors.Is(sent, errGone), p.Attempts >= attempts, l.hopeless(p, now):
		log.ErrorContext(ctx, "an event is given up", slog.Any("error", sent))
		return time.Time{}, l.drop(ctx, p.Row)
	}
	p.Next = now.Add(l.pause(p.Attempts))
	log.WarnContext(ctx, "an event was not taken and is sent again", slog.Time("at", later(p.Next, paused)), slog.Any("error", sent))
	return later(p.Next, paused), l.cfg.Store.Update(ctx, func(tx store.Tx) error { return put(ctx, tx, p.Key, p.Parent, p.entry) })
}

// notBefore is when an entry may be sent: its own time, and the receiver's.
func (l *lane) notBefore(p pending) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return later(p.Next, l.until)
}

// hopeless reports an entry that is as old as any gets, of a receiver that has been
// away for as long: not all of them are tried while it is.
func (l *lane) hopeless(p pending, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed > 0 && now.Sub(l.since) >= oldest && now.Sub(p.Created) >= oldest
}

// learn takes what an attempt says of the receiver, and gives until when it is left
// alone; zero = it is not. Attempts that were under way at the same time count once.
func (l *lane) learn(sent error) (until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Now()
	switch {
	case sent == nil, errors.Is(sent, errGone), errors.Is(sent, errThisOne):
		l.failed, l.until = 0, time.Time{}
	case !now.Before(l.until):
		if l.failed++; l.failed == 1 {
			l.since = now
		}
		l.until = now.Add(l.pause(l.failed))
	}
	return l.until
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
