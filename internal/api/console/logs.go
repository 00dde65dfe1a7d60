package console

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// logChunk is what is read of a stream at a time.
const logChunk = 256 << 10

// readLogs streams the logs of ?resource=NAME as plain text. With several
// streams each starts with a line of its label. ?follow=1 keeps the answer open
// until the resource has ended.
func (c *Console) readLogs(w http.ResponseWriter, r *http.Request) error {
	name := r.URL.Query().Get("resource")
	if _, err := c.load(r, name); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	follow := r.URL.Query().Get("follow") != ""
	offsets := map[string]int64{}
	last := ""
	for {
		v, err := c.load(r, name)
		if err != nil {
			return err
		}
		ended := !v.Ended.IsZero() || !hasEnd(v.message)
		if err := c.copyLogs(w, r, name, offsets, &last); err != nil {
			return err
		}
		if !follow || ended {
			return nil
		}
		_ = http.NewResponseController(w).Flush() // a writer that cannot flush still gets the text at the end
		select {
		case <-r.Context().Done():
			return nil
		case <-time.After(500 * time.Millisecond):
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
