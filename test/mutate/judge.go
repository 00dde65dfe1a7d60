package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// judge says what is wrong with an answer, "" if nothing is.
type judge struct {
	served map[string]bool // methods of the dispatch table, v1beta1 names
	method *regexp.Regexp
}

func newJudge(served map[string]bool) *judge {
	return &judge{served: served, method: regexp.MustCompile(`^google\.[a-zA-Z0-9_.]+/[A-Za-z]+ is not supported`)}
}

// gRPC codes that are no fault of the caller.
const (
	codeUnknown       = 2
	codeUnimplemented = 12
	codeInternal      = 13
	codeUnavailable   = 14
	codeDataLoss      = 15
)

func (j *judge) grpc(q *request, a *answer, r *report) string {
	r.count(fmt.Sprintf("grpc%d", a.code))
	switch a.code {
	case codeInternal:
		// grpc-go's own answers to frames that are none; compression.md wants
		// INTERNAL where flag and header disagree.
		for _, prefix := range []string{"grpc: compressed flag set", "grpc: failed to decompress", "unexpected EOF"} {
			if strings.HasPrefix(a.message, prefix) {
				return ""
			}
		}
		return "INTERNAL: " + a.message
	case codeUnknown, codeDataLoss:
		return fmt.Sprintf("grpc-status %d: %s", a.code, a.message)
	case codeUnavailable:
		return j.unavailable(q, a.message)
	case codeUnimplemented:
		return j.unimplemented(a.message, r)
	case -1:
		if a.status == http.StatusOK {
			return "an answer without a grpc-status"
		}
		return j.status(q, a, r)
	}
	return ""
}

// http judges an answer over HTTP/1.1.
func (j *judge) http(q *request, a *answer, r *report) string {
	r.count(strconv.Itoa(a.status))
	if what := j.status(q, a, r); what != "" {
		return what
	}
	if !a.cut && strings.HasPrefix(a.header.Get("Content-Type"), "application/json") && q.method != http.MethodHead && len(a.body) > 0 && len(a.body) < maxAnswer {
		if !json.Valid(a.body) || !utf8.Valid(a.body) {
			return "the answer says JSON and is none"
		}
	}
	return ""
}

func (j *judge) status(q *request, a *answer, r *report) string {
	switch {
	case a.status >= 200 && a.status < 300, a.status >= 400 && a.status < 500:
		return ""
	case a.status == http.StatusNotModified, a.status == http.StatusPermanentRedirect && strings.Contains(q.target, "upload_id"):
		return ""
	case a.status >= 300 && a.status < 400:
		path, _, _ := strings.Cut(q.target, "?")
		unclean := strings.Contains(path, "/.") || strings.Contains(path, "//") // Go's mux leads to the clean path
		page := slices.ContainsFunc([]string{"/console", "/vertex-ai", "/ai/", "/agent-platform"}, func(p string) bool { return strings.HasPrefix(path, p) })
		if a.header.Get("Location") != "" && (unclean || page) {
			return ""
		}
		return fmt.Sprintf("status %d, which this API does not define", a.status)
	case a.status == http.StatusNotImplemented:
		if q.method == http.MethodHead {
			return "" // there is no body to name anything
		}
		return j.unimplemented(errorMessage(a.body), r)
	case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "":
		return j.unavailable(q, errorMessage(a.body))
	case a.status == http.StatusHTTPVersionNotSupported && q.loose && q.proto != "HTTP/1.1":
		return ""
	}
	return fmt.Sprintf("status %d: %s", a.status, clip(a.body, 300))
}

// unavailable is right only while a model starts, or goes.
func (j *judge) unavailable(q *request, message string) string {
	if strings.Contains(strings.ToLower(q.target), "predict") {
		return ""
	}
	return "UNAVAILABLE: " + message
}

// unimplemented must name a method that is not in the dispatch table, or a
// feature.
func (j *judge) unimplemented(message string, r *report) string {
	what, _, ok := strings.Cut(message, " is not supported")
	decompressor := strings.Contains(message, "Decompressor is not installed") // grpc-go names the encoding
	switch {
	case decompressor, strings.HasPrefix(message, "Unsupported transfer encoding"), strings.HasPrefix(message, "malformed method name"):
		r.refused("an unknown encoding")
		return ""
	case !ok || strings.TrimSpace(what) == "":
		return "UNIMPLEMENTED without a name: " + message
	case j.method.MatchString(message) && j.served[unversioned(what)]:
		return "UNIMPLEMENTED for a method that is served: " + message
	}
	r.refused(what)
	return ""
}

// errorMessage reads the message of a Google JSON error, or the text of an XML one.
func errorMessage(body []byte) string {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		return e.Error.Message
	}
	if _, rest, ok := strings.Cut(string(body), "<Message>"); ok {
		message, _, _ := strings.Cut(rest, "</Message>")
		return message
	}
	return string(body[:min(len(body), 300)])
}
