package bucket

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/oauth2"
)

const (
	// attempts bounds how often a request to gs is made; the drivers of s3 and azure
	// have such bounds of their own.
	attempts = 5
	// firstPause is the longest wait before the second attempt; it doubles for each after it.
	firstPause = 500 * time.Millisecond
	// errorBytes bounds what is read of an error.
	errorBytes = 64 << 10
)

// gsRequest is a request that can be made again. Our keys are written once, so that
// writing one again after a lost answer is right.
type gsRequest struct {
	method, url string
	header      map[string]string
	size        int64
	body        func() io.Reader // nil = none
	accept      int              // a status that is no error, beside those under 300
}

// gsError is an answer that refuses.
type gsError struct {
	status  int
	reason  string // the API's word, such as quotaExceeded; may be empty
	message string
}

// Error implements error.
func (e *gsError) Error() string {
	s := fmt.Sprintf("the service answered %d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		s += ": " + e.message
	}
	if e.reason != "" {
		s += " (" + e.reason + ")"
	}
	return s
}

// HTTPStatusCode and ErrorCode are the names that the client of s3 has for them too.
func (e *gsError) HTTPStatusCode() int { return e.status }
func (e *gsError) ErrorCode() string   { return e.reason }

// busy says that the request may be made again: the service was slow or had too many.
func (e *gsError) busy() bool {
	return slices.Contains([]int{408, 429, 500, 502, 503, 504}, e.status) ||
		e.status == http.StatusForbidden && slices.Contains([]string{"rateLimitExceeded", "userRateLimitExceeded"}, e.reason)
}

// temporary tells errors that may pass: answers that say so, and lost connections.
func temporary(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if e, ok := errors.AsType[*gsError](err); ok {
		return e.busy()
	}
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return e.Response == nil || e.Response.StatusCode >= 500
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return !untrusted
}

// wait waits before attempt+1, a random time so that clients do not come back at once.
func (b *gsBucket) wait(ctx context.Context, attempt int) error {
	limit := b.pause << (attempt - 1)
	timer := time.NewTimer(limit/2 + rand.N(limit/2)) //nolint:gosec // not a secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// do makes a request, again if that may help. The caller closes the body.
func (b *gsBucket) do(ctx context.Context, r gsRequest) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		response, err := b.once(ctx, r)
		if err == nil || attempt == attempts || !temporary(ctx, err) {
			return response, err
		}
		if stopped := b.wait(ctx, attempt); stopped != nil {
			return nil, errors.Join(stopped, err)
		}
	}
}

func (b *gsBucket) once(ctx context.Context, r gsRequest) (*http.Response, error) {
	var body io.Reader
	if r.body != nil {
		body = r.body()
	}
	request, err := http.NewRequestWithContext(ctx, r.method, r.url, body)
	if err != nil {
		return nil, err
	}
	request.ContentLength = r.size
	if r.size == 0 {
		request.Body = http.NoBody
	}
	request.Header.Set("User-Agent", "tategu")
	for name, value := range r.header {
		request.Header.Set(name, value)
	}
	response, err := b.http.Do(request)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // not the URL: that of an upload lets whoever reads it write
		}
		return nil, fmt.Errorf("%s at %s: %w", r.method, request.URL.Host, err)
	}
	if response.StatusCode < 300 || response.StatusCode == r.accept {
		return response, nil
	}
	return nil, errors.Join(refusal(response), response.Body.Close())
}

// refusal reads an error, https://docs.cloud.google.com/storage/docs/json_api/v1/status-codes.
func refusal(response *http.Response) error {
	e := &gsError{status: response.StatusCode}
	text, _ := io.ReadAll(io.LimitReader(response.Body, errorBytes)) // what came of it is enough
	var answer struct {
		Error struct {
			Message string `json:"message"`
			Errors  []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &answer) == nil {
		e.message = answer.Error.Message
		if len(answer.Error.Errors) > 0 {
			e.reason = answer.Error.Errors[0].Reason
		}
	} else { // downloads are refused in plain text
		e.message = string(text[:min(len(text), 200)])
	}
	return e
}
