package resource

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

var (
	errUnbalanced   = errors.New("a quote is not closed")
	errEmptySegment = errors.New("a segment is empty")
)

// Sizes of a page (AIP-158): what a client gets that asks for none, and the most.
const (
	DefaultPageSize = 50
	MaxPageSize     = 1000
)

// Page is a position in a list: after the row of this time and key, or after
// this many rows when the order is not by time.
type Page struct {
	Created time.Time
	Key     string
	Offset  int
}

const (
	pageVersion = 1
	pageSumSize = 8
)

// Token writes the position as a page token, bound to query: the text of
// everything that must not change between pages. A token holds no secret and
// grants nothing, so its check is against damage and mix-ups, not against a forger.
func (p Page) Token(query string) string {
	data := make([]byte, 0, 1+8+4+len(p.Key)+pageSumSize)
	data = append(data, pageVersion)
	var created int64
	if !p.Created.IsZero() {
		created = p.Created.UnixNano()
	}
	data = binary.BigEndian.AppendUint64(data, uint64(created))
	data = binary.BigEndian.AppendUint32(data, uint32(p.Offset))
	data = append(data, p.Key...)
	return base64.RawURLEncoding.EncodeToString(append(data, pageSum(query, data)...))
}

// ParsePage reads a token made by Token for the same query.
func ParsePage(token, query string) (Page, error) {
	bad := Invalid("page_token", "the page token is not one that this list gave for the same parent, filter and order").
		WithHint("start again without a page token")
	data, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(data) < 1+8+4+pageSumSize || data[0] != pageVersion {
		return Page{}, bad
	}
	data, sum := data[:len(data)-pageSumSize], data[len(data)-pageSumSize:]
	if !bytes.Equal(sum, pageSum(query, data)) {
		return Page{}, bad
	}
	return Page{
		Created: time.Unix(0, int64(binary.BigEndian.Uint64(data[1:]))).UTC(),
		Offset:  int(binary.BigEndian.Uint32(data[9:])),
		Key:     string(data[13:]),
	}, nil
}

func pageSum(query string, data []byte) []byte {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(query))))
	h.Write([]byte(query))
	h.Write(data)
	return h.Sum(nil)[:pageSumSize]
}

// PageSize gives how many rows to answer for the page_size of a request.
func PageSize(asked int) (int, error) {
	switch {
	case asked < 0:
		return 0, Invalid("page_size", "page_size is %d: it must not be negative", asked)
	case asked == 0:
		return DefaultPageSize, nil
	}
	return min(asked, MaxPageSize), nil
}
