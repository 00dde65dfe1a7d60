package gcpc

import (
	"encoding/json"
	"strings"

	"tategu/internal/resource"
)

// Resource is an entry of the output parameter gcp_resources: what a launcher made.
// URIs are of the cloud's form, since that is what other components take apart.
type Resource struct {
	Type string `json:"resourceType"`
	URI  string `json:"resourceUri"`
}

// Types of resources that launchers name. Lro is a long-running operation.
const (
	TypeCustomJob = "CustomJob"
	TypeBatchJob  = "BatchPredictionJob"
	TypeLro       = "VertexLro"
)

// URIOf gives the URI of a resource of the API.
func URIOf(location, name string) string {
	return "https://" + location + "-aiplatform.googleapis.com/v1/" + name
}

// LocationOf gives the location in the name of a resource.
func LocationOf(name string) string {
	parts := strings.Split(name, "/")
	if len(parts) > 3 && parts[2] == "locations" {
		return parts[3]
	}
	return ""
}

// FormatResources gives the text of gcp_resources.
func FormatResources(list ...Resource) []byte {
	text, err := json.Marshal(map[string][]Resource{"resources": list})
	if err != nil {
		return nil // strings are always JSON
	}
	return text
}

// ParseResource reads a gcp_resources that names one resource which can be waited
// for, and gives the name of that resource in the API.
func ParseResource(text string) (r Resource, name string, err error) {
	var given struct {
		Resources []Resource `json:"resources"`
	}
	if err := json.Unmarshal([]byte(text), &given); err != nil {
		return r, "", malformed("--payload", text, err)
	}
	if n := len(given.Resources); n != 1 {
		return r, "", resource.Invalid("--payload", "gcp_resources names %d resources: one can be waited for", n)
	}
	r = given.Resources[0]
	switch r.Type {
	case TypeCustomJob, TypeBatchJob, TypeLro:
	default:
		return r, "", resource.Unimplemented("waiting for a resource of type "+r.Type).
			WithHint("%s, %s and %s can be waited for", TypeCustomJob, TypeBatchJob, TypeLro)
	}
	_, name, ok := strings.Cut(r.URI, "/v1/")
	if !ok || !strings.HasPrefix(name, "projects/") || !strings.Contains(name, collection(r.Type)) {
		return r, "", resource.Invalid("--payload", "%.200q is not the URI of a %s: want https://HOST/v1/projects/...%sID", r.URI, r.Type, collection(r.Type))
	}
	return r, name, nil
}

func collection(typ string) string {
	switch typ {
	case TypeCustomJob:
		return "/customJobs/"
	case TypeBatchJob:
		return "/batchPredictionJobs/"
	default:
		return "/operations/"
	}
}
