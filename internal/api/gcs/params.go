package gcs

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// maxMetadata bounds a JSON body.
const maxMetadata = 1 << 20

// number reads an integer parameter; nil when it is absent.
func number(q url.Values, name string) (*int64, error) {
	text := q.Get(name)
	if text == "" {
		return nil, nil //nolint:nilnil // absent is a value here
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, resource.Invalid(name, "%s=%q is no number", name, text)
	}
	return &n, nil
}

// isTrue reads a boolean, which Python's client writes True.
func isTrue(q url.Values, name string) bool {
	on, err := strconv.ParseBool(q.Get(name))
	return err == nil && on
}

// conditions reads the preconditions, whose parameters start with prefix:
// "if" for the object itself, "ifSource" for the source of a copy.
func conditions(q url.Values, prefix string) (c blob.Conditions, err error) {
	for _, p := range []struct {
		name string
		to   **int64
	}{
		{"GenerationMatch", &c.GenerationMatch},
		{"GenerationNotMatch", &c.GenerationNotMatch},
		{"MetagenerationMatch", &c.MetagenerationMatch},
		{"MetagenerationNotMatch", &c.MetagenerationNotMatch},
	} {
		if *p.to, err = number(q, prefix+p.name); err != nil {
			return c, err
		}
	}
	return c, nil
}

// conditions reads the preconditions of parameters and of If-Match headers.
func (c *call) conditions() (blob.Conditions, error) {
	conds, err := conditions(c.query, "if")
	if err != nil || c.xml { // of the XML API: see xmlConditions and checkReadHeaders
		return conds, err
	}
	if tag := c.r.Header.Get("If-Match"); tag != "" && tag != "*" {
		generation, metageneration, ok := parseETag(tag)
		if !ok {
			return conds, resource.Errorf(codes.FailedPrecondition, "If-Match: %s is not the object's etag", tag)
		}
		conds.GenerationMatch, conds.MetagenerationMatch = &generation, &metageneration
	}
	if c.r.Header.Get("If-None-Match") == "*" && c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		if conds.GenerationMatch != nil && *conds.GenerationMatch != 0 {
			return conds, resource.Errorf(codes.FailedPrecondition, "If-None-Match: * wants no object, and another precondition wants one")
		}
		conds.GenerationMatch = new(int64) // no object
		return conds, nil
	}
	if tag := c.r.Header.Get("If-None-Match"); tag != "" && c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return conds, resource.Unimplemented("If-None-Match on a write; use ifGenerationNotMatch")
	}
	return conds, nil
}

func (c *call) generation() (int64, error) { return generation(c.query, "generation") }

func generation(q url.Values, name string) (int64, error) {
	n, err := number(q, name)
	if err != nil || n == nil {
		return 0, err
	}
	if *n <= 0 {
		return 0, resource.Invalid(name, "%s=%d is no generation", name, *n)
	}
	return *n, nil
}

// etag changes with each generation and metageneration.
func etag(generation, metageneration int64) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(generation))
	return base64.StdEncoding.EncodeToString(binary.AppendUvarint(b, uint64(metageneration)))
}

func parseETag(s string) (generation, metageneration int64, ok bool) {
	b, err := base64.StdEncoding.DecodeString(strings.Trim(strings.TrimSpace(s), `"`))
	if err != nil || len(b) < 9 {
		return 0, 0, false
	}
	m, n := binary.Uvarint(b[8:])
	return int64(binary.BigEndian.Uint64(b)), int64(m), n == len(b)-8
}

// pageToken is opaque to clients: the last name of the page before.
func pageToken(last string) string {
	if last == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte("1" + last))
}

func parsePageToken(token string) (last string, err error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil || len(b) < 2 || b[0] != '1' || !utf8.Valid(b) {
		return "", resource.Invalid("pageToken", "pageToken %q was not made by this server", token)
	}
	return string(b[1:]), nil
}

// versionToken is the token of a list that may hold several generations of a name.
func versionToken(last string, generation int64) string {
	if generation == 0 {
		return pageToken(last)
	}
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint64([]byte("2"), uint64(generation)), last...))
}

func parseVersionToken(token string) (last string, generation int64, err error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil || len(b) < 10 || b[0] != '2' || !utf8.Valid(b[9:]) || b[1] >= 0x80 {
		last, err = parsePageToken(token)
		return last, 0, err
	}
	return string(b[9:]), int64(binary.BigEndian.Uint64(b[1:])), nil
}

func (c *call) pageSize() (int, error) {
	n, err := number(c.query, "maxResults")
	if err != nil || n == nil {
		return 0, err
	}
	if *n <= 0 {
		return 0, resource.Invalid("maxResults", "maxResults=%d is not positive", *n)
	}
	return int(min(*n, 1000)), nil
}

// readJSON decodes a bounded body; an empty one leaves v as it is.
func readJSON(r io.Reader, v any) error {
	data, err := io.ReadAll(io.LimitReader(body{r}, maxMetadata+1))
	if err != nil {
		return err
	}
	if len(data) > maxMetadata {
		return resource.Invalid("body", "the metadata has more than %d bytes", maxMetadata)
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return resource.Invalid("body", "the body is not the JSON that is wanted: %w", err)
	}
	return nil
}

// decodeHash reads base64 of exactly n bytes.
func decodeHash(field, text string, n int) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != n {
		return nil, resource.Invalid(field, "%s %q is not base64 of %d bytes", field, text, n)
	}
	return b, nil
}

func setCRC(conds *blob.Conditions, text string) error {
	b, err := decodeHash("crc32c", text, 4)
	if err != nil {
		return err
	}
	crc := binary.BigEndian.Uint32(b)
	if conds.CRC32C != nil && *conds.CRC32C != crc {
		return resource.Invalid("crc32c", "two different CRC32C are given")
	}
	conds.CRC32C = &crc
	return nil
}

func setMD5(conds *blob.Conditions, text string) error {
	b, err := decodeHash("md5Hash", text, 16)
	if err != nil {
		return err
	}
	if len(conds.MD5) > 0 && string(conds.MD5) != string(b) {
		return resource.Invalid("md5Hash", "two different MD5 are given")
	}
	conds.MD5 = b
	return nil
}

// headerHashes adds the hashes that a request's headers promise:
// X-Goog-Hash: crc32c=BASE64,md5=BASE64 and Content-MD5.
func headerHashes(h http.Header, conds *blob.Conditions) error {
	for _, line := range h.Values("X-Goog-Hash") {
		for item := range strings.SplitSeq(line, ",") {
			kind, value, _ := strings.Cut(strings.TrimSpace(item), "=")
			var err error
			switch kind {
			case "crc32c":
				err = setCRC(conds, value)
			case "md5":
				err = setMD5(conds, value)
			case "":
			default:
				err = resource.Invalid("x-goog-hash", "the hash %q is not known: want crc32c or md5", kind)
			}
			if err != nil {
				return err
			}
		}
	}
	if v := h.Get("Content-MD5"); v != "" {
		return setMD5(conds, v)
	}
	return nil
}

var errRange = errors.New("no such range")

// parseRange reads a Range header against an object of size bytes. ok is false
// when the whole object is the answer (no header, several ranges, or other units:
// RFC 9110, section 14.2 lets a server ignore those).
func parseRange(header string, size int64) (offset, length int64, ok bool, err error) {
	spec, isBytes := strings.CutPrefix(header, "bytes=")
	if !isBytes || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !dash || first == "" && last == "" {
		return 0, size, false, nil
	}
	from, err1 := parseUint(first)
	to, err2 := parseUint(last)
	if err1 != nil || err2 != nil {
		return 0, size, false, nil //nolint:nilerr // a malformed header is ignored, says the RFC
	}
	switch {
	case first == "": // the last "to" bytes
		if to == 0 || size == 0 {
			return 0, 0, false, errRange
		}
		length = min(to, size)
		return size - length, length, true, nil
	case last != "" && to < from:
		return 0, size, false, nil
	case from >= size:
		return 0, 0, false, errRange
	case last == "" || to >= size:
		to = size - 1
	}
	return from, to - from + 1, true, nil
}

// parseUint reads decimal digits only; "" is 0, and what is too large is the
// greatest number.
func parseUint(s string) (int64, error) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, errRange
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && s != "" {
		return 1<<63 - 1, nil // only the size can be wrong here
	}
	return n, nil
}
