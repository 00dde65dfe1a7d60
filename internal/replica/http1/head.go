package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// parseError is an answer that is none.
type parseError struct{ text string }

func (e *parseError) Error() string { return e.text }

func malformed(format string, args ...any) error { return &parseError{fmt.Sprintf(format, args...)} }

// clip keeps errors short.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }

// head of an answer.
type head struct {
	status  int
	header  http.Header
	length  int64 // -1 = not known
	chunked bool
	keep    bool // the connection may be used again
}

// readLine gives a line without its end, CRLF or LF; it holds until the next read.
// limit bounds it with its end. A CR elsewhere is refused.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if len(line) > limit || err == bufio.ErrBufferFull { //nolint:errorlint // bufio gives it bare
		return nil, malformed("a line is longer than %d bytes", min(limit, in.Size()))
	}
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, malformed("a line holds a bare CR")
	}
	return line, nil
}

// readHead appends a head to b, lines ended by LF, without the empty line.
func readHead(in *bufio.Reader, b []byte, limit int) ([]byte, error) {
	for {
		line, err := readLine(in, limit-len(b))
		if err == io.EOF && len(b) > 0 { //nolint:errorlint // bufio gives it bare
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return b, err
		}
		if len(b) == 0 { // before it waits for more that may never come
			if _, _, err := parseStatus(string(line)); err != nil {
				return b, err
			}
		}
		if len(line) == 0 {
			return b, nil
		}
		if len(b)+len(line)+1 > limit {
			return b, malformed("the head is larger than %d bytes", limit)
		}
		b = append(append(b, line...), '\n')
	}
}

// maxFields bounds what one head makes us remember.
const maxFields = 1000

// parseHead reads the lines of readHead.
func parseHead(b []byte) (head, error) {
	text := string(b) // the values of the header are parts of it
	first, rest, _ := strings.Cut(text, "\n")
	h, minor, err := parseStatus(first)
	if err != nil {
		return h, err
	}
	n := strings.Count(rest, "\n")
	if n > maxFields {
		return h, malformed("the head has more than %d fields", maxFields)
	}
	h.header = make(http.Header, n)
	values := make([]string, 0, n)
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		name, value, err := field(line)
		if err != nil {
			return h, err
		}
		key := canonical(name)
		values = append(values, value)
		if have := h.header[key]; have != nil {
			h.header[key] = append(have, value)
		} else {
			h.header[key] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	return h, h.frame(minor)
}

// parseStatus reads "HTTP/1.1 200 OK"; the words after the number may be missing.
func parseStatus(line string) (h head, minor byte, err error) {
	const form = "HTTP/1.x nnn"
	ok := len(line) >= len(form) && line[:7] == "HTTP/1." && (line[7] == '0' || line[7] == '1') && line[8] == ' ' &&
		(len(line) == len(form) || line[len(form)] == ' ')
	if ok {
		for _, c := range []byte(line[9:12]) {
			ok = ok && c >= '0' && c <= '9'
			h.status = h.status*10 + int(c) - '0'
		}
	}
	if !ok || h.status < 100 || h.status > 599 {
		return h, 0, malformed("%q is no status line of HTTP/1.1", clip([]byte(line)))
	}
	return h, line[7], nil
}

// field splits a line of a header. Folded lines and blanks around the name are refused.
func field[T string | []byte](line T) (name, value T, err error) {
	colon := -1
	for i := range len(line) {
		if line[i] == ':' {
			colon = i
			break
		}
	}
	if colon <= 0 || !isToken(line[:colon]) {
		return name, value, malformed("%q is no field of a header", clip([]byte(line)))
	}
	begin, end := colon+1, len(line)
	for begin < end && isBlank(line[begin]) {
		begin++
	}
	for end > begin && isBlank(line[end-1]) {
		end--
	}
	value = line[begin:end]
	if !isValue(value) {
		return name, value, malformed("field %s holds a control character", clip([]byte(line[:colon])))
	}
	return line[:colon], value, nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isToken[T string | []byte](s T) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return len(s) > 0
}

func isValue[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// canonical spells a name as net/http does; the usual ones cost nothing.
func canonical(name string) string {
	switch name {
	case "content-type", "Content-Type":
		return "Content-Type"
	case "content-length", "Content-Length":
		return "Content-Length"
	case "transfer-encoding", "Transfer-Encoding":
		return "Transfer-Encoding"
	case "date", "Date":
		return "Date"
	case "server", "Server":
		return "Server"
	case "connection", "Connection":
		return "Connection"
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// frame finds where the body ends (RFC 9112, section 6).
func (h *head) frame(minor byte) error {
	h.length, h.keep = -1, minor == '1'
	for _, v := range h.header["Connection"] {
		for option := range strings.SplitSeq(v, ",") {
			switch option = strings.TrimSpace(option); {
			case strings.EqualFold(option, "close"):
				h.keep = false
			case strings.EqualFold(option, "keep-alive") && minor == '0':
				h.keep = true
			}
		}
	}
	lengths, codings := h.header["Content-Length"], h.header["Transfer-Encoding"]
	switch {
	case len(codings) > 0 && len(lengths) > 0:
		return malformed("the answer has both Content-Length and Transfer-Encoding")
	case len(codings) > 1 || len(codings) == 1 && !strings.EqualFold(codings[0], "chunked"):
		return malformed("transfer encoding %q is not known", clip([]byte(strings.Join(codings, ", "))))
	case len(codings) == 1 && minor == '0':
		return malformed("an answer of HTTP/1.0 is chunked")
	case len(codings) == 1:
		h.chunked = true
		return nil
	}
	for i, v := range lengths {
		n, err := strconv.ParseUint(v, 10, 63)
		if err != nil || v[0] == '+' {
			return malformed("%q is no Content-Length", clip([]byte(v)))
		}
		if i > 0 && int64(n) != h.length {
			return malformed("the answer has two lengths")
		}
		h.length = int64(n)
	}
	return nil
}

// check refuses a request that would be read as something else.
func check(r *Request) error {
	if !isToken(r.Method) {
		return &requestError{"its method is " + strconv.Quote(r.Method)}
	}
	if !strings.HasPrefix(r.Path, "/") {
		return &requestError{"its path does not begin with /"}
	}
	for i := range len(r.Path) {
		if c := r.Path[i]; c <= ' ' || c >= 0x7f {
			return &requestError{"its path holds a byte that is not escaped"}
		}
	}
	for name, values := range r.Header {
		if !isToken(name) {
			return &requestError{"it has a header called " + strconv.Quote(name)}
		}
		for _, v := range values {
			if !isValue(v) {
				return &requestError{"header " + name + " holds a control character"}
			}
		}
	}
	return nil
}

// appendHead writes the head of a request.
func appendHead(b []byte, r *Request, host string) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	for name, values := range r.Header {
		switch canonical(name) {
		case "Host", "Connection", "Content-Length", "Transfer-Encoding", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Expect":
			continue
		}
		for _, v := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	size := len(r.Body)
	if r.Upload != nil {
		size = r.Upload.size
	}
	if size > 0 || r.Method != http.MethodGet && r.Method != http.MethodHead {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(size), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}
