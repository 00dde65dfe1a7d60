package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
)

// request is one that is sent: text of HTTP/1.1, or a gRPC call.
type request struct {
	id     int
	title  string
	how    []string // mutations
	method string
	target string
	proto  string
	header [][2]string
	body   []byte
	// length is what Content-Length says when it is not the body's; the body then
	// ends early.
	length int
	// loose marks bytes that are no well-formed HTTP/1.1 request, which a server
	// may answer by closing the connection.
	loose bool
	grpc  bool
}

func (q *request) set(name, v string) {
	for i := range q.header {
		if strings.EqualFold(q.header[i][0], name) {
			q.header[i][1] = v
			return
		}
	}
	q.header = append(q.header, [2]string{name, v})
}

func (q *request) get(name string) string {
	for _, h := range q.header {
		if strings.EqualFold(h[0], name) {
			return h[1]
		}
	}
	return ""
}

func (q *request) note(format string, args ...any) {
	q.how = append(q.how, fmt.Sprintf(format, args...))
}

// describe is what a person needs to see of a failed request.
func (q *request) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %s\n%s %s %s\n", q.title, strings.Join(q.how, "; "), q.method, clip([]byte(q.target), 600), q.proto)
	for _, h := range q.header {
		fmt.Fprintf(&b, "%s: %s\n", h[0], clip([]byte(h[1]), 200))
	}
	b.WriteString(clip(q.body, 3000))
	return b.String()
}

// generator makes request N of a seed.
type generator struct {
	seed  uint64
	seeds []seedRequest
	auto  []*boundMethod
	vars  variables
}

// random is the source of request n alone, so that it can be replayed.
func (g *generator) random(n int) *rand.Rand { return rand.New(rand.NewPCG(g.seed, uint64(n))) } //nolint:gosec // G404: seeded on purpose

// request gives request n. The first ones are the corpus as it is.
func (g *generator) request(n int) *request {
	r := g.random(n)
	plain := n < len(g.seeds)
	var s seedRequest
	switch {
	case plain:
		s = g.seeds[n]
	case r.IntN(5) == 0:
		s = g.auto[r.IntN(len(g.auto))].seed(r)
	default:
		s = g.seeds[r.IntN(len(g.seeds))]
	}
	s = g.vars.apply(s)
	q := &request{id: n, title: s.title, method: s.method, target: s.target, proto: "HTTP/1.1", body: s.body, length: -1}
	q.header = append(q.header, s.header...)
	if s.method == "GRPC" {
		q.grpc = true
		g.grpcRequest(r, q, plain)
		return q
	}
	if plain {
		return q
	}
	for range 1 + r.IntN(2)*r.IntN(2) {
		mutate(r, q)
	}
	return q
}

// mutate makes one change.
func mutate(r *rand.Rand, q *request) {
	n := r.IntN(100)
	switch {
	case n < 48 && len(q.body) > 0:
		mutateBody(r, q)
	case n < 62:
		mutatePath(r, q)
	case n < 76:
		mutateQuery(r, q)
	case n < 92:
		mutateHeader(r, q)
	case n < 96:
		verbs := []string{"GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get", "X", "LIST"}
		q.method = verbs[r.IntN(len(verbs))]
		q.note("verb %s", q.method)
	default:
		mutateFraming(r, q)
	}
}

func mutateBody(r *rand.Rand, q *request) {
	contentType := q.get("Content-Type")
	var how string
	switch n := r.IntN(20); {
	case n < 14 && strings.Contains(contentType, "json"):
		q.body, how = mutateJSON(r, q.body)
	case n < 16 && strings.HasPrefix(contentType, "multipart/"):
		q.body, how = mutateMultipart(r, q.body)
	case n == 16:
		q.body, how = nil, "no body"
	case n == 17:
		mutateGzip(r, q)
		return
	case n == 18 && r.IntN(3) == 0:
		q.body, how = bigList(r, q.body), "a list of a million items"
	case n == 19:
		q.body, how = append([]byte("\xef\xbb\xbf"), q.body...), "a byte order mark"
	default:
		q.body, how = mutateBytes(r, q.body)
	}
	q.note("body: %s", how)
}

// bigList puts a million items where the body has a value.
func bigList(r *rand.Rand, body []byte) []byte {
	item := []string{"1", `""`, "{}", "[]", "null", `{"a":1}`}[r.IntN(6)]
	list := []byte("[" + strings.Repeat(item+",", 999_999) + item + "]")
	root, err := parseJSON(body)
	if err != nil {
		return list
	}
	all := root.all()
	*all[r.IntN(len(all))] = value{kind: 's', raw: list}
	return root.text()
}

func mutateMultipart(r *rand.Rand, body []byte) ([]byte, string) {
	lines := bytes.Split(body, []byte("\r\n"))
	i := r.IntN(len(lines))
	switch r.IntN(4) {
	case 0:
		lines = append(lines[:i:i], lines[i+1:]...)
	case 1:
		lines = append(lines[:i:i], append([][]byte{lines[i]}, lines[i:]...)...)
	case 2:
		j := r.IntN(len(lines))
		lines[i], lines[j] = lines[j], lines[i]
	default:
		return bytes.Join(lines, []byte("\n")), "line feeds alone"
	}
	return bytes.Join(lines, []byte("\r\n")), "a line changed its place"
}

func mutateGzip(r *rand.Rand, q *request) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	bomb := r.IntN(8) == 0
	_, _ = w.Write(q.body) // into memory
	if bomb {
		_, _ = w.Write(make([]byte, 80<<20)) // the same
	}
	_ = w.Close() // the same
	q.set("Content-Encoding", "gzip")
	switch packed := b.Bytes(); {
	case bomb:
		q.body = packed
		q.note("gzip that unpacks to 80 MB")
	case r.IntN(4) < 2:
		q.body = packed
		q.note("gzip")
	case r.IntN(2) == 0:
		q.note("said to be gzip")
	default:
		broken, how := mutateBytes(r, packed)
		q.body = broken
		q.note("gzip, %s", how)
	}
}

func mutatePath(r *rand.Rand, q *request) {
	path, query, hasQuery := strings.Cut(q.target, "?")
	segments := strings.Split(path, "/")
	if len(segments) < 2 {
		segments = []string{"", path}
	}
	i := 1 + r.IntN(len(segments)-1)
	odd := []string{
		"", "-", "0", "..", ".", "%2e%2e", "%2F", "%00", "%", "%zz", "%ff", "a%2Fb", "9223372036854775808", "a@b", "@", ":", "a:b", "*", "**", "{name}", "~",
		url.PathEscape("日本"), strings.Repeat("x", 300), strings.Repeat("y", 9000), strings.Repeat("%41", 400), "models", "projects", "b", "o", "operations", "tegu",
		"corpus-model", "77", "corpus-bucket", "a.txt", "UPPER", "a b", "\\", "a;b", "a&b", "a=b", "a+b", "%20", "%0d%0aX-A:b", "endpoints", "metadataStores", "default",
	}
	word := odd[r.IntN(len(odd))]
	switch r.IntN(8) {
	case 0, 1, 2:
		segments[i] = word
	case 3:
		segments = append(segments[:i:i], append([]string{word}, segments[i:]...)...)
	case 4:
		segments = append(segments[:i:i], segments[i+1:]...)
	case 5:
		segments[len(segments)-1] += []string{":cancel", ":predict", ":wait", ":", ":unknown", ":getIamPolicy", ":setIamPolicy", ":import", ":export", ":copy", ":explain", ":generateContent", "/", "%3Apredict"}[r.IntN(14)]
	case 6:
		segments[i] += word
	default:
		versions := []string{"v1", "v1beta1", "ui", "v2", "V1", "v1alpha", "storage", "upload"}
		segments[1] = versions[r.IntN(len(versions))]
	}
	q.target = strings.Join(segments, "/")
	if !strings.HasPrefix(q.target, "/") {
		q.target = "/" + q.target
	}
	q.target = strings.ReplaceAll(q.target, " ", "%20")
	if hasQuery {
		q.target += "?" + query
	}
	q.note("path")
}

func mutateQuery(r *rand.Rand, q *request) {
	odd := []string{"", "-1", "0", "1", "1001", "2147483647", "2147483648", "9223372036854775808", "1e3", "true", "TRUE", "x", "%", "%zz", "%ff", "%00", "*", "a..b", strings.Repeat("z", 3000)}
	pairs := map[string][]string{
		"filter": {
			"a", "(((", ")", "display_name%3D", "NOT", "a%3Db+OR", "-a%3A*", "labels.a.b.c%3Dd", "create_time%3E%22x%22", "display_name%3D%22%5C", "in_context()", "metadata.a.b%3D1",
			strings.Repeat("%28", 500), strings.Repeat("a%3Db+AND+", 1500), "name%3D%22" + strings.Repeat("*a", 200) + "%22", "state%3DJOB_STATE_NOPE", "state%21%3D1", "%FF%3D1", "a%3D%27",
		},
		"orderBy":   {"", "name+desc", "name+up", ",", "labels", "create_time,create_time", strings.Repeat("name,", 40), "a..b", "%60a", "metadata.a"},
		"readMask":  {"*", "name", "labels.a", "nope", "a..b", "%60", "name,name", strings.Repeat("name,", 3000), "labels.%60a.b%60", "createTime.seconds"},
		"pageToken": {"AAAA", "x", "%00", strings.Repeat("A", 5000), "MQ", "MS8v", "/+=="},
		"$alt":      {"json", "json%3Benum-encoding%3Dint", "sse", "media", "proto", "json%3Bx", ""},
		"alt":       {"media", "json", "sse", "xml", ""},
	}
	names := []string{
		"pageSize", "pageToken", "filter", "orderBy", "readMask", "updateMask", "$alt", "alt", "fields", "key", "prettyPrint", "callback", "etag", "force", "allowMissing", "modelId",
		"endpointId", "pipelineJobId", "artifactId", "validateOnly", "maxHops", "parent", "name", "model.displayName", "timeout", "maxResults", "prefix", "delimiter", "startOffset",
		"endOffset", "versions", "generation", "metageneration", "ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch", "ifSourceGenerationMatch",
		"projection", "uploadType", "upload_id", "name", "userProject", "project", "kmsKeyName", "predefinedAcl", "matchGlob", "softDeleted", "rewriteToken", "maxBytesRewrittenPerCall",
		"contentEncoding", "includeTrailingDelimiter", "uploads", "uploadId", "partNumber", "max-keys", "list-type", "continuation-token", "location", "acl", "lifecycle", "cors",
		"X-Goog-Signature", "X-Goog-Expires", "resource", "follow", "after", "limit", "access_token", "permissions", "destinationKmsKeyName", "copySourceGeneration", "a[]", "", "%zz", "\xc3",
	}
	path, query, _ := strings.Cut(q.target, "?")
	parts := strings.Split(query, "&")
	if r.IntN(4) == 0 && query != "" {
		i := r.IntN(len(parts))
		switch r.IntN(3) {
		case 0:
			parts = append(parts[:i:i], parts[i+1:]...)
		case 1:
			parts = append(parts, parts[i])
		default:
			name, _, _ := strings.Cut(parts[i], "=")
			parts[i] = name + "=" + odd[r.IntN(len(odd))]
		}
	} else {
		name := names[r.IntN(len(names))]
		values := odd
		if special := pairs[name]; special != nil && r.IntN(4) > 0 {
			values = special
		}
		parts = append(parts, name+"="+values[r.IntN(len(values))])
	}
	q.target = path + "?" + strings.TrimPrefix(strings.Join(parts, "&"), "&")
	q.note("query")
}

func mutateHeader(r *rand.Rand, q *request) {
	headers := [][]string{
		{"Content-Type", "", "text/plain", "application/json; charset=utf-16", "multipart/related", "multipart/related; boundary=", "multipart/mixed; boundary=\"" + strings.Repeat("b", 80) + "\"", "a/b/c", ";;", "application/x-www-form-urlencoded", "application/grpc", "application/octet-stream", "\xff"},
		{"Content-Encoding", "gzip", "br", "deflate", "identity", "gzip, gzip", "x"},
		{"Accept-Encoding", "gzip", "*", "identity;q=0", ""},
		{"Range", "bytes=0-", "bytes=-1", "bytes=5-1", "bytes=0-0,2-3,5-", "bytes=99999999999999999999-", "bytes=-99999999999999999999", "items=0-1", "bytes=", "bytes=a-b", "bytes=" + strings.Repeat("0-1,", 3000) + "0-1", "bytes=0-0," + strings.Repeat(" ", 100)},
		{"If-Range", "x", "\"AAAAAAAAAAEB\""},
		{"Content-Range", "bytes 0-3/12", "bytes 4-7/12", "bytes */*", "bytes */12", "bytes 0-*/*", "bytes 9-3/12", "bytes 0-3/3", "bytes -1-2/3", "bytes 0-18446744073709551615/*", "bytes 0-4611686018427387903/4611686018427387904", "x"},
		{"If-Match", "*", "x", "\"AAAAAAAAAAEB\"", "W/\"a\"", "a, b"},
		{"If-None-Match", "*", "x", "\"AAAAAAAAAAEB\"", "a, b"},
		{"If-Modified-Since", "x", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT"},
		{"X-Goog-Hash", "crc32c=AAAAAA==", "md5=x", "crc32c=n03x6A==, crc32c=AAAAAA==", "sha=1", ",,,", "crc32c"},
		{"Content-MD5", "x", "1B2M2Y8AsgTpgAmY7PhCfg=="},
		{"X-Upload-Content-Length", "-1", "99999999999999999999", "x", "0", "9223372036854775807"},
		{"X-Upload-Content-Type", "\xff", strings.Repeat("t", 5000)},
		{"X-HTTP-Method-Override", "DELETE", "GET", "X"},
		{"Authorization", "Bearer x", "Bearer ", "Basic YTpi", "Bearer tgu_abcdefgh12345678_" + strings.Repeat("a", 26), "Bearer tgu_abcdefgh12345678_2000000000_" + strings.Repeat("0", 64), strings.Repeat("A", 8000), "Bearer\x00"},
		{"Host", "evil.example.com", "aiplatform.googleapis.com", "us-central1-aiplatform.googleapis.com", "storage.googleapis.com", "corpus-bucket.storage.googleapis.com", ".storage.googleapis.com", "oauth2.googleapis.com", "iamcredentials.googleapis.com", "sts.googleapis.com", "console.cloud.google.com", "www.googleapis.com", "[::1]", "localhost:1", "a..b", "127.0.0.1:99999"},
		{"Origin", "http://evil.example.com", "null", "http://localhost"},
		{"Sec-Fetch-Site", "cross-site", "same-origin"},
		{"X-Forwarded-For", "1.2.3.4", strings.Repeat("1.2.3.4,", 500)},
		{"Forwarded", "for=1.2.3.4"},
		{"Expect", "100-continue", "x"},
		{"Upgrade", "h2c", "websocket"},
		{"X-Goog-User-Project", "other", "p"},
		{"X-Goog-Encryption-Algorithm", "AES256"},
		{"X-Goog-Meta-A", "b", strings.Repeat("m", 9000), "\xff"},
		{"X-Goog-Copy-Source", "corpus-bucket/a.txt", "/corpus-bucket/a.txt", "x", "%zz", "/"},
		{"X-Goog-If-Generation-Match", "0", "x", "-1"},
		{"X-Goog-Request-Params", "name=x", "%zz"},
		{"X-Vertex-AI-LLM-Request-Type", "shared"},
		{"Grpc-Timeout", "1S", "x"},
		{"TE", "trailers"},
		{"Metadata-Flavor", "Google"},
		{"Accept", "text/event-stream", "*/*", "application/x-protobuf"},
	}
	h := headers[r.IntN(len(headers))]
	v := h[1+r.IntN(len(h)-1)]
	q.set(h[0], v)
	q.note("header %s: %s", h[0], clip([]byte(v), 60))
}

// mutateFraming breaks what HTTP itself says of a request.
func mutateFraming(r *rand.Rand, q *request) {
	switch r.IntN(9) {
	case 0:
		q.length = len(q.body) + 1 + r.IntN(1000)
		q.note("a body that ends early")
		q.loose = true
	case 1:
		q.set("X-Big", strings.Repeat("h", 70_000))
		q.note("a header of 70 kB")
		q.loose = true
	case 2:
		for i := range 3000 {
			q.header = append(q.header, [2]string{"X-H" + strconv.Itoa(i), strings.Repeat("v", 30)})
		}
		q.note("3000 headers")
		q.loose = true
	case 3:
		q.set("Transfer-Encoding", "chunked")
		chunks := []string{"5\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\nx\r\n", "zz\r\n", "5\r\nhel", "0\r\n\r\n", "-1\r\n\r\n", "5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"}
		q.body = []byte(chunks[r.IntN(len(chunks))])
		q.note("odd chunks")
		q.loose = true
	case 4:
		protocols := []string{"HTTP/1.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.1x", "http/1.1", "", "HTTP/2.0"}
		q.proto = protocols[r.IntN(len(protocols))]
		q.note("protocol %q", q.proto)
		q.loose = true
	case 5:
		q.header = append(q.header, [2]string{"Content-Length", strconv.Itoa(r.IntN(50))}, [2]string{"Transfer-Encoding", "chunked"})
		q.note("length and chunks")
		q.loose = true
	case 6:
		q.header = append(q.header, [2]string{"bad header", "x"})
		q.note("a header name with a space")
		q.loose = true
	case 7:
		targets := []string{"*", "http://evil.example.com/", "//evil/x", "/%", "", "x", "http://[::1", "/\x00", "/\xff", "/?" + strings.Repeat("q", 60000)}
		q.target = targets[r.IntN(len(targets))]
		q.note("odd target")
		q.loose = true
	default:
		firsts := []string{"\x16\x03\x01\x02\x00\x01\x00", "\x16\x03\x01\x00\x05\xff\xff\xff\xff\xff", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00", "C", "CONNECT ", "CONNECT x HTTP/1.1\r\n\r\n", "CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\x00\x00\x00\x00", "SSH-2.0-x\r\n", "PRI * HTTP/2.0\r\n\r\nXX"}
		q.proto, q.header, q.method, q.target = "raw", nil, "", ""
		q.body = []byte(firsts[r.IntN(len(firsts))])
		if r.IntN(3) == 0 {
			q.body, _ = mutateBytes(r, q.body)
		}
		q.note("other bytes than HTTP")
		q.loose = true
	}
}
