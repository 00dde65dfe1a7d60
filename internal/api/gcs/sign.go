package gcs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Signed requests of version 4
// (cloud.google.com/storage/docs/authentication/signatures).
const (
	signAlgorithm = "GOOG4-RSA-SHA256"
	signTime      = "20060102T150405Z"
	signLifetime  = 7 * 24 * time.Hour
	signSkew      = 15 * time.Minute // of clients whose clocks are ahead
	unsigned      = "UNSIGNED-PAYLOAD"
)

// signParams are the parameters of signed URLs of all kinds, in lower case.
func signParams() []string {
	return []string{
		"x-goog-signature", "x-goog-credential", "x-goog-algorithm", "signature", "googleaccessid",
		"x-amz-signature", "x-amz-credential", "x-amz-algorithm", "awsaccesskeyid",
	}
}

// Claims reports that a request carries a signature, right or wrong. It looks at
// the query as it was sent, so that nothing is read more kindly here than later.
func (h *Handler) Claims(r *http.Request) bool {
	return signedQuery(r.URL.RawQuery) || signedHeader(r) || h.isForm(r)
}

func signedQuery(raw string) bool {
	for pair := range strings.FieldsFuncSeq(raw, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if slices.Contains(signParams(), strings.ToLower(name)) {
			return true
		}
	}
	return false
}

// signedHeader reports a signature in the Authorization header, as HMAC keys make.
func signedHeader(r *http.Request) bool {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	scheme = strings.ToUpper(scheme)
	return strings.HasPrefix(scheme, "GOOG1") || strings.HasPrefix(scheme, "GOOG4-") || strings.HasPrefix(scheme, "AWS")
}

// isForm reports an upload by an HTML form to a bucket, whose signature is in its
// body.
func (h *Handler) isForm(r *http.Request) bool {
	if r.Method != http.MethodPost || !strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/form-data") {
		return false
	}
	t, err := h.target(r)
	return err == nil && t.service == serviceXML && t.names[1] == ""
}

// Prove reads the signature that a request carries and gives the service account
// whose key made it. A request that claims to be signed is judged by that alone.
func (h *Handler) Prove(r *http.Request) (p identity.Principal, claimed bool, err error) {
	if !h.Claims(r) {
		return p, false, nil
	}
	if !signedQuery(r.URL.RawQuery) && !signedHeader(r) {
		return p, true, nil // a form: who signed it is in its body, and xmlForm reads that
	}
	s, err := h.readSignature(r)
	if err != nil {
		return p, true, err
	}
	p, err = h.verify(r, s)
	return p, true, err
}

// signature is what a signed URL says of itself.
type signature struct {
	account   string
	scope     string // DATE/LOCATION/storage/goog4_request
	date      string
	expires   time.Time
	headers   []string // names, in lower case, in order
	signature []byte
}

func (h *Handler) readSignature(r *http.Request) (s signature, err error) {
	if signedHeader(r) {
		return s, resource.Unimplemented("a signature in the Authorization header (HMAC keys)").WithHint("send a token, or use a signed URL of version 4")
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return s, resource.Invalid("query", "the query cannot be read: %w", err)
	}
	t, err := h.target(r)
	switch {
	case err != nil:
		return s, err
	case q.Get("X-Goog-Algorithm") == "" && (q.Has("GoogleAccessId") || q.Has("Signature")):
		return s, resource.Unimplemented("a signed URL of version 2").WithHint(`sign with version 4, such as generate_signed_url(version="v4")`)
	case q.Has("X-Amz-Signature") || q.Has("X-Amz-Credential") || q.Has("AWSAccessKeyId") || q.Get("X-Goog-Algorithm") == "GOOG4-HMAC-SHA256":
		return s, resource.Unimplemented("a URL signed with an HMAC key").WithHint("sign with a service account's key: %s", signAlgorithm)
	case t.service != serviceXML:
		return s, mismatch("a signature is good for addresses of the form /BUCKET/OBJECT only: of which the key signs the whole")
	}
	return parseSignature(q)
}

func parseSignature(q url.Values) (s signature, err error) {
	for _, name := range []string{"X-Goog-Algorithm", "X-Goog-Credential", "X-Goog-Date", "X-Goog-Expires", "X-Goog-SignedHeaders", "X-Goog-Signature"} {
		if len(q[name]) != 1 || q.Get(name) == "" {
			return s, badSignature("the parameter %s of a signed URL is needed once, and is there %d times", name, len(q[name]))
		}
	}
	if a := q.Get("X-Goog-Algorithm"); a != signAlgorithm {
		return s, badSignature("the algorithm %.40q is not known: want %s", a, signAlgorithm)
	}
	s.date = q.Get("X-Goog-Date")
	date, err := time.Parse(signTime, s.date)
	if err != nil {
		return s, badSignature("X-Goog-Date %.40q is not a time such as 20260102T150405Z", s.date)
	}
	if s.account, s.scope, err = parseCredential(q.Get("X-Goog-Credential"), s.date); err != nil {
		return s, err
	}
	seconds, err := strconv.ParseInt(q.Get("X-Goog-Expires"), 10, 64)
	if err != nil || seconds < 1 || seconds > int64(signLifetime/time.Second) {
		return s, badSignature("X-Goog-Expires %.40q is not a number of seconds from 1 to %d", q.Get("X-Goog-Expires"), int64(signLifetime/time.Second))
	}
	s.expires = date.Add(time.Duration(seconds) * time.Second)
	s.headers = strings.Split(q.Get("X-Goog-SignedHeaders"), ";")
	if !slices.IsSorted(s.headers) || !slices.Contains(s.headers, "host") || len(slices.Compact(slices.Clone(s.headers))) != len(s.headers) {
		return s, badSignature("X-Goog-SignedHeaders %.200q does not list each header once, in order and with host", q.Get("X-Goog-SignedHeaders"))
	}
	if s.signature, err = hex.DecodeString(q.Get("X-Goog-Signature")); err != nil {
		return s, mismatch("the signature is not hexadecimal")
	}
	return s, nil
}

// parseCredential reads EMAIL/DATE/LOCATION/storage/goog4_request.
func parseCredential(credential, date string) (account, scope string, err error) {
	account, scope, ok := strings.Cut(credential, "/")
	words := strings.Split(scope, "/")
	if !ok || len(words) != 4 || len(date) < 8 || words[0] != date[:8] || words[1] == "" || words[2] != "storage" || words[3] != "goog4_request" {
		return "", "", badSignature("the credential %.200q is not EMAIL/%.8s/LOCATION/storage/goog4_request", credential, date)
	}
	return account, scope, nil
}

// verify proves the signature before it looks at the time, so that nothing is
// said of requests that nobody signed.
func (h *Handler) verify(r *http.Request, s signature) (identity.Principal, error) {
	requests, err := canonicalRequests(r, s.headers)
	if err != nil {
		return identity.Principal{}, err
	}
	var p identity.Principal
	for _, request := range requests {
		sum := sha256.Sum256([]byte(request))
		message := strings.Join([]string{signAlgorithm, s.date, s.scope, hex.EncodeToString(sum[:])}, "\n")
		if p, err = h.auth.VerifySignature(r.Context(), s.account, []byte(message), s.signature); err == nil {
			break
		}
		if resource.CodeOf(err) != codes.PermissionDenied {
			return identity.Principal{}, err
		}
	}
	if err != nil {
		return identity.Principal{}, &xmlError{http.StatusForbidden, "SignatureDoesNotMatch", err}
	}
	now := h.now()
	if !now.Before(s.expires) {
		return identity.Principal{}, &xmlError{http.StatusBadRequest, "ExpiredToken", resource.Errorf(codes.InvalidArgument,
			"the signed URL expired at %s", s.expires.Format(time.RFC3339))}
	}
	if date, err := time.Parse(signTime, s.date); err != nil || date.After(now.Add(signSkew)) {
		return identity.Principal{}, &xmlError{http.StatusForbidden, "RequestTimeTooSkewed", resource.Errorf(codes.PermissionDenied,
			"the URL was signed in the future: the clocks of signer and server differ by more than %v", signSkew)}
	}
	return p, nil
}

// canonicalRequests gives the texts of which one was signed
// (cloud.google.com/storage/docs/authentication/canonical-requests). They mean
// the same request: Go sorts parameters by name and leaves the port out of the
// host, Python sorts whole pairs and has the host as it is sent.
func canonicalRequests(r *http.Request, signed []string) ([]string, error) {
	path, err := canonicalPath(r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	sent, sorted, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	payload := unsigned
	if slices.Contains(signed, contentSHA256) {
		payload = strings.TrimSpace(r.Header.Get(contentSHA256))
	}
	var requests []string
	for _, host := range slices.Compact([]string{r.Host, (&url.URL{Host: r.Host}).Hostname()}) {
		headers, err := canonicalHeaders(r, host, signed)
		if err != nil {
			return nil, err
		}
		for _, query := range slices.Compact([]string{sent, sorted}) {
			requests = append(requests, strings.Join([]string{r.Method, path, query, headers, strings.Join(signed, ";"), payload}, "\n"))
		}
	}
	return requests, nil
}

const contentSHA256 = "x-goog-content-sha256"

// canonicalHeaders also refuses headers that would change what the request does
// and that the signature does not cover.
func canonicalHeaders(r *http.Request, host string, signed []string) (string, error) {
	for name := range r.Header {
		name = strings.ToLower(name)
		if (strings.HasPrefix(name, "x-goog-") || strings.HasPrefix(name, "x-amz-")) && !slices.Contains(signed, name) {
			return "", mismatch("the header " + name + " is sent and not signed")
		}
	}
	var b strings.Builder
	for _, name := range signed {
		values := r.Header.Values(name)
		switch {
		case name == "host":
			values = []string{host}
		case name == "content-length" && len(values) == 0 && r.ContentLength >= 0:
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		case len(values) == 0:
			return "", badSignature("the header %.80q is signed and not sent", name)
		}
		folded := make([]string, 0, len(values))
		for _, v := range values {
			folded = append(folded, strings.Join(strings.Fields(v), " "))
		}
		b.WriteString(name + ":" + strings.Join(folded, ",") + "\n")
	}
	return b.String(), nil
}

// canonicalPath writes a path with the escapes that signers use, whichever the
// client sent: the segments stay what they were.
func canonicalPath(escaped string) (string, error) {
	segments := strings.Split(escaped, "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return "", resource.Invalid("path", "the path cannot be read: %w", err)
		}
		segments[i] = escape(plain)
	}
	return strings.Join(segments, "/"), nil
}

// canonicalQuery writes the parameters but for the signature: as they were sent,
// and sorted by name.
func canonicalQuery(raw string) (sent, sorted string, err error) {
	type pair struct{ name, text string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if name, err = url.QueryUnescape(name); err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return "", "", resource.Invalid("query", "the query cannot be read: %w", err)
		}
		if name != "X-Goog-Signature" {
			pairs = append(pairs, pair{name, escape(name) + "=" + escape(value)})
		}
	}
	join := func() string {
		texts := make([]string, 0, len(pairs))
		for _, p := range pairs {
			texts = append(texts, p.text)
		}
		return strings.Join(texts, "&")
	}
	sent = join()
	slices.SortStableFunc(pairs, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	return sent, join(), nil
}

// escape leaves only unreserved characters (RFC 3986, section 2.3).
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func mismatch(why string) error {
	return &xmlError{http.StatusForbidden, "SignatureDoesNotMatch", resource.Errorf(codes.PermissionDenied, "%s", why)}
}

func badSignature(format string, args ...any) error {
	return &xmlError{http.StatusBadRequest, "MalformedSecurityHeader", resource.Errorf(codes.InvalidArgument, format, args...)}
}

// Refuse answers with an error in the form of the API that was called, which the
// page that called may read. A preflight is answered as any other: what is signed
// is the request behind it.
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	t, perr := h.target(r)
	if perr == nil && h.cors(w, r, t) {
		return
	}
	h.writeError(w, r, perr == nil && t.service == serviceXML, err)
}

// checkSigned refuses a signature that nobody proved, and holds the body of a
// signed request against the hash that was signed with it.
func checkSigned(r *http.Request) error {
	p := identity.FromContext(r.Context())
	if !p.Signed {
		if signedQuery(r.URL.RawQuery) {
			return resource.Errorf(codes.PermissionDenied, "the URL is signed with a key that this server never issued")
		}
		return nil
	}
	want := strings.TrimSpace(r.Header.Get(contentSHA256))
	if want == "" || want == unsigned || r.Body == nil {
		return nil
	}
	r.Body = &hashed{body: r.Body, hash: sha256.New(), want: strings.ToLower(want)}
	return nil
}

// hashed is a body that ends in an error when it is not the one that was signed.
type hashed struct {
	body io.ReadCloser
	hash hash.Hash
	want string
}

func (b *hashed) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.hash.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(b.hash.Sum(nil)) != b.want {
		return n, &xmlError{http.StatusBadRequest, "XAmzContentSHA256Mismatch", resource.Invalid(contentSHA256, "the body does not have the hash that was signed")}
	}
	return n, err
}

func (b *hashed) Close() error { return b.body.Close() }
