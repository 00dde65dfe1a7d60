package gcs_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
	"tategu/internal/identity"
)

// signer makes signed URLs as the public description says, apart from the code
// that verifies them.
type signer struct {
	email   string
	private *rsa.PrivateKey
	at      time.Time
	expires string
	params  url.Values        // further ones
	headers map[string]string // signed besides host, in lower case
	change  func(url.Values)  // of the parameters before they are signed
}

func (s signer) url(t *testing.T, method, host, path string) string {
	t.Helper()
	headers := map[string]string{"host": host}
	maps.Copy(headers, s.headers)
	var names []string
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	date, scope := s.at.UTC().Format("20060102T150405Z"), s.at.UTC().Format("20060102")+"/auto/storage/goog4_request"
	q := url.Values{
		"X-Goog-Algorithm": {"GOOG4-RSA-SHA256"}, "X-Goog-Credential": {s.email + "/" + scope}, "X-Goog-Date": {date},
		"X-Goog-Expires": {s.expires}, "X-Goog-SignedHeaders": {strings.Join(names, ";")},
	}
	maps.Copy(q, s.params)
	if s.change != nil {
		s.change(q)
	}
	query := strings.ReplaceAll(q.Encode(), "+", "%20")
	var canonical strings.Builder
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", method, path, query)
	for _, name := range names {
		fmt.Fprintf(&canonical, "%s:%s\n", name, headers[name])
	}
	payload := "UNSIGNED-PAYLOAD"
	if v, ok := headers["x-goog-content-sha256"]; ok {
		payload = v
	}
	fmt.Fprintf(&canonical, "\n%s\n%s", strings.Join(names, ";"), payload)
	hash := sha256.Sum256([]byte(canonical.String()))
	sum := sha256.Sum256([]byte("GOOG4-RSA-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(hash[:])))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.private, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + host + path + "?" + query + "&X-Goog-Signature=" + hex.EncodeToString(signature)
}

func (g *guarded) signer(email string) signer {
	g.t.Helper()
	k, private, err := g.authority.CreateAccountKey(g.t.Context(), email)
	if err != nil {
		g.t.Fatal(err)
	}
	return signer{email: k.Email, private: private, at: g.clock.now(), expires: "60"}
}

func (g *guarded) put(bucket, name, data string) {
	g.t.Helper()
	if _, err := g.blobs.Put(g.t.Context(), blob.Object{Bucket: bucket, Name: name}, strings.NewReader(data), blob.Conditions{}); err != nil {
		g.t.Fatal(err)
	}
}

const ours = "localhost:8080"

func TestSignedURLs(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	sam := g.signer("sam@p.iam.tategu.internal")
	const odd = "/bucket/a%20b/%C3%BC~%2B%26.txt"
	put := sam
	put.headers = map[string]string{"content-type": "text/x; charset=utf-8", "x-goog-meta-colour": "deep red"}
	w := g.do("", "PUT", put.url(t, "PUT", ours, odd), "data", "Content-Type", "text/x; charset=utf-8", "X-Goog-Meta-Colour", "  deep   red ")
	check(t, w, 200)
	check(t, g.do("", "GET", sam.url(t, "GET", ours, odd), ""), 200, "data")
	check(t, g.do("", "HEAD", sam.url(t, "HEAD", ours, odd), ""), 200)
	// Go's client signs the host without its port.
	check(t, g.do("", "GET", strings.Replace(sam.url(t, "GET", "localhost", odd), "localhost", ours, 1), ""), 200, "data")
	// The same request in other writings.
	plain := sam.url(t, "GET", ours, odd)
	check(t, g.do("", "GET", strings.Replace(plain, "%2B%26", "+&", 1), ""), 200, "data")
	check(t, g.do("", "GET", strings.Replace(plain, "~", "%7E", 1), ""), 200, "data")
	get := sam
	get.params = url.Values{"response-content-disposition": {`attachment; filename="a b+c.txt"`}, "response-content-type": {"text/plain"}, "a-b": {"1"}, "a": {"2"}}
	w = g.do("", "GET", get.url(t, "GET", ours, odd), "")
	check(t, w, 200, "data")
	if got := w.Header(); got.Get("Content-Disposition") != `attachment; filename="a b+c.txt"` || got.Get("Content-Type") != "text/plain" {
		t.Errorf("headers: %v", got)
	}
	// Other addresses of the same bucket.
	check(t, g.do("", "GET", sam.url(t, "GET", "bucket.storage.googleapis.com", "/a%20b/%C3%BC~%2B%26.txt"), ""), 200, "data")
	check(t, g.do("", "GET", sam.url(t, "GET", "bucket.localhost:8080", "/a%20b/%C3%BC~%2B%26.txt"), ""), 200, "data")
	if err := g.blobs.EnsureBucket(t.Context(), "p", "cdn.example.com"); err != nil {
		t.Fatal(err)
	}
	g.put("cdn.example.com", "v1/o", "bound")
	check(t, g.do("", "GET", sam.url(t, "GET", "cdn.example.com", "/v1/o"), ""), 200, "bound")
	check(t, g.do("", "DELETE", sam.url(t, "DELETE", ours, odd), ""), 204)
	check(t, g.do("", "GET", plain, ""), 404, "NoSuchKey")
}

func TestSignedUploads(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	sam := g.signer("sam@p.iam.tategu.internal")
	start := sam
	start.headers = map[string]string{"x-goog-resumable": "start"}
	w := g.do("", "POST", start.url(t, "POST", ours, "/bucket/big"), "", "X-Goog-Resumable", "start")
	check(t, w, 201)
	session := w.Header().Get("Location")
	check(t, g.do("", "PUT", session, "content"), 200)
	if got, err := g.blobs.ReadAll(t.Context(), "gs://bucket/big", 0); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	check(t, g.do("", "PUT", session+"x", "content"), 401)
	// A hash of the body that is signed is held against the body.
	sum := sha256.Sum256([]byte("content"))
	hashed := sam
	hashed.headers = map[string]string{"x-goog-content-sha256": hex.EncodeToString(sum[:])}
	for body, status := range map[string]int{"content": 200, "another": 400, "": 400} {
		name := "/bucket/h" + body
		check(t, g.do("", "PUT", hashed.url(t, "PUT", ours, name), body, "X-Goog-Content-Sha256", hashed.headers["x-goog-content-sha256"]), status)
		if ok, err := g.blobs.Exists(t.Context(), "gs:/"+name); err != nil || ok != (status == 200) {
			t.Errorf("%s exists: %t, %v", name, ok, err)
		}
	}
}

// TestForgedSignatures changes what a signed URL must not survive. The caller has
// a good token and is the operator's: neither counts.
func TestForgedSignatures(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.put("bucket", "o", "secret")
	g.put("bucket", "other", "secret")
	sam := g.signer("sam@p.iam.tategu.internal")
	stranger := g.signer("eve@q.iam.tategu.internal")
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := sam.url(t, "GET", ours, "/bucket/o")
	with := func(change func(s *signer)) string {
		s := sam
		change(&s)
		return s.url(t, "GET", ours, "/bucket/o")
	}
	param := func(name, value string) string {
		return with(func(s *signer) { s.change = func(q url.Values) { q.Set(name, value) } })
	}
	admin := g.token("root@example.com", map[string]identity.Role{"p": identity.Admin})
	for _, tt := range []struct {
		name, method, url string
		status            int
		code              string
		headers           []string
	}{
		{"as it should be", "GET", good, 200, "", nil},
		{"another method", "PUT", good, 403, "SignatureDoesNotMatch", nil},
		{"HEAD for GET", "HEAD", good, 403, "", nil},
		{"another object", "GET", strings.Replace(good, "/bucket/o?", "/bucket/other?", 1), 403, "SignatureDoesNotMatch", nil},
		{"another host", "GET", strings.Replace(good, ours, "127.0.0.1:8080", 1), 403, "SignatureDoesNotMatch", nil},
		{"another port", "GET", strings.Replace(good, ours, "localhost:8081", 1), 403, "SignatureDoesNotMatch", nil},
		{"one more parameter", "GET", good + "&generation=1", 403, "SignatureDoesNotMatch", nil},
		{"a longer life", "GET", strings.Replace(good, "X-Goog-Expires=60", "X-Goog-Expires=600", 1), 403, "SignatureDoesNotMatch", nil},
		{"another account", "GET", strings.Replace(good, "sam%40p", "default%40p", 1), 403, "SignatureDoesNotMatch", nil},
		{"a longer signature", "GET", strings.Replace(good, "Signature=", "Signature=00", 1), 403, "SignatureDoesNotMatch", nil},
		{"no hexadecimal", "GET", strings.Replace(good, "Signature=", "Signature=zz", 1), 403, "SignatureDoesNotMatch", nil},
		{"a doubled signature", "GET", good + "&X-Goog-Signature=00", 400, "MalformedSecurityHeader", nil},
		{"a signature in small letters besides", "GET", good + "&x-goog-signature=00", 403, "SignatureDoesNotMatch", nil},
		{"a header that is not signed", "GET", good, 403, "SignatureDoesNotMatch", []string{"X-Goog-Meta-A", "b"}},
		{"an S3 header that is not signed", "GET", good, 403, "SignatureDoesNotMatch", []string{"X-Amz-Copy-Source", "/b/c"}},
		{"a stranger's key", "GET", with(func(s *signer) { s.private = foreign }), 403, "SignatureDoesNotMatch", nil},
		{"no account of ours", "GET", with(func(s *signer) { s.email = "a@b" }), 403, "SignatureDoesNotMatch", nil},
		{"an account of another project", "GET", stranger.url(t, "GET", ours, "/bucket/o"), 403, "AccessDenied", nil},
		{"a missing bucket as another project", "DELETE", stranger.url(t, "DELETE", ours, "/no-bucket"), 403, "AccessDenied", nil},
		{"a header that is signed and not sent", "GET", with(func(s *signer) { s.headers = map[string]string{"x-goog-meta-a": "b"} }), 400, "MalformedSecurityHeader", nil},
		{"expired", "GET", with(func(s *signer) { s.at = s.at.Add(-61 * time.Second) }), 400, "ExpiredToken", nil},
		{"expired and changed", "GET", strings.Replace(with(func(s *signer) { s.at = s.at.Add(-61 * time.Second) }), "/bucket/o?", "/bucket/other?", 1), 403, "SignatureDoesNotMatch", nil},
		{"14 minutes ahead", "GET", with(func(s *signer) { s.at = s.at.Add(14 * time.Minute) }), 200, "", nil},
		{"16 minutes ahead", "GET", with(func(s *signer) { s.at = s.at.Add(16 * time.Minute) }), 403, "RequestTimeTooSkewed", nil},
		{"for seven days", "GET", with(func(s *signer) { s.expires = "604800" }), 200, "", nil},
		{"for longer than seven days", "GET", with(func(s *signer) { s.expires = "604801" }), 400, "MalformedSecurityHeader", nil},
		{"for no time", "GET", with(func(s *signer) { s.expires = "0" }), 400, "MalformedSecurityHeader", nil},
		{"for a negative time", "GET", with(func(s *signer) { s.expires = "-5" }), 400, "MalformedSecurityHeader", nil},
		{"no date", "GET", param("X-Goog-Date", "yesterday"), 400, "MalformedSecurityHeader", nil},
		{"another algorithm", "GET", param("X-Goog-Algorithm", "none"), 400, "MalformedSecurityHeader", nil},
		{"host not signed", "GET", param("X-Goog-SignedHeaders", "content-type"), 400, "MalformedSecurityHeader", nil},
		{"headers out of order", "GET", param("X-Goog-SignedHeaders", "host;content-type"), 400, "MalformedSecurityHeader", nil},
		{"a scope of another day", "GET", param("X-Goog-Credential", sam.email+"/20200101/auto/storage/goog4_request"), 400, "MalformedSecurityHeader", nil},
		{"a scope of another service", "GET", param("X-Goog-Credential", sam.email+"/"+sam.at.UTC().Format("20060102")+"/auto/s3/goog4_request"), 400, "MalformedSecurityHeader", nil},
		{"no scope", "GET", param("X-Goog-Credential", sam.email), 400, "MalformedSecurityHeader", nil},
		{"HMAC", "GET", param("X-Goog-Algorithm", "GOOG4-HMAC-SHA256"), 501, "NotImplemented", nil},
		{"version 2", "GET", "http://" + ours + "/bucket/o?GoogleAccessId=a%40b&Expires=9999999999&Signature=eA%3D%3D", 501, "NotImplemented", nil},
		{"S3", "GET", "http://" + ours + "/bucket/o?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00", 501, "NotImplemented", nil},
		{"a signature of nothing", "GET", "http://" + ours + "/bucket/o?X-Goog-Signature=00", 400, "MalformedSecurityHeader", nil},
		{"the JSON API", "GET", "http://" + ours + "/storage/v1/b/bucket/o/o?alt=media&X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature=00", 403, "BUCKET/OBJECT", nil},
	} {
		w := g.do(admin, tt.method, tt.url, "", tt.headers...)
		if w.Code != tt.status || tt.method != http.MethodHead && !strings.Contains(w.Body.String(), tt.code) {
			t.Errorf("%s: %d %s, want %d %s", tt.name, w.Code, w.Body, tt.status, tt.code)
		}
		if tt.status != 200 && strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s gave the object", tt.name)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://"+ours+"/bucket/o", nil)
	r.Header.Set("Authorization", "GOOG4-HMAC-SHA256 Credential=x")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	check(t, w, 501, "NotImplemented")
}

func TestSignedByPolicy(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.put("bucket", "o", "data")
	eve := g.signer("eve@q.iam.tategu.internal")
	get := func() string { return eve.url(t, "GET", ours, "/bucket/o") }
	check(t, g.do("", "GET", get(), ""), 403, "AccessDenied")
	g.bind("roles/storage.objectViewer", "serviceAccount:eve@q.iam.tategu.internal")
	check(t, g.do("", "GET", get(), ""), 200, "data")
	check(t, g.do("", "DELETE", eve.url(t, "DELETE", ours, "/bucket/o"), ""), 403, "AccessDenied")
	url := get()
	keys, err := g.authority.AccountKeys(t.Context(), eve.email)
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	if err := g.authority.DeleteAccountKey(t.Context(), eve.email, keys[0].ID); err != nil {
		t.Fatal(err)
	}
	check(t, g.do("", "GET", url, ""), 403, "SignatureDoesNotMatch")
}

// TestSignatureWithoutProof asks the handler itself, as one who calls it around
// the wire: it believes no signature that nobody proved.
func TestSignatureWithoutProof(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.put("x", "1")
	check(t, s.do("GET", "/bucket/x?X-Goog-Signature=00", nil), 403)
	check(t, s.do("GET", "/bucket/x?x%2dgoog-signature=00", nil), 403)
}

func FuzzSignature(f *testing.F) {
	g := newGuardedFor(f)
	for _, seed := range []string{
		"X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%40p.iam.tategu.internal%2F20260102%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20260102T000000Z&X-Goog-Expires=60&X-Goog-SignedHeaders=host&X-Goog-Signature=00",
		"X-Goog-Signature=", "x-goog-signature=%zz", "Signature=;&GoogleAccessId", "X-Goog-Expires=9223372036854775807&X-Goog-Signature=0",
	} {
		f.Add("/bucket/o", seed, "host")
	}
	f.Fuzz(func(t *testing.T, path, query, header string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ours+"/", nil)
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = path, path, query
		r.Header[header] = []string{"x"}
		p, claimed, err := g.h.Prove(r)
		if claimed == (err == nil) || p.Email != "" {
			t.Errorf("claimed %t, as %q, %v", claimed, p.Email, err)
		}
		if err != nil {
			w := httptest.NewRecorder()
			g.h.Refuse(w, r, err)
			if w.Code >= 500 && w.Code != http.StatusNotImplemented || w.Code < 400 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
	})
}
