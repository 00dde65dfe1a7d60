package resource

import (
	"context"
	"strings"
)

// The API versions that callers speak. Rows hold V1beta1 messages, which are a
// superset; what tells the versions apart on the wire is the type URL of an Any.
const (
	V1      = "v1"
	V1beta1 = "v1beta1"
)

type versionKey struct{}

// WithVersion carries the API version of the method that is being served.
func WithVersion(ctx context.Context, version string) context.Context {
	return context.WithValue(ctx, versionKey{}, version)
}

// Version gives the API version of the call, or "" outside one.
func Version(ctx context.Context) string {
	v, _ := ctx.Value(versionKey{}).(string)
	return v
}

// TypeURLIn names the same aiplatform message in another API version. Other
// types, and an empty version, leave the URL as it is.
func TypeURLIn(url, version string) string {
	if version == "" {
		return url
	}
	slash := strings.LastIndexByte(url, '/') + 1
	rest, ok := strings.CutPrefix(url[slash:], "google.cloud.aiplatform.")
	if !ok {
		return url
	}
	have, name, ok := strings.Cut(rest, ".")
	if !ok || have == version || (have != V1 && have != V1beta1) {
		return url
	}
	return url[:slash] + "google.cloud.aiplatform." + version + "." + name
}

// TypeURLVersion gives the API version in a type URL, or "" for other types.
func TypeURLVersion(url string) string {
	rest, ok := strings.CutPrefix(url[strings.LastIndexByte(url, '/')+1:], "google.cloud.aiplatform.")
	if !ok {
		return ""
	}
	version, _, _ := strings.Cut(rest, ".")
	return version
}
