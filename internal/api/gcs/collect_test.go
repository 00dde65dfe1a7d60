package gcs_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tategu/internal/api/gcs"
	"tategu/internal/blob"
)

// TestCollector: who may, what is refused, and what the answer counts.
func TestCollector(t *testing.T) {
	t.Parallel()
	blobs := newBlobs(t)
	if err := blobs.EnsureBucket(t.Context(), "p", "bucket"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if _, err := blobs.Put(t.Context(), blob.Object{Bucket: "bucket", Name: name}, strings.NewReader("hello"), blob.Conditions{}); err != nil {
			t.Fatal(err)
		}
	}
	h := gcs.New(blobs, allow{}, slog.New(slog.DiscardHandler), time.Now).Collector()
	for _, tt := range []struct {
		who, method, path, body string
		code                    int
		want                    gcs.CollectResponse
	}{
		{"stranger", "POST", gcs.CollectPath, `{}`, http.StatusForbidden, gcs.CollectResponse{}},
		{"", "POST", gcs.CollectPath, `{}`, http.StatusUnauthorized, gcs.CollectResponse{}},
		{"admin", "GET", gcs.CollectPath, ``, http.StatusNotImplemented, gcs.CollectResponse{}},
		{"admin", "POST", gcs.CollectPath + "/x", ``, http.StatusNotImplemented, gcs.CollectResponse{}},
		{"admin", "POST", gcs.CollectPath, `{`, http.StatusBadRequest, gcs.CollectResponse{}},
		{"admin", "POST", gcs.CollectPath, `{"age":"59m"}`, http.StatusBadRequest, gcs.CollectResponse{}},
		{"admin", "POST", gcs.CollectPath, `{"age":"x"}`, http.StatusBadRequest, gcs.CollectResponse{}},
		{"admin", "POST", gcs.CollectPath, `{"dryRun":true}`, http.StatusOK, gcs.CollectResponse{}},
		{"admin", "POST", gcs.CollectPath, `{"verify":true,"age":"1h"}`, http.StatusOK, gcs.CollectResponse{Checked: 2, CheckedBytes: 10}},
	} {
		w := httptest.NewRecorder()
		as(tt.who, h).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.code {
			t.Errorf("%s %s %s as %q: %d %s, want %d", tt.method, tt.path, tt.body, tt.who, w.Code, w.Body, tt.code)
			continue
		}
		var got gcs.CollectResponse
		if err := json.Unmarshal(w.Body.Bytes(), &got); w.Code == http.StatusOK && (err != nil || got.Damages != nil || got.Checked != tt.want.Checked || got.CheckedBytes != tt.want.CheckedBytes || got.Contents != 0) {
			t.Errorf("%s: %+v, %v, want %+v", tt.body, got, err, tt.want)
		}
	}
}
