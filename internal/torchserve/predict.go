package torchserve

import (
	"context"
	"net/http"
	"time"
)

// Predict runs one request and calls emit for each frame of its answer, from the
// caller's goroutine. Nothing was emitted when an error is an *Error of the engine's
// own, unless a stream broke off; an error of emit ends the request and is returned.
func (s *Server) Predict(ctx context.Context, model, id string, r Request, emit func(Frame) error) error {
	v, err := s.find(model, id)
	if err != nil {
		return err
	}
	j := newJob(r)
	if id != "" {
		j.label = id
	}
	return s.runJob(ctx, v, j, emit)
}

// runJob queues a job and hands out its frames.
func (s *Server) runJob(ctx context.Context, v *version, j *job, emit func(Frame) error) error {
	v.requests.Add(1)
	if err := v.abandoned(); err != nil {
		v.rejected.Add(1)
		return err
	}
	s.observe(Metric{
		Name: "ts_inference_requests_total", Unit: "Count", Kind: "COUNTER", Value: 1,
		Dimensions: []Pair{{Name: "model_name", Value: v.name}, {Name: "model_version", Value: j.label}, {Name: "hostname", Value: s.host}}, RequestIDs: j.req.ID,
	})
	if t := v.set.ClientTimeout; t > 0 {
		j.expires = j.arrived.Add(t)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, errorf(http.StatusRequestTimeout, RequestTimeout, "the model's clientTimeoutInMills of %s is over", t))
		defer cancel()
	}
	v.begins()
	defer func() { v.ends(time.Now()) }()
	ok, err := v.queue.put(j, v.set.Ticket)
	if err != nil {
		return err
	}
	if !ok {
		v.rejected.Add(1)
		if v.set.Ticket {
			return errorf(http.StatusServiceUnavailable, ServiceUnavailable, "Model %q Version %s has no free worker, and takes no request without one (useJobTicket)", v.name, v.id)
		}
		return errorf(http.StatusServiceUnavailable, ServiceUnavailable, "Model %q Version %s has %d requests waiting, which is all that its queue takes (job_queue_size)", v.name, v.id, v.set.QueueSize)
	}
	defer func() {
		j.leave()
		v.queue.remove(j)
	}()
	v.flushAbandoned() // the last worker may have gone meanwhile
	return s.handOut(ctx, j, emit)
}

func (s *Server) handOut(ctx context.Context, j *job, emit func(Frame) error) error {
	for {
		frames, err := j.next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}
		if len(frames) == 0 {
			return nil
		}
		for _, f := range frames {
			if err := emit(f); err != nil {
				return err
			}
			if !f.More {
				return nil
			}
		}
	}
}
