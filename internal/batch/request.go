package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/batch/score"
	"tategu/internal/replica"
	"tategu/internal/resource"
)

// A request is repeated when a replica ended under it or is overloaded, and so is a
// section.
const (
	attempts   = 5
	retryFirst = 100 * time.Millisecond
)

// maxFile bounds a file that a file-list names.
const maxFile = 64 << 20

// score has a section scored by whoever does that for this job.
func (r *run) score(ctx context.Context, u *unit, results, failures io.Writer) (score.Stats, error) {
	section := u.body[u.head:]
	switch {
	case r.remote:
		m := score.Remote{Ask: r.ask, Fatal: fatal, Load: r.load, Rows: r.batchSize(), Bytes: batchBytes, Places: r.places}
		return m.Section(ctx, u.spec, section, results, failures)
	case r.set == nil:
		return score.Native(ctx, r.native, u.spec, section, results, failures)
	}
	resp, err := r.send(ctx, u)
	if err != nil {
		return score.Stats{}, err
	}
	if resp.Status == score.StatusUnreadable {
		if err = r.refused(ctx, resp); err == nil {
			if u, err = r.filled(ctx, u); err == nil {
				resp, err = r.send(ctx, u)
			}
		}
		if err != nil {
			return score.Stats{}, err
		}
	}
	defer func() { _ = resp.Body.Close() }() // what matters has been read
	if resp.Status != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, excerptLength))
		return score.Stats{}, errors.Join(resource.Errorf(codes.Internal, "a worker answered %d: %s", resp.Status, excerpt(text)), err)
	}
	stats, err := score.ReadAnswer(resp.Body, results, failures)
	if u.sums != nil { // the worker had no file to tell of
		stats.Sums = u.sums
	}
	return stats, err
}

// send has a section scored by a worker.
func (r *run) send(ctx context.Context, u *unit) (*replica.Response, error) {
	header := http.Header{score.LeaveHeader: {strconv.Itoa(r.engine.way.left(ctx))}, score.SecretHeader: {r.plan.Secret}}
	return r.set.Do(ctx, &replica.Request{Method: http.MethodPost, Path: score.ScoreRoute, Header: header, Body: u.body[u.head-u.headLength:]})
}

// refused tells why a worker does not read the files of a section, which is then sent.
func (r *run) refused(ctx context.Context, resp *replica.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, excerptLength))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("%w: %w", score.ErrBroken, err)
	}
	r.log.WarnContext(ctx, "a worker cannot read the input by itself: it is sent", slog.String("why", excerpt(text)))
	return nil
}

// filled is a section with what is in files read.
func (r *run) filled(ctx context.Context, u *unit) (*unit, error) {
	var files score.Files
	spec, body, sums, err := files.Load(u.spec, u.body[u.head:], make([]byte, headRoom))
	if err == nil {
		spec, err = spec.Numbered()
	}
	if err != nil {
		return nil, r.gone(ctx, u, err)
	}
	sent, err := newUnit(u.n, spec, body)
	if err != nil {
		return nil, err
	}
	sent.sums = sums
	return sent, nil
}

// gone says why pieces of a section cannot be read any more: mostly that their object
// was overwritten meanwhile.
func (r *run) gone(ctx context.Context, u *unit, err error) error {
	for _, p := range r.plan.Sections[u.n] {
		_, rc, err := r.reader(ctx, r.plan.Inputs[p.Input])
		if err == nil {
			err = rc.Close()
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("section %d of the input: %w", u.n, err)
}

func (r *run) batchSize() int {
	if n := int(r.job.GetManualBatchTuningParameters().GetBatchSize()); n > 0 {
		return n
	}
	return defaultBatch
}

// load reads a file of a file-list.
func (r *run) load(ctx context.Context, uri string) (_ []byte, err error) {
	o, err := parseURI(uri)
	if err != nil {
		return nil, resource.Invalid("instance", "the line %q is not of the form gs://BUCKET/NAME", excerpt([]byte(uri)))
	}
	if !r.mayList(o.bucket) {
		return nil, resource.Errorf(codes.PermissionDenied, "%s is in a bucket that gcs_source does not name", uri).
			WithHint("a list names objects of the buckets of gcs_source alone, since who made the job was asked for the right to read these")
	}
	attrs, rc, err := r.objects.OpenLive(ctx, o.bucket, o.name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	if attrs.Size > maxFile {
		return nil, resource.Invalid("instance", "%s has %d bytes; at most %d are sent to a model", uri, attrs.Size, maxFile)
	}
	return io.ReadAll(rc)
}

// mayList reports a bucket of the job's own inputs: what is in a list, nobody has looked
// at when the job was made, and it is read with the server's rights.
func (r *run) mayList(bucket string) bool {
	return slices.ContainsFunc(r.job.GetInputConfig().GetGcsSource().GetUris(), func(uri string) bool {
		o, err := parseURI(uri)
		return err == nil && o.bucket == bucket
	})
}

// fatal reports an error that is not about the instances asked.
func fatal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || resource.CodeOf(err) == codes.Unavailable
}

// ask sends instances in one request.
func (r *run) ask(ctx context.Context, instances [][]byte) ([]json.RawMessage, error) {
	var b bytes.Buffer
	b.WriteString(`{"instances":[`)
	for n, instance := range instances {
		if n > 0 {
			b.WriteByte(',')
		}
		b.Write(instance)
	}
	b.WriteByte(']')
	if r.spec.Parameters != nil {
		b.WriteString(`,"parameters":`)
		b.Write(r.spec.Parameters)
	}
	b.WriteByte('}')
	data, err := r.post(ctx, b.Bytes())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Predictions []json.RawMessage `json:"predictions"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, userError("the model's answer is not of the form {\"predictions\": [...]}: %w", err)
	}
	return answer.Predictions, nil
}

func userError(format string, args ...any) error {
	return resource.Errorf(codes.FailedPrecondition, format, args...).WithCause(resource.CauseUserCode)
}

// pause reports whether the time passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) post(ctx context.Context, body []byte) ([]byte, error) {
	var last error
	for n := range attempts {
		if n > 0 && !pause(ctx, retryFirst<<n) {
			return nil, ctx.Err()
		}
		resp, err := r.set.Do(ctx, &replica.Request{Method: http.MethodPost, Path: r.route, Header: http.Header{"Content-Type": {"application/json"}}, Body: body})
		if err != nil {
			if last = err; resource.CodeOf(err) == codes.Unavailable && ctx.Err() == nil {
				continue // the set holds the request until a replica is back
			}
			return nil, err
		}
		data, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			last = resource.Errorf(codes.Unavailable, "the answer broke off: %w", err).WithCause(resource.CauseUserCode)
			continue
		}
		if resp.Status == http.StatusServiceUnavailable || resp.Status == http.StatusTooManyRequests {
			last = resource.Errorf(codes.Unavailable, "the model's server answered %d: %s", resp.Status, excerpt(data)).WithCause(resource.CauseUserCode)
			continue
		}
		if resp.Status >= http.StatusMultipleChoices {
			return nil, userError("the model's server answered %d: %s", resp.Status, excerpt(data))
		}
		return data, nil
	}
	return nil, last
}

const excerptLength = 1000

func excerpt(data []byte) string {
	return strings.TrimSpace(strings.ToValidUTF8(string(data[:min(len(data), excerptLength)]), "?"))
}
