package gcs

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// xmlError is an error with a code of the XML API's own.
type xmlError struct {
	status int
	code   string
	err    error
}

func (e *xmlError) Error() string { return e.err.Error() }
func (e *xmlError) Unwrap() error { return e.err }

func malformed(format string, args ...any) error {
	return &xmlError{http.StatusBadRequest, "MalformedXML", resource.Invalid("body", format, args...)}
}

// writeXMLError uses the XML API's codes. Clients read Details without asking
// whether it is there.
func writeXMLError(w http.ResponseWriter, status int, code, message, details string) {
	type document struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
		Details string
	}
	data, err := xml.Marshal(document{Code: code, Message: message, Details: details})
	if err != nil {
		data = nil
	}
	w.Header().Set("Content-Type", "application/xml; charset=UTF-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(xml.Header)+len(data)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, xml.Header+string(data)) // the client may be gone
}

// xmlCode gives the XML API's name of an error
// (cloud.google.com/storage/docs/xml-api/reference-status).
func xmlCode(err error, status int) string {
	if e, ok := errors.AsType[*xmlError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[*rangeError](err); ok {
		return "InvalidRange"
	}
	if _, ok := errors.AsType[*clientError](err); ok {
		return "IncompleteBody"
	}
	for _, known := range []struct {
		err  error
		code string
	}{
		{blob.ErrNoUpload, "NoSuchUpload"},
		{blob.ErrPartMissing, "InvalidPart"},
		{blob.ErrPartOrder, "InvalidPartOrder"},
		{blob.ErrPartTooSmall, "EntityTooSmall"},
		{blob.ErrNotEmpty, "BucketNotEmpty"},
	} {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	e, _ := errors.AsType[*resource.Error](err)
	switch status {
	case http.StatusBadRequest:
		return xmlInvalid(e, err)
	case http.StatusUnauthorized:
		return "AuthenticationRequired"
	case http.StatusForbidden:
		return "AccessDenied"
	case http.StatusNotFound:
		return xmlMissing(e)
	case http.StatusConflict:
		if resource.CodeOf(err) == codes.AlreadyExists {
			return "BucketAlreadyExists"
		}
		return "OperationAborted"
	case http.StatusPreconditionFailed:
		return "PreconditionFailed"
	case http.StatusNotImplemented:
		return "NotImplemented"
	case http.StatusInsufficientStorage:
		return "InsufficientStorage"
	case http.StatusServiceUnavailable:
		return "ServiceUnavailable"
	}
	if status < http.StatusInternalServerError {
		return "InvalidRequest"
	}
	return "InternalError"
}

func xmlInvalid(e *resource.Error, err error) string {
	if e == nil {
		return "InvalidArgument"
	}
	switch e.Field {
	case "md5Hash":
		if errors.Is(err, blob.ErrDigest) {
			return "BadDigest"
		}
		return "InvalidDigest"
	case "crc32c":
		if errors.Is(err, blob.ErrDigest) {
			return "CrcMismatch"
		}
		return "InvalidDigest"
	case "path":
		return "InvalidURI"
	}
	return "InvalidArgument"
}

func xmlMissing(e *resource.Error) string {
	if e == nil {
		return "NoSuchKey"
	}
	if bucket, ok := strings.CutPrefix(e.Resource, "gs://"); ok && !strings.Contains(bucket, "/") {
		return "NoSuchBucket"
	}
	return "NoSuchKey"
}
