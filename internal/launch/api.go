package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// API calls the aiplatform API over the wire, as any client does. While the server
// is away (it restarts, or takes no more requests) a call is repeated; what a call
// makes has an id that is chosen before, so that repeating it does no harm.
type API struct {
	Base string // https://HOST:PORT
	HTTP *http.Client
	// Token gives a bearer token; renew says that the last one was refused.
	Token func(ctx context.Context, renew bool) (string, error)
	Sleep func(ctx context.Context, d time.Duration) error
	// Away is told once for a call that is repeated why it is; nil = nobody is.
	Away func(err error)
}

// Pauses between repeated calls double from the first to the longest; patience is
// how many are made before the server counts as gone: about ten minutes.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
	patience     = 300
)

// maxAnswer bounds what is read of an answer; a resource has at most 4 MiB.
const maxAnswer = 16 << 20

// call sends a request and decodes its answer into out. id is that of what it makes,
// "" for requests that make nothing. Errors of the API are *resource.Error.
func (a *API) call(ctx context.Context, method, path, id string, body, out any) error {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	pause := firstPause
	for try := 1; ; try++ {
		answer, err := a.once(ctx, method, path, id, payload)
		if err == nil {
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(answer, out); err != nil {
				return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
			}
			return nil
		}
		if ctx.Err() != nil || try == patience || !away(err) {
			return err
		}
		if try == 1 && a.Away != nil {
			a.Away(err)
		}
		if err := a.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, longestPause)
	}
}

// once sends a request with a token, and with a new one where the first is refused.
func (a *API) once(ctx context.Context, method, path, id string, payload []byte) ([]byte, error) {
	answer, err := a.send(ctx, method, path, id, payload, false)
	if resource.CodeOf(err) == codes.Unauthenticated {
		answer, err = a.send(ctx, method, path, id, payload, true)
	}
	return answer, err
}

func (a *API) send(ctx context.Context, method, path, id string, payload []byte, renew bool) ([]byte, error) {
	token, err := a.Token(ctx, renew)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, a.Base+path, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if id != "" {
		req.Header.Set(resource.IDHeader, id)
	}
	resp, err := a.HTTP.Do(req)
	if err != nil {
		return nil, &lostError{err}
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, &lostError{err}
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, answerError(resp.StatusCode, text)
	}
	return text, nil
}

// lostError is a request that got no answer.
type lostError struct{ err error }

func (e *lostError) Error() string { return "no answer from the server: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// Lost marks an error of getting a token as one that passes when the server is back.
func Lost(err error) error { return &lostError{err} }

// away reports that the server may answer otherwise later: it is not there, or its
// disk is full. A request that is too large stays so.
func away(err error) bool {
	if _, ok := errors.AsType[*lostError](err); ok {
		return true
	}
	e, _ := errors.AsType[*resource.Error](err)
	return e != nil && (e.Code == codes.Unavailable || e.Code == codes.ResourceExhausted && e.Cause != resource.CauseInput)
}
