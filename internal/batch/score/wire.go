package score

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// What a worker answers is a row of frames: a kind, a length (four bytes, big endian)
// and so many bytes. The last one is the statistics or an error; without it the
// answer broke off.
const (
	frameResults = 'r' // bytes of the file of results
	frameErrors  = 'e' // bytes of the file of errors
	frameStats   = 's' // Stats, JSON: all is said
	frameFault   = 'x' // Fault, JSON: the section cannot be scored
)

const (
	frameHead = 5
	maxFrame  = 1 << 20 // bytes of one frame at most
	maxSpec   = 16 << 20
)

// Fault is why a section cannot be scored.
type Fault struct {
	Code    codes.Code     `json:"code"`
	Message string         `json:"message"`
	Cause   resource.Cause `json:"cause,omitempty"`
}

// AppendSpec writes the head of a request; the section follows it.
func AppendSpec(b []byte, spec Spec) ([]byte, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("describe a section: %w", err)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...), nil
}

// cutSpec reads the head of a request.
func cutSpec(body []byte) (spec Spec, section []byte, err error) {
	if len(body) < 4 {
		return spec, nil, errors.New("the request has no head")
	}
	n := int(binary.BigEndian.Uint32(body))
	if n > maxSpec || n > len(body)-4 {
		return spec, nil, errors.New("the request is shorter than its head")
	}
	if err := json.Unmarshal(body[4:4+n], &spec); err != nil {
		return spec, nil, fmt.Errorf("the head of the request: %w", err)
	}
	return spec, body[4+n:], nil
}

// frames writes an answer.
type frames struct{ w io.Writer }

func (f frames) send(kind byte, data []byte) error {
	head := [frameHead]byte{kind}
	for first := true; first || len(data) > 0; first = false {
		part := data[:min(len(data), maxFrame)]
		data = data[len(part):]
		binary.BigEndian.PutUint32(head[1:], uint32(len(part)))
		if _, err := f.w.Write(head[:]); err != nil {
			return err
		}
		if _, err := f.w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// framed is a writer of one kind of frames.
type framed struct {
	frames

	kind byte
}

func (f framed) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return len(p), f.send(f.kind, p)
}

// ErrBroken is in the error of an answer that ended before all was said.
var ErrBroken = errors.New("the answer broke off")

// ReadAnswer passes the bytes of the two files on.
func ReadAnswer(r io.Reader, results, failures io.Writer) (stats Stats, err error) {
	var head [frameHead]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return stats, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		n := int64(binary.BigEndian.Uint32(head[1:]))
		if n > maxFrame {
			return stats, fmt.Errorf("%w: a frame of %d bytes", ErrBroken, n)
		}
		switch kind := head[0]; kind {
		case frameResults, frameErrors:
			to := results
			if kind == frameErrors {
				to = failures
			}
			part := &io.LimitedReader{R: r, N: n}
			counted := &writer{w: to}
			if _, err := io.Copy(counted, part); counted.err != nil {
				return stats, counted.err
			} else if err != nil || part.N > 0 {
				return stats, fmt.Errorf("%w within a frame", ErrBroken)
			}
		case frameStats, frameFault:
			text := make([]byte, n)
			if _, err := io.ReadFull(r, text); err != nil {
				return stats, fmt.Errorf("%w: %w", ErrBroken, err)
			}
			return end(kind, text)
		default:
			return stats, fmt.Errorf("%w: a frame of the unknown kind %q", ErrBroken, kind)
		}
	}
}

func end(kind byte, text []byte) (stats Stats, err error) {
	if kind == frameStats {
		if err := json.Unmarshal(text, &stats); err != nil {
			return Stats{}, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		return stats, nil
	}
	var f Fault
	if err := json.Unmarshal(text, &f); err != nil {
		return Stats{}, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return Stats{}, resource.Errorf(f.Code, "%s", f.Message).WithCause(f.Cause)
}

// writer tells errors of writing from those of reading.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) Write(p []byte) (n int, err error) {
	n, w.err = w.w.Write(p)
	return n, w.err
}
