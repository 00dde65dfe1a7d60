package gcs_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
	"tategu/internal/identity"
)

// formOf makes a form for key new/NAME with a policy document; the callbacks spoil
// them.
type formOf struct {
	s          signer
	conditions []any
	fields     [][2]string
	expires    time.Time
	name, file string
	after      func(fields map[string]string)
	tail       string // a field behind the file
}

func (f formOf) request(t *testing.T, bucket string) *http.Request {
	t.Helper()
	date := f.s.at.UTC().Format("20060102T150405Z")
	credential := f.s.email + "/" + date[:8] + "/auto/storage/goog4_request"
	fixed := [][2]string{
		{"key", "new/${filename}"}, {"x-goog-date", date}, {"x-goog-credential", credential}, {"x-goog-algorithm", "GOOG4-RSA-SHA256"},
	}
	conditions := append([]any{map[string]string{"bucket": "bucket"}, []string{"starts-with", "$key", "new/"}}, f.conditions...)
	fields := map[string]string{}
	for _, kv := range append(fixed, f.fields...) {
		fields[kv[0]] = kv[1]
		if kv[0] != "key" && !strings.HasPrefix(kv[0], "x-ignore") {
			conditions = append(conditions, map[string]string{kv[0]: kv[1]})
		}
	}
	doc, err := json.Marshal(map[string]any{"expiration": f.expires.UTC().Format(time.RFC3339), "conditions": conditions})
	if err != nil {
		t.Fatal(err)
	}
	fields["policy"] = base64.StdEncoding.EncodeToString(doc)
	sum := sha256.Sum256([]byte(fields["policy"]))
	sig, err := rsa.SignPKCS1v15(rand.Reader, f.s.private, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	fields["x-goog-signature"] = hex.EncodeToString(sig)
	if f.after != nil {
		f.after(fields)
	}
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for name, value := range fields {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("file", f.name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write([]byte(f.file)); err != nil {
		t.Fatal(err)
	}
	if f.tail != "" {
		if err := w.WriteField(f.tail, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ours+"/"+bucket, &body)
	r.Header.Set("Content-Type", w.FormDataContentType())
	return r
}

func TestForms(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.put("bucket", "new/old", "old")
	sam := g.signer("sam@p.iam.tategu.internal")
	eve := g.signer("eve@q.iam.tategu.internal")
	set := func(name, value string) func(map[string]string) {
		return func(fields map[string]string) { fields[name] = value }
	}
	drop := func(name string) func(map[string]string) {
		return func(fields map[string]string) { delete(fields, name) }
	}
	admin := g.token("root@example.com", map[string]identity.Role{"p": identity.Admin})
	for _, tt := range []struct {
		name   string
		change func(f *formOf)
		status int
		part   string
	}{
		{"as it should be", func(*formOf) {}, 204, ""},
		{"with status 200", func(f *formOf) { f.fields = [][2]string{{"success_action_status", "200"}} }, 200, ""},
		{"with status 201", func(f *formOf) { f.fields = [][2]string{{"success_action_status", "201"}} }, 201, "<Key>new/"},
		{"with a redirect", func(f *formOf) { f.fields = [][2]string{{"success_action_redirect", "https://a.example/x?y=z"}} }, 303, ""},
		{"with metadata", func(f *formOf) {
			f.fields = [][2]string{{"Content-Type", "text/x"}, {"x-goog-meta-colour", "red"}, {"x-ignore-this", "1"}}
		}, 204, ""},
		{"within its size", func(f *formOf) { f.conditions = []any{[]any{"content-length-range", 1, 4}} }, 204, ""},
		{"eq", func(f *formOf) {
			f.conditions, f.after = []any{[]any{"eq", "$Content-Type", "a/b"}}, set("content-type", "a/b")
		}, 204, ""},
		{"over an object", func(f *formOf) { f.name = "old" }, 204, ""},
		{"too large", func(f *formOf) { f.conditions = []any{[]any{"content-length-range", 0, 3}} }, 400, "EntityTooLarge"},
		{"too small", func(f *formOf) { f.conditions = []any{[]any{"content-length-range", 5, 9}} }, 400, "EntityTooSmall"},
		{"another key", func(f *formOf) { f.after = set("key", "other/x") }, 400, "InvalidPolicyDocument"},
		{"another value", func(f *formOf) {
			f.fields, f.after = [][2]string{{"content-type", "a/b"}}, set("content-type", "text/html")
		}, 400, "InvalidPolicyDocument"},
		{"one more field", func(f *formOf) { f.after = set("x-goog-meta-a", "b") }, 400, "does not mention"},
		{"another prefix", func(f *formOf) { f.conditions = []any{[]any{"starts-with", "$key", "new/z"}} }, 400, "InvalidPolicyDocument"},
		{"another bucket in it", func(f *formOf) { f.conditions = []any{map[string]string{"bucket": "elsewhere"}} }, 400, "InvalidPolicyDocument"},
		{"a condition of no kind", func(f *formOf) { f.conditions = []any{[]any{"matches", "$key", "."}} }, 400, "matches"},
		{"a condition that is none", func(f *formOf) { f.conditions = []any{7} }, 400, "cannot be read"},
		{"expired", func(f *formOf) { f.expires = f.s.at.Add(-time.Minute) }, 400, "expired"},
		{"another policy", func(f *formOf) {
			f.after = set("policy", base64.StdEncoding.EncodeToString([]byte(`{"expiration":"2099-01-01T00:00:00Z","conditions":[]}`)))
		}, 403, "SignatureDoesNotMatch"},
		{"another account", func(f *formOf) {
			f.after = set("x-goog-credential", "a@b/"+f.s.at.UTC().Format("20060102")+"/auto/storage/goog4_request")
		}, 403, "SignatureDoesNotMatch"},
		{"no signature", func(f *formOf) { f.after = drop("x-goog-signature") }, 400, "x-goog-signature"},
		{"no policy", func(f *formOf) { f.after = drop("policy") }, 400, "policy"},
		{"HMAC", func(f *formOf) { f.after = set("x-goog-algorithm", "GOOG4-HMAC-SHA256") }, 501, "HMAC"},
		{"version 2", func(f *formOf) {
			f.after = func(fields map[string]string) { clear(fields); fields["GoogleAccessId"] = "a@b" }
		}, 501, "version 2"},
		{"an access control list", func(f *formOf) { f.fields = [][2]string{{"acl", "public-read"}} }, 501, "acl"},
		{"a stranger", func(f *formOf) { f.s = eve }, 403, "AccessDenied"},
		{"a field behind the file", func(f *formOf) { f.tail = "x" }, 400, "last field"},
		{"a field that is too long", func(f *formOf) { f.fields = [][2]string{{"x-ignore-a", strings.Repeat("a", 70000)}} }, 400, "bytes in all"},
	} {
		f := formOf{s: sam, expires: sam.at.Add(time.Minute), name: "n-" + strings.ToLower(rand.Text()), file: "data"}
		tt.change(&f)
		r := f.request(t, "bucket")
		r.Header.Set("Authorization", "Bearer "+admin) // which does not count
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.part) {
			t.Errorf("%s: %d %s, want %d %s", tt.name, w.Code, w.Body, tt.status, tt.part)
		}
		got, err := g.blobs.ReadAll(t.Context(), "gs://bucket/new/"+f.name, 0)
		if stored := err == nil && string(got) == "data"; stored != (tt.status < 400) {
			t.Errorf("%s: stored %t (%q, %v)", tt.name, stored, got, err)
		}
		if to := w.Header().Get("Location"); tt.status == 303 && !strings.HasPrefix(to, "https://a.example/x?bucket=bucket&etag=") {
			t.Errorf("%s: to %q", tt.name, to)
		}
		if tt.name == "with metadata" {
			o, err := g.blobs.Stat(t.Context(), "bucket", "new/"+f.name, 0, blob.Conditions{})
			if err != nil || o.ContentType != "text/x" || o.Metadata["colour"] != "red" {
				t.Errorf("%s: %+v, %v", tt.name, o, err)
			}
		}
	}
	cut := formOf{s: sam, expires: sam.at.Add(time.Minute), name: "cut", file: "data"}.request(t, "bucket")
	var whole bytes.Buffer
	if _, err := whole.ReadFrom(cut.Body); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() - 2 { // but for the last line's end
		if n%17 != 0 && n < whole.Len()-60 {
			continue
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ours+"/bucket", bytes.NewReader(whole.Bytes()[:n]))
		r.Header = cut.Header
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if ok, err := g.blobs.Exists(t.Context(), "gs://bucket/new/cut"); err != nil || ok || w.Code < 400 || w.Code >= 500 {
			t.Fatalf("cut at %d of %d: %d, stored %t", n, whole.Len(), w.Code, ok)
		}
	}
}

func FuzzPolicyDocument(f *testing.F) {
	f.Add(`{"expiration":"2099-01-01T00:00:00Z","conditions":[{"bucket":"bucket"},["starts-with","$key",""],["content-length-range",0,9e99]]}`, "new/x")
	f.Add(`{"expiration":"2099-01-01T00:00:00Z","conditions":[{"bucket":7},["eq"],[[]],null]}`, "")
	f.Fuzz(func(t *testing.T, doc, key string) {
		least, most, err := gcs.CheckPolicy(base64.StdEncoding.EncodeToString([]byte(doc)), "bucket", key)
		if err == nil && (least < 0 || most > blob.MaxObjectSize || !strings.Contains(doc, "ucket")) {
			t.Errorf("%s allows %q of %d to %d bytes", doc, key, least, most)
		}
	})
}
