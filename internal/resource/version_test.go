package resource_test

import (
	"testing"

	"tategu/internal/resource"
)

func TestTypeURLIn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, version, want string }{
		{"type.googleapis.com/google.cloud.aiplatform.v1beta1.Model", resource.V1, "type.googleapis.com/google.cloud.aiplatform.v1.Model"},
		{"type.googleapis.com/google.cloud.aiplatform.v1.Model", resource.V1beta1, "type.googleapis.com/google.cloud.aiplatform.v1beta1.Model"},
		{"type.googleapis.com/google.cloud.aiplatform.v1.schema.predict.Text", resource.V1beta1, "type.googleapis.com/google.cloud.aiplatform.v1beta1.schema.predict.Text"},
		{"type.googleapis.com/google.cloud.aiplatform.v1.Model", "", "type.googleapis.com/google.cloud.aiplatform.v1.Model"},
		{"type.googleapis.com/google.protobuf.Empty", resource.V1, "type.googleapis.com/google.protobuf.Empty"},
		{"google.cloud.aiplatform.v2.Model", resource.V1, "google.cloud.aiplatform.v2.Model"},
		{"", resource.V1, ""},
	} {
		if got := resource.TypeURLIn(tt.url, tt.version); got != tt.want {
			t.Errorf("TypeURLIn(%q, %q) = %q, want %q", tt.url, tt.version, got, tt.want)
		}
	}
}

func TestVersionTravelsInTheContext(t *testing.T) {
	t.Parallel()
	if got := resource.Version(t.Context()); got != "" {
		t.Errorf("version outside a call = %q", got)
	}
	if got := resource.Version(resource.WithVersion(t.Context(), resource.V1)); got != resource.V1 {
		t.Errorf("version = %q, want v1", got)
	}
}
