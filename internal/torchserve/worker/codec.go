// Package worker drives the stock Python workers of the torchserve package: it starts
// them, speaks their binary protocol (ts/protocol/otf_message_handler.py), and reads
// what they print.
package worker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Pair is a header, or a metric's dimension.
type Pair struct{ Name, Value string }

// Part is one input of a request.
type Part struct {
	Name        string
	ContentType string
	Value       []byte
}

// Request is one of a batch. Known says that the worker has its content already, as
// it has in continuous batches: then only the id is sent.
type Request struct {
	ID      string
	Headers []Pair
	Parts   []Part
	Known   bool
}

// Load tells a worker what it serves.
type Load struct {
	Name        string
	Dir         string
	Batch       int
	Handler     string
	GPU         int // -1 = the CPU
	Envelope    string
	LimitPixels bool
}

// Answer is one frame from a worker: of a batch, or of a load.
type Answer struct {
	Code    int // 200, or what went wrong for all of it, as an HTTP status
	Message string
	Items   []Item
}

// Item is one request's part of an answer.
type Item struct {
	ID          string
	ContentType string
	Status      int // HTTP
	Reason      string
	Headers     []Pair
	Body        []byte
	TooLarge    int64 // the size of a body beyond the limit, which was dropped; 0 = it is here
}

// StreamNext is the header that says whether a stream goes on.
const StreamNext = "ts_stream_next"

// Bounds of what is read from a worker, besides the body's.
const (
	maxText    = 1 << 20
	maxItems   = 1 << 20
	maxHeaders = 10_000
	firstBytes = 1 << 20 // of a body before more memory is taken for it
)

// ErrProtocol is wrapped by what is told of bytes that no worker sends.
var ErrProtocol = errors.New("the worker's answer is not in its protocol")

func putInt(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(int32(n))) }

func putText(b []byte, s string) []byte { return append(putInt(b, len(s)), s...) }

// AppendLoad adds the command that loads a model.
func AppendLoad(b []byte, l Load) []byte {
	b = putText(putText(append(b, 'L'), l.Name), l.Dir)
	b = putText(putInt(b, l.Batch), l.Handler)
	b = putText(putInt(b, l.GPU), l.Envelope)
	if l.LimitPixels {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendBatch adds the command that runs a batch.
func AppendBatch(b []byte, batch []Request) []byte {
	b = append(b, 'I')
	for i := range batch {
		r := &batch[i]
		b = putText(b, r.ID)
		if !r.Known {
			for _, h := range r.Headers {
				b = putText(putText(b, h.Name), h.Value)
			}
		}
		b = putInt(b, -1)
		if !r.Known {
			for _, p := range r.Parts {
				b = putText(putText(b, p.Name), p.ContentType)
				b = append(putInt(b, len(p.Value)), p.Value...)
			}
		}
		b = putInt(b, -1)
	}
	return putInt(b, -1)
}

// AppendAnswer adds a frame as a worker sends it; tests play workers with it.
func AppendAnswer(b []byte, a Answer) []byte {
	b = putText(putInt(b, a.Code), a.Message)
	for _, it := range a.Items {
		b = putInt(putText(putText(b, it.ID), it.ContentType), it.Status)
		b = putInt(putText(b, it.Reason), len(it.Headers))
		for _, h := range it.Headers {
			b = putText(putText(b, h.Name), h.Value)
		}
		b = append(putInt(b, len(it.Body)), it.Body...)
	}
	return putInt(b, -1)
}

// Decoder reads answers.
type Decoder struct {
	r     *bufio.Reader
	limit int64 // of a body
	four  [4]byte
	begun bool // an answer is read, or was when reading failed
}

// NewDecoder makes one that drops bodies of more than limit bytes.
func NewDecoder(r io.Reader, limit int64) *Decoder {
	return &Decoder{r: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

func (d *Decoder) int() (int, error) {
	if _, err := io.ReadFull(d.r, d.four[:]); err != nil {
		return 0, err
	}
	return int(int32(binary.BigEndian.Uint32(d.four[:]))), nil
}

func (d *Decoder) text(what string) (string, error) {
	n, err := d.int()
	if err != nil {
		return "", err
	}
	return d.textOf(n, what)
}

func (d *Decoder) textOf(n int, what string) (string, error) {
	if n < 0 || n > maxText {
		return "", fmt.Errorf("%w: %s of %d bytes", ErrProtocol, what, n)
	}
	if n == 0 {
		return "", nil
	}
	b := make([]byte, n)
	_, err := io.ReadFull(d.r, b)
	return string(b), err
}

// body reads at most limit bytes and takes memory only as they come.
func (d *Decoder) body() (b []byte, tooLarge int64, err error) {
	n, err := d.int()
	if err != nil {
		return nil, 0, err
	}
	switch {
	case n < 0:
		return nil, 0, fmt.Errorf("%w: a body of %d bytes", ErrProtocol, n)
	case int64(n) > d.limit:
		_, err := io.CopyN(io.Discard, d.r, int64(n))
		return nil, int64(n), err
	}
	b = make([]byte, min(n, firstBytes))
	if _, err := io.ReadFull(d.r, b); err != nil {
		return nil, 0, err
	}
	for len(b) < n {
		at, more := len(b), min(n-len(b), len(b))
		b = append(b, make([]byte, more)...)
		if _, err := io.ReadFull(d.r, b[at:]); err != nil {
			return nil, 0, err
		}
	}
	return b, 0, nil
}

// Read gives the next answer. io.EOF is an end between two.
func (d *Decoder) Read() (a Answer, err error) {
	if _, err = d.r.Peek(1); err != nil {
		return Answer{}, err
	}
	d.begun = true
	if a.Code, err = d.int(); err != nil {
		return Answer{}, err
	}
	if a.Code < 100 || a.Code > 599 {
		return Answer{}, fmt.Errorf("%w: the code %d", ErrProtocol, a.Code)
	}
	defer func() {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}()
	if a.Message, err = d.text("a message"); err != nil {
		return Answer{}, err
	}
	for {
		n, err := d.int()
		if err != nil {
			return Answer{}, err
		}
		if n == -1 {
			d.begun = false
			return a, nil
		}
		if len(a.Items) == maxItems {
			return Answer{}, fmt.Errorf("%w: more than %d answers at once", ErrProtocol, maxItems)
		}
		it, err := d.item(n)
		if err != nil {
			return Answer{}, err
		}
		a.Items = append(a.Items, it)
	}
}

func (d *Decoder) item(n int) (it Item, err error) {
	if it.ID, err = d.textOf(n, "a request id"); err != nil {
		return it, err
	}
	if it.ContentType, err = d.text("a content type"); err != nil {
		return it, err
	}
	if it.Status, err = d.int(); err != nil {
		return it, err
	}
	if it.Status < 100 || it.Status > 999 {
		return it, fmt.Errorf("%w: the status %d", ErrProtocol, it.Status)
	}
	if it.Reason, err = d.text("a reason"); err != nil {
		return it, err
	}
	count, err := d.int()
	if err != nil {
		return it, err
	}
	if count < 0 || count > maxHeaders {
		return it, fmt.Errorf("%w: %d headers", ErrProtocol, count)
	}
	for range count {
		var h Pair
		if h.Name, err = d.text("a header"); err != nil {
			return it, err
		}
		if h.Value, err = d.text("a header"); err != nil {
			return it, err
		}
		it.Headers = append(it.Headers, h)
	}
	it.Body, it.TooLarge, err = d.body()
	return it, err
}
