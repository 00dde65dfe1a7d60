package gcs_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
	"tategu/internal/identity"
)

// TestWhoMayCallXML takes every request of the XML API as callers who may not.
func TestWhoMayCallXML(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	if _, err := g.blobs.Put(t.Context(), blob.Object{Bucket: "bucket", Name: "object"}, strings.NewReader("secret"), blob.Conditions{}); err != nil {
		t.Fatal(err)
	}
	reads := []string{
		"GET service", "GET bucket", "GET bucket versions", "HEAD bucket", "GET bucket uploads", "GET object", "HEAD object", "GET object uploadId",
		"GET bucket location", "GET bucket storageClass", "GET bucket tagging", "GET bucket versioning", "GET bucket cors", "GET bucket lifecycle",
		"GET bucket encryption", "GET bucket website", "GET bucket logging", "GET bucket billing", "GET bucket requestPayment",
	}
	viewer := g.token("viewer@example.com", map[string]identity.Role{"p": identity.Viewer})
	other := g.token("other@example.com", map[string]identity.Role{"q": identity.Admin})
	for _, route := range slices.Sorted(slices.Values(gcs.XMLRoutes(g.h))) {
		words := strings.Fields(route)
		url := map[string]string{"service": "http://storage.googleapis.com/", "bucket": "/bucket", "object": "/bucket/object"}[words[1]]
		if len(words) > 2 {
			url += "?partNumber=1&" + words[2] + "=none"
		}
		if route == "PUT bucket" {
			url = "/new-bucket"
		}
		for token, closed := range map[string]int{"": 401, viewer: 403, other: 403} {
			w := g.do(token, words[0], url, "<x/>", "X-Goog-Project-Id", "p")
			open := token == viewer && slices.Contains(reads, route)
			if refused := w.Code == 401 || w.Code == 403; open == refused || !open && w.Code != closed || w.Code >= 500 {
				t.Errorf("%s as %.8q = %d %s", route, token, w.Code, w.Body)
			}
			if !open && strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%s as %.8q tells: %s", route, token, w.Body)
			}
		}
	}
}

// TestXMLRefusals: what is wrong has the XML API's name for it, and nothing changes.
func TestXMLRefusals(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	o := s.put("x", "1")
	gen := strconv.FormatInt(o.Generation, 10)
	upload := s.startParts("x")
	const xmlHost = "http://storage.googleapis.com"
	for _, tt := range []struct {
		method, url, body string
		status            int
		code              string
		headers           []string
	}{
		{"GET", "/bucket/none", "", 404, "NoSuchKey", nil},
		{"DELETE", "/bucket/none", "", 404, "NoSuchKey", nil},
		{"GET", xmlHost + "/none/x", "", 404, "NoSuchBucket", nil},
		{"GET", xmlHost + "/none", "", 404, "NoSuchBucket", nil},
		{"PUT", xmlHost + "/none/x", "1", 404, "NoSuchBucket", nil},
		{"DELETE", xmlHost + "/none", "", 404, "NoSuchBucket", nil},
		{"GET", xmlHost + "/", "", 400, "UserProjectMissing", nil},
		{"PUT", xmlHost + "/bucket", "", 409, "BucketAlreadyOwnedByYou", []string{"X-Goog-Project-Id", "p"}},
		{"PUT", xmlHost + "/bucket", "", 409, "BucketAlreadyExists", []string{"X-Goog-Project-Id", "q"}},
		{"PUT", xmlHost + "/UPPER", "", 400, "InvalidBucketName", []string{"X-Goog-Project-Id", "p"}},
		{"PUT", xmlHost + "/other", "<x/>", 400, "MalformedXML", []string{"X-Goog-Project-Id", "p"}},
		{"PUT", xmlHost + "/other", "", 400, "UserProjectMissing", nil},
		{"DELETE", "/bucket", "", 409, "BucketNotEmpty", nil},
		{"GET", "/bucket/x", "", 416, "InvalidRange", []string{"Range", "bytes=5-"}},
		{"GET", "/bucket/x", "", 412, "PreconditionFailed", []string{"X-Goog-If-Generation-Match", "1"}},
		{"GET", "/bucket/x", "", 412, "PreconditionFailed", []string{"If-Match", `"1"`}},
		{"GET", "/bucket/x", "", 412, "PreconditionFailed", []string{"If-Unmodified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"}},
		{"GET", "/bucket/x", "", 304, "", []string{"X-Goog-If-Generation-Not-Match", gen}},
		{"GET", "/bucket/x", "", 400, "InvalidArgument", []string{"X-Goog-If-Generation-Match", "one"}},
		{"PUT", "/bucket/x", "2", 412, "PreconditionFailed", []string{"X-Goog-If-Generation-Match", "0"}},
		{"PUT", "/bucket/x", "2", 412, "PreconditionFailed", []string{"X-Goog-If-Metageneration-Match", "7"}},
		{"PUT", "/bucket/x", "2", 412, "PreconditionFailed", []string{"If-None-Match", "*"}},
		{"PUT", "/bucket/x", "2", 412, "PreconditionFailed", []string{"If-Match", `"1"`}},
		{"PUT", "/bucket/y", "2", 412, "PreconditionFailed", []string{"If-Match", "*"}},
		{"DELETE", "/bucket/x", "", 412, "PreconditionFailed", []string{"X-Goog-If-Generation-Match", "1"}},
		{"DELETE", "/bucket/x?generation=1", "", 404, "NoSuchKey", nil},
		{"PUT", "/bucket/x", "2", 400, "BadDigest", []string{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="}},
		{"PUT", "/bucket/x", "2", 400, "InvalidDigest", []string{"Content-MD5", "AA"}},
		{"PUT", "/bucket/x", "2", 400, "CrcMismatch", []string{"X-Goog-Hash", "crc32c=AAAAAA=="}},
		{"PUT", "/bucket/x", "2", 400, "EntityTooSmall", []string{"X-Goog-Content-Length-Range", "2,3"}},
		{"PUT", "/bucket/x", "22", 400, "EntityTooLarge", []string{"X-Goog-Content-Length-Range", "0,1"}},
		{"PUT", "/bucket/x", "2", 400, "InvalidArgument", []string{"X-Goog-Content-Length-Range", "5"}},
		{"PUT", "/bucket/x", "2", 400, "InvalidArgument", []string{"X-Goog-Custom-Time", "now"}},
		{"PUT", "/bucket/x", "2", 400, "InvalidArgument", []string{"X-Goog-Acl", "public-read"}},
		{"PUT", "/bucket/x", "2", 400, "InvalidStorageClass", []string{"X-Goog-Storage-Class", "ICE"}},
		{"PUT", "/bucket?storageClass", "<StorageClass>ICE</StorageClass>", 400, "InvalidStorageClass", nil},
		{"PUT", "/bucket/x", "", 501, "NotImplemented", []string{"X-Amz-Copy-Source", "/bucket/x"}},
		{"PUT", "/bucket/x", "2", 501, "NotImplemented", []string{"X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}},
		{"PUT", "/bucket/x", "2", 501, "NotImplemented", []string{"X-Goog-Encryption-Key", "k"}},
		{"PUT", "/bucket/" + strings.Repeat("n", 1025), "2", 400, "InvalidArgument", nil},
		{"PUT", "/bucket/x", "", 404, "NoSuchKey", []string{"X-Goog-Copy-Source", "bucket/none"}},
		{"PUT", "/bucket/y", "", 400, "InvalidArgument", []string{"X-Goog-Copy-Source", "bucket"}},
		{"PUT", "/bucket/x", "", 400, "InvalidRequest", []string{"X-Goog-Copy-Source", "/bucket/x"}},
		{"PUT", "/bucket/y", "", 400, "InvalidArgument", []string{"X-Goog-Copy-Source", "/bucket/x", "X-Goog-Metadata-Directive", "MERGE"}},
		{"PUT", "/bucket/y", "", 412, "PreconditionFailed", []string{"X-Goog-Copy-Source", "/bucket/x", "X-Goog-Copy-Source-If-Generation-Match", "1"}},
		{"PUT", "/bucket/y", "", 412, "PreconditionFailed", []string{"X-Goog-Copy-Source", "/bucket/x", "X-Goog-Copy-Source-If-Generation-Not-Match", gen}},
		{"PUT", "/bucket/y", "", 412, "PreconditionFailed", []string{"X-Goog-Copy-Source", "/bucket/x", "X-Goog-Copy-Source-If-None-Match", "*"}},
		{"PUT", "/bucket/y", "", 404, "NoSuchKey", []string{"X-Goog-Copy-Source", "/bucket/x", "X-Goog-Copy-Source-Generation", "1"}},
		{"PUT", "/bucket/y?compose", "", 400, "MalformedXML", nil},
		{"PUT", "/bucket/y?compose", "<ComposeRequest/>", 400, "MalformedXML", nil},
		{"PUT", "/bucket/y?compose", "<ComposeRequest><Component><Name>none</Name></Component></ComposeRequest>", 404, "NoSuchKey", nil},
		{"PUT", "/bucket/y?compose", "<ComposeRequest><Component><Name>x</Name><IfGenerationMatch>1</IfGenerationMatch></Component></ComposeRequest>", 412, "PreconditionFailed", nil},
		{"POST", "/bucket/y", "", 400, "InvalidArgument", nil},
		{"PUT", "/bucket/y?uploadId=none&partNumber=1", "1", 404, "NoSuchUpload", nil},
		{"PUT", "/bucket/x?uploadId=" + upload + "&partNumber=0", "1", 400, "InvalidArgument", nil},
		{"PUT", "/bucket/x?uploadId=" + upload + "&partNumber=a", "1", 400, "InvalidArgument", nil},
		{"PUT", "/bucket/x?uploadId=" + upload + "&partNumber=1", "1", 400, "BadDigest", []string{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="}},
		{"PUT", "/bucket/x?uploadId=" + upload + "&partNumber=1", "", 501, "NotImplemented", []string{"X-Goog-Copy-Source", "/bucket/x"}},
		{"POST", "/bucket/x?uploadId=" + upload, "<CompleteMultipartUpload/>", 400, "MalformedXML", nil},
		{"POST", "/bucket/x?uploadId=" + upload, "<Other/>", 400, "MalformedXML", nil},
		{"POST", "/bucket/x?uploadId=" + upload, completeBody("1", `"x"`), 400, "InvalidPart", nil},
		{"POST", "/bucket/x?uploadId=" + upload, completeBody("1", `"x"`) + "<x/>", 400, "MalformedXML", nil},
		{"POST", "/bucket/x?uploadId=" + upload, completeBody("1", `"x"`), 400, "BadDigest", []string{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="}},
		{"POST", "/bucket/x?uploadId=none", completeBody("1", "x"), 404, "NoSuchUpload", nil},
		{"DELETE", "/bucket/x?uploadId=none", "", 404, "NoSuchUpload", nil},
		{"GET", "/bucket/x?uploadId=none", "", 404, "NoSuchUpload", nil},
		{"GET", "/bucket?max-keys=-1", "", 400, "InvalidArgument", nil},
		{"GET", "/bucket?list-type=3", "", 400, "InvalidArgument", nil},
		{"GET", "/bucket?encoding-type=x", "", 400, "InvalidArgument", nil},
		{"GET", "/bucket?list-type=2&continuation-token=x", "", 400, "InvalidArgument", nil},
		{"POST", "/bucket?delete", "<Delete/>", 400, "MalformedXML", nil},
		{"GET", "/bucket?acl", "", 400, "InvalidArgument", nil},
		{"PUT", "/bucket/x?acl", "", 400, "InvalidArgument", nil},
		{"GET", "/bucket?policy", "", 501, "NotImplemented", nil},
		{"GET", "/bucket?cors", "", 412, "PreconditionFailed", []string{"X-Goog-If-Metageneration-Match", "7"}},
		{"GET", "/bucket?location", "", 304, "", []string{"X-Goog-If-Metageneration-Not-Match", "1"}},
		{"PUT", "/bucket?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>", 412, "PreconditionFailed", []string{"X-Goog-If-Metageneration-Match", "7"}},
		{"PUT", "/bucket?website", "<x/>", 501, "NotImplemented", nil},
		{"GET", "/bucket/x?torrent", "", 501, "NotImplemented", nil},
		{"PATCH", "/bucket/x", "", 501, "NotImplemented", nil},
		{"PUT", "/bucket?versioning", "<VersioningConfiguration><Status>Maybe</Status></VersioningConfiguration>", 400, "MalformedXML", nil},
		{"PUT", "/bucket?cors", "<CorsConfig><Cors><Orgins/></Cors></CorsConfig>", 400, "MalformedXML", nil},
		{"PUT", "/bucket?lifecycle", "<LifecycleConfiguration><Rule><Action><Explode/></Action></Rule></LifecycleConfiguration>", 400, "MalformedXML", nil},
		{"PUT", "/bucket?lifecycle", lifecycleBody("<Delete/>", "<Age>x</Age>"), 400, "MalformedXML", nil},
		{"PUT", "/bucket?lifecycle", lifecycleBody("<Delete/>", "<Colour>red</Colour>"), 400, "MalformedXML", nil},
		{"PUT", "/bucket?lifecycle", lifecycleBody("<SetStorageClass>ICE</SetStorageClass>", "<Age>1</Age>"), 400, "InvalidArgument", nil},
		{"PUT", "/bucket?tagging", "<Tagging><TagSet><Tag><Key></Key></Tag></TagSet></Tagging>", 400, "MalformedXML", nil},
		{"GET", "/bucket?tagging", "", 404, "NoSuchTagSet", nil},
	} {
		w := s.do(tt.method, tt.url, strings.NewReader(tt.body), tt.headers...)
		if w.Code != tt.status || tt.code != "" && !strings.Contains(w.Body.String(), "<Code>"+tt.code+"</Code>") {
			t.Errorf("%s %s %v %s = %d %s, want %d and %s", tt.method, tt.url, tt.headers, tt.body, w.Code, w.Body, tt.status, tt.code)
		}
		if tt.code != "" && !strings.Contains(w.Body.String(), "<Details>") {
			t.Errorf("%s %s: no Details, which Python's client reads: %s", tt.method, tt.url, w.Body)
		}
	}
	s.checkData("x", "1")
	s.checkMissing("y")
}

func TestXMLResumable(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	w := s.do("POST", "/bucket/d/x", nil, "X-Goog-Resumable", "start", "Content-Type", "text/x", "X-Goog-Meta-K", "v")
	check(t, w, 201)
	at, ok := strings.CutPrefix(w.Header().Get("Location"), "http://example.com")
	if !ok || !strings.HasPrefix(at, "/bucket/d/x?upload_id=") {
		t.Fatalf("Location %q", w.Header().Get("Location"))
	}
	check(t, s.do("PUT", strings.Replace(at, "d/x", "d/y", 1), strings.NewReader("0123"), "Content-Range", "bytes 0-3/10"), 404)
	w = s.do("PUT", at, strings.NewReader("0123"), "Content-Range", "bytes 0-3/10")
	if check(t, w, 308); w.Header().Get("Range") != "bytes=0-3" {
		t.Errorf("Range %q", w.Header().Get("Range"))
	}
	w = s.do("PUT", at, strings.NewReader("456789"), "Content-Range", "bytes 4-9/10")
	if check(t, w, 200); w.Body.Len() != 0 || w.Header().Get("ETag") != `"781e5e245d69b566979b86e28d23f2c7"` {
		t.Errorf("the end: %v %s", w.Header(), w.Body)
	}
	s.checkData("d/x", "0123456789")
	w = s.do("POST", "/bucket/gone", nil, "X-Goog-Resumable", "start")
	at = strings.TrimPrefix(w.Header().Get("Location"), "http://example.com")
	check(t, s.do("DELETE", at, nil), 499)
	check(t, s.do("PUT", at, strings.NewReader("x")), 404)
}

func (s *server) startParts(name string, headers ...string) (id string) {
	s.t.Helper()
	w := s.do("POST", "/bucket/"+name+"?uploads", nil, headers...)
	check(s.t, w, 200)
	var got struct {
		XMLName     xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
		Bucket, Key string
		UploadID    string `xml:"UploadId"`
	}
	if err := xml.Unmarshal(w.Body.Bytes(), &got); err != nil || got.UploadID == "" || got.Bucket != "bucket" {
		s.t.Fatalf("%v: %s", err, w.Body)
	}
	return got.UploadID
}

// metaOf reads a metadata header, whose name keeps the case of its key.
func metaOf(w *httptest.ResponseRecorder, key string) string {
	return strings.Join(w.Header()["X-Goog-Meta-"+key], ",")
}

// completeBody lists parts as pairs of number and etag.
func completeBody(pairs ...string) string {
	var b strings.Builder
	b.WriteString("<?xml version='1.0'?>\n<CompleteMultipartUpload>")
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "<Part><PartNumber>%s</PartNumber><ETag>%s</ETag></Part>", pairs[i], pairs[i+1])
	}
	return b.String() + "</CompleteMultipartUpload>"
}

func lifecycleBody(action, condition string) string {
	return "<LifecycleConfiguration><Rule><Action>" + action + "</Action><Condition>" + condition + "</Condition></Rule></LifecycleConfiguration>"
}

func TestXMLMultipart(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.startParts("d%2Fx", "Content-Type", "text/x", "X-Goog-Meta-K", "v", "X-Goog-Custom-Time", "2026-01-02T03:04:05Z")
	at := "/bucket/d%2Fx?uploadId=" + id
	big := bytes.Repeat([]byte("0123456789abcdef"), blob.MinPartSize/16)
	var pairs []string
	for n, data := range [][]byte{big, big, []byte("0123456789")} {
		w := s.do("PUT", at+"&partNumber="+strconv.Itoa(n+1), bytes.NewReader(data))
		check(t, w, 200)
		if n == 2 && (w.Header().Get("X-Goog-Hash") != "crc32c=KAwGng==,md5=eB5eJF1ptWaXm4bijSPyxw==" || w.Header().Get("ETag") != `"781e5e245d69b566979b86e28d23f2c7"`) {
			t.Errorf("part: %v", w.Header())
		}
		pairs = append(pairs, strconv.Itoa(n+1), w.Header().Get("ETag"))
	}
	check(t, s.do("GET", at+"&max-parts=2", nil), 200, "<IsTruncated>true</IsTruncated>", "<NextPartNumberMarker>2</NextPartNumberMarker>", "<Key>d/x</Key>")
	check(t, s.do("GET", at+"&part-number-marker=2", nil), 200, "<IsTruncated>false</IsTruncated>", "<PartNumber>3</PartNumber>", "<Size>10</Size>")
	check(t, s.do("GET", "/bucket?uploads", nil), 200, "<Key>d/x</Key>", "<UploadId>"+id+"</UploadId>")
	check(t, s.do("GET", "/bucket?uploads&delimiter=/", nil), 200, "<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>")
	check(t, s.do("POST", at, strings.NewReader(completeBody("2", pairs[3], "1", pairs[1]))), 400, "InvalidPartOrder")
	check(t, s.do("POST", at, strings.NewReader(completeBody("1", pairs[3]+"0"))), 400, "InvalidPart")
	small := s.do("PUT", at+"&partNumber=4", strings.NewReader("4"))
	check(t, s.do("POST", at, strings.NewReader(completeBody(append(slices.Clone(pairs), "4", small.Header().Get("ETag"))...))), 400, "EntityTooSmall")
	check(t, s.do("POST", at, strings.NewReader(completeBody(pairs...)), "X-Goog-Hash", "crc32c=AAAAAA=="), 400, "CrcMismatch")
	check(t, s.do("POST", at, strings.NewReader(completeBody(pairs...)), "X-Goog-Hash", "md5=eB5eJF1ptWaXm4bijSPyxw=="), 400, "CRC32C")
	for range 2 { // a repeated end answers the same
		w := s.do("POST", at, strings.NewReader(completeBody(pairs...)))
		check(t, w, 200, "<CompleteMultipartUploadResult", "<Bucket>bucket</Bucket>", "<Key>d/x</Key>")
	}
	w := s.do("GET", "/bucket/d%2Fx", nil)
	if want := string(big) + string(big) + "0123456789"; w.Body.String() != want || w.Header().Get("Content-Type") != "text/x" ||
		metaOf(w, "k") != "v" || strings.Contains(w.Header().Get("X-Goog-Hash"), "md5") {
		t.Errorf("%d bytes, %v", w.Body.Len(), w.Header())
	}
	if meta := s.do("GET", objects+"d%2Fx", nil).Body.String(); strings.Contains(meta, "componentCount") || strings.Contains(meta, "md5Hash") {
		t.Errorf("%s", meta)
	}
	check(t, s.do("GET", "/bucket?uploads", nil), 200)
	id = s.startParts("y")
	check(t, s.do("PUT", "/bucket/y?partNumber=1&uploadId="+id, strings.NewReader("1")), 200)
	check(t, s.do("DELETE", "/bucket/y?uploadId="+id, nil), 204)
	check(t, s.do("PUT", "/bucket/y?partNumber=1&uploadId="+id, strings.NewReader("1")), 404, "NoSuchUpload")
}
