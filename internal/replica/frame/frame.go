// Package frame carries many predictions at a time over one connection between this
// server and a program of ours that serves a model (tategu-runner). With HTTP/1.1 each
// request is a write, a wake-up and a read on either side; here whatever is asked while
// the other side is busy goes out in one write, and so do the answers.
//
// A connection begins as HTTP: GET Route with Upgrade: Protocol, answered by 101. A
// server that answers anything else is asked by plain HTTP. Then there are frames, each
// a head of ten bytes, big-endian, and a body:
//
//	length of the body (4) | number of the question (4) | code (2)
//
// Code 1 is a question, its body that of a request to the predict route; 0 takes the
// question of that number back; 100 and above is the status of the answer to it, whose
// body is JSON. Numbers are the asking side's to choose; one is not used twice at a time.
package frame

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// Route of the request that begins a connection.
	Route = "/tategu/frames"
	// Protocol is what it asks to go over to.
	Protocol = "tategu-frames/1"
)

const (
	headSize = 10
	buffer   = 64 << 10 // of what is read at once
	// mostAsked is how large a question may be; larger ones, which would hold up the
	// others, go by HTTP.
	mostAsked = 64 << 10
	mostKept  = 1 << 20 // bytes of a buffer that is used again

	codeCancel   = 0
	codeQuestion = 1
	codeStatus   = 100
)

// head of a frame.
type head struct {
	length uint32
	id     uint32
	code   uint16
}

// formatError is what a peer sent that is no frame.
type formatError struct{ text string }

func (e *formatError) Error() string { return e.text }

func appendHead(b []byte, h head) []byte {
	b = binary.BigEndian.AppendUint32(b, h.length)
	b = binary.BigEndian.AppendUint32(b, h.id)
	return binary.BigEndian.AppendUint16(b, h.code)
}

// readHead waits for the head of a frame. io.EOF is an end between two frames.
func readHead(in *bufio.Reader) (head, error) {
	b, err := in.Peek(headSize)
	if len(b) < headSize {
		if err == io.EOF && len(b) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return head{}, err
	}
	h := head{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint16(b[8:])}
	_, err = in.Discard(headSize)
	return h, err
}

// asks checks a frame of the side that asks.
func (h head) asks() error {
	switch {
	case h.code == codeCancel && h.length == 0:
		return nil
	case h.code == codeQuestion && h.length <= mostAsked:
		return nil
	case h.code == codeQuestion:
		return &formatError{fmt.Sprintf("a question has %d bytes, at most %d are taken", h.length, mostAsked)}
	}
	return &formatError{fmt.Sprintf("a frame of code %d and %d bytes is none of the side that asks", h.code, h.length)}
}

// answers checks a frame of the side that answers.
func (h head) answers() error {
	if h.code < codeStatus || h.code > 599 {
		return &formatError{fmt.Sprintf("a frame of code %d is no answer", h.code)}
	}
	return nil
}

// readBody reads n bytes into b, whose memory grows with what really comes.
func readBody(in *bufio.Reader, b []byte, n int) ([]byte, error) {
	b = b[:0]
	for len(b) < n {
		from := len(b)
		if want := min(n-from, mostKept); cap(b)-from < want {
			b = append(b, make([]byte, want)...)
		} else {
			b = b[:from+want]
		}
		if _, err := io.ReadFull(in, b[from:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return b[:from], err
		}
	}
	return b, nil
}
