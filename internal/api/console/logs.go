package console

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// logChunk is what is read of a stream at a time.
const logChunk = 256 << 10

// followEvery is how often a log that is followed is looked at.
const followEvery = 100 * time.Millisecond

// readLogs streams the logs of ?resource=NAME as plain text, where NAME is one in
// full or a short one (find). With several streams each starts with a line of its
// label. ?follow=1 keeps the answer open until the resource has ended. ?workload=ID
// gives the output of that program alone, byte for byte, from ?offset= on.
func (c *Console) readLogs(w http.ResponseWriter, r *http.Request) error {
	at, err := c.find(r, r.URL.Query().Get("resource"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if workload := r.URL.Query().Get("workload"); workload != "" {
		return c.readOne(w, r, at, workload)
	}
	follow := r.URL.Query().Get("follow") != ""
	offsets := map[string]int64{}
	last := ""
	for {
		ended, err := c.ended(r, at)
		if err != nil {
			return err
		}
		if err := c.copyLogs(w, r, at.name(), offsets, &last); err != nil {
			return err
		}
		if !follow || ended {
			return nil
		}
		_ = http.NewResponseController(w).Flush() // a writer that cannot flush still gets the text at the end
		if err := c.wait(r, 5*followEvery); err != nil {
			return err
		}
	}
}

// copyLogs writes what came since the offsets.
func (c *Console) copyLogs(w io.Writer, r *http.Request, name string, offsets map[string]int64, last *string) error {
	streams, err := c.logs.Streams(r.Context(), name)
	if err != nil {
		return err
	}
	for _, s := range streams {
		for {
			p, err := c.logs.Read(r.Context(), s.ID, offsets[s.ID], logChunk)
			if err != nil {
				return err
			}
			if len(p) == 0 {
				break
			}
			if *last != s.ID {
				*last = s.ID
				if _, err := fmt.Fprintf(w, "==> %s\n", s.Label); err != nil {
					return err
				}
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
			offsets[s.ID] += int64(len(p))
		}
	}
	return nil
}

// readOne streams the output of one program. What there is after the resource has
// ended is the whole of it.
func (c *Console) readOne(w http.ResponseWriter, r *http.Request, at source, workload string) error {
	q := r.URL.Query()
	offset := int64(0)
	if text := q.Get("offset"); text != "" {
		var err error
		if offset, err = strconv.ParseInt(text, 10, 64); err != nil || offset < 0 {
			return resource.Invalid("offset", "the offset %.40q is not a number of bytes", text)
		}
	}
	stream := runtime.LogStream(at.name(), workload)
	for {
		ended, err := c.ended(r, at)
		if err != nil {
			return err
		}
		p, err := c.logs.Read(r.Context(), stream, offset, logChunk)
		if err != nil {
			return err
		}
		if len(p) > 0 {
			if _, err := w.Write(p); err != nil { //nolint:gosec // sent as plain text, with nosniff
				return nil //nolint:nilerr // the reader is gone
			}
			offset += int64(len(p))
			_ = http.NewResponseController(w).Flush() // a writer that cannot flush still gets the text at the end
			continue
		}
		if ended || q.Get("follow") == "" {
			return nil
		}
		_ = http.NewResponseController(w).Flush() // the header tells that the log is found
		if err := c.wait(r, followEvery); err != nil {
			return err
		}
	}
}

// workloads says how the programs of ?resource=NAME are.
func (c *Console) workloads(w http.ResponseWriter, r *http.Request) error {
	name := r.URL.Query().Get("resource")
	v, err := c.load(r, name)
	if err != nil {
		return err
	}
	list, err := c.logs.Workloads(r.Context(), v.Name)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(workloadsReply{State: v.State, Workloads: list})
}

type workloadsReply struct {
	State     string     `json:"state"`
	Workloads []Workload `json:"workloads"`
}
