package gcs

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// FuzzReadBatch reads any body as a batch: at most so many calls, each with a
// body that can be read, or the caller's fault.
func FuzzReadBatch(f *testing.F) {
	for _, s := range []string{
		"--b\r\nContent-Type: application/http\r\nContent-ID: <1>\r\n\r\nGET /storage/v1/b/x HTTP/1.1\r\n\r\n\r\n--b--\r\n",
		"--b\r\n\r\nPATCH /storage/v1/b/x HTTP/1.1\r\nContent-Length: 99\r\n\r\n{}\r\n--b--\r\n", "--b\r\n\r\nGET http://evil/ HTTP/1.1\r\n\r\n--b--", "--b--\r\n", "",
		"--b\n\nPOST /x HTTP/1.1\nTransfer-Encoding: chunked\n\nzz\n--b--", "--b\r\n\r\n--b\r\n\r\n--b--",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/batch", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", `multipart/mixed; boundary="b"`)
		calls, err := readBatch(&call{r: r})
		if err != nil {
			if status, _ := answerOf(err); status != http.StatusBadRequest {
				t.Fatalf("%d: %v", status, err)
			}
			return
		}
		if len(calls) == 0 || len(calls) > maxBatchCalls {
			t.Fatalf("%d calls", len(calls))
		}
		for _, b := range calls {
			data, err := io.ReadAll(b.r.Body)
			if err != nil || int64(len(data)) != b.r.ContentLength || b.r.Host != r.Host {
				t.Fatalf("%d bytes of %d for %q, %v", len(data), b.r.ContentLength, b.r.Host, err)
			}
		}
	})
}

// FuzzHeaderHashes: hashes are of their length, or the caller's fault.
func FuzzHeaderHashes(f *testing.F) {
	for _, s := range []string{"crc32c=AAAAAA==", "md5=1B2M2Y8AsgTpgAmY7PhCfg==,crc32c=AAAAAA==", "crc32c=AAAAAA==, crc32c=AAAAAQ==", "sha=1", ",,", "md5", "crc32c=AAAA"} {
		f.Add(s, "")
		f.Add(s, "1B2M2Y8AsgTpgAmY7PhCfg==")
	}
	f.Fuzz(func(t *testing.T, line, md5 string) {
		h := http.Header{"X-Goog-Hash": {line}}
		if md5 != "" {
			h.Set("Content-MD5", md5)
		}
		var conds blob.Conditions
		err := headerHashes(h, &conds)
		if err != nil && resource.CodeOf(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
		if n := len(conds.MD5); n != 0 && n != 16 {
			t.Fatalf("an MD5 of %d bytes", n)
		}
	})
}

// FuzzFields applies any JSON to an object and to a bucket: taken, or refused by
// name; never a fault of the server.
func FuzzFields(f *testing.F) {
	for _, s := range []string{
		`{"contentType":"a","metadata":{"a":"b","c":null},"customTime":"2026-01-01T00:00:00Z"}`, `{"metadata":1}`, `{"labels":{"a":"b"},"versioning":{"enabled":true}}`, `{"temporaryHold":true,"md5Hash":"x"}`,
		`{"lifecycle":{"rule":[{"action":{"type":"Delete"},"condition":{"age":-1}}]}}`, `{"cors":[{"maxAgeSeconds":1e99}]}`, `{"retentionPolicy":{"retentionPeriod":"99999999999999999999"}}`, `{"name":null}`, `[]`,
		`{"iamConfiguration":{"uniformBucketLevelAccess":{"enabled":false}}}`, `{"softDeletePolicy":{"retentionDurationSeconds":"1"}}`, `{"storageClass":"NOPE"}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var fs fields
		if json.Unmarshal([]byte(text), &fs) != nil {
			return
		}
		for _, err := range []error{applyObject(&blob.Object{}, fs), applyBucket(&blob.Bucket{}, fs), bodyHashes(fs, &blob.Conditions{})} {
			if err == nil {
				continue
			}
			if status, _ := answerOf(err); status >= http.StatusInternalServerError && status != http.StatusNotImplemented {
				t.Fatalf("%q: %d %v", text, status, err)
			}
		}
	})
}
