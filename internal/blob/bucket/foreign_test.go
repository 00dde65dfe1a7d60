package bucket_test

import (
	"strings"
	"testing"

	"tategu/internal/blob/bucket"
)

func TestReadOfNoObject(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{"", "gs://", "gs://bucket", "gs://bucket/", "s3:///name", "file:///etc/passwd", "http://a/b", "gs://a b/c", "%"} {
		r, err := bucket.Read(t.Context(), uri)
		if err == nil {
			_ = r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "no ") {
			t.Errorf("%q: %v", uri, err)
		}
	}
}
