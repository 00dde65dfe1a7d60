package gcs

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"tategu/internal/resource"
)

// Services by the start of the path.
const (
	serviceJSON     = "json"
	serviceUpload   = "upload"
	serviceDownload = "download"
	serviceBatch    = "batch"
	serviceXML      = "xml"
	serviceOther    = "API" // another version, which is refused by its path
)

// target is what the path of a request names.
type target struct {
	service string
	pattern string   // the path with * for names
	names   []string // the names, decoded
}

// storageHost serves the XML style at its root, buckets also as subdomains.
const storageHost = "storage.googleapis.com"

// parseTarget reads an escaped path: names are decoded after the path was cut at
// its slashes, so that %2F stays within a name.
func parseTarget(host, escaped string) (target, error) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if bucket, ok := strings.CutSuffix(host, "."+storageHost); ok { // the XML API alone
		return parseXML(bucket + "/" + strings.TrimPrefix(escaped, "/"))
	}
	for prefix, service := range map[string]string{
		"/storage/v1/":                  serviceJSON,
		"/upload/storage/v1/":           serviceUpload,
		"/resumable/upload/storage/v1/": serviceUpload,
		"/download/storage/v1/":         serviceDownload,
		// Node's client with STORAGE_EMULATOR_HOST; no bucket has so short a name.
		"/b/": serviceJSON,
	} {
		if rest, ok := strings.CutPrefix(escaped, prefix); ok {
			if prefix == "/b/" {
				rest = "b/" + rest
			}
			return parseNames(service, rest)
		}
	}
	if escaped == "/b" {
		return parseNames(serviceJSON, "b")
	}
	if escaped == "/batch/storage/v1" || escaped == "/batch/storage/v1/" || escaped == "/batch" {
		return target{service: serviceBatch}, nil
	}
	for _, prefix := range []string{"/storage/", "/upload/storage/", "/download/storage/", "/batch/"} {
		if strings.HasPrefix(escaped, prefix) {
			return target{service: serviceOther, pattern: escaped}, nil
		}
	}
	return parseXML(strings.TrimPrefix(escaped, "/"))
}

// parseNames reads COLLECTION[/NAME[/...]]; words that are no collection, such as
// rewriteTo, have no name behind them.
func parseNames(service, path string) (target, error) {
	t := target{service: service}
	collections := []string{"b", "o", "projects", "acl", "defaultObjectAcl", "notificationConfigs", "hmacKeys", "folders", "managedFolders", "anywhereCaches"}
	var words []string
	isName := false
	for segment := range strings.SplitSeq(path, "/") {
		if !isName {
			words = append(words, segment)
			isName = slices.Contains(collections, segment)
			continue
		}
		name, err := url.PathUnescape(segment)
		if err != nil {
			return t, resource.Invalid("path", "the path cannot be read: %w", err)
		}
		if name == "" {
			return t, resource.Invalid("path", "the path has an empty name")
		}
		t.names, words, isName = append(t.names, name), append(words, "*"), false
	}
	t.pattern = strings.Join(words, "/")
	return t, nil
}

// parseXML reads BUCKET/OBJECT, where the object's slashes may be plain.
func parseXML(path string) (target, error) {
	t := target{service: serviceXML, pattern: "*"}
	bucket, object, _ := strings.Cut(path, "/")
	for _, escaped := range []string{bucket, object} {
		name, err := url.PathUnescape(escaped)
		if err != nil {
			return t, resource.Invalid("path", "the path cannot be read: %w", err)
		}
		t.names = append(t.names, name)
	}
	return t, nil
}
