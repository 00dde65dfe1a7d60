package gcs

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/blob"
)

// corsBucket is the bucket whose rules say what pages of other origins may do
// with a request: "" where it is not one about objects.
func (t target) corsBucket() string {
	switch t.service {
	case serviceXML, serviceUpload, serviceDownload:
	case serviceJSON:
		if !strings.HasPrefix(t.pattern, "b/*/o") {
			return ""
		}
	default:
		return ""
	}
	if len(t.names) == 0 {
		return ""
	}
	return t.names[0]
}

// corsRule finds the first rule of the request's bucket that is for an origin and
// a method. A bucket that is not there has none.
func (h *Handler) corsRule(r *http.Request, t target, origin, method string) (blob.CORSRule, bool) {
	name := t.corsBucket()
	if name == "" || origin == "" {
		return blob.CORSRule{}, false
	}
	b, err := h.blobs.GetBucket(r.Context(), name)
	if err != nil {
		return blob.CORSRule{}, false
	}
	i := slices.IndexFunc(b.CORS, func(rule blob.CORSRule) bool { return allowsOrigin(rule, origin) && allowsMethod(rule, method) })
	if i < 0 {
		return blob.CORSRule{}, false
	}
	return b.CORS[i], true
}

func allowsOrigin(rule blob.CORSRule, origin string) bool {
	return slices.ContainsFunc(rule.Origin, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) })
}

func allowsMethod(rule blob.CORSRule, method string) bool {
	return slices.ContainsFunc(rule.Method, func(m string) bool { return m == "*" || strings.EqualFold(m, method) })
}

// allowsHeader: a header of the list, or one that a word with * at its end covers.
func allowsHeader(rule blob.CORSRule, header string) bool {
	return slices.ContainsFunc(rule.ResponseHeader, func(have string) bool {
		if start, any := strings.CutSuffix(have, "*"); any {
			return len(header) >= len(start) && strings.EqualFold(header[:len(start)], start)
		}
		return strings.EqualFold(have, header)
	})
}

// cors adds what a browser asks for to the answer of a request from a page, and
// answers the preflight that goes ahead of one (cloud.google.com/storage/docs/cross-origin).
// A preflight carries no credential and is answered by the rules alone.
func (h *Handler) cors(w http.ResponseWriter, r *http.Request, t target) (answered bool) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	method := r.Header.Get("Access-Control-Request-Method")
	preflight := r.Method == http.MethodOptions && method != ""
	if !preflight {
		if rule, ok := h.corsRule(r, t, origin, r.Method); ok {
			allowOrigin(header, rule, origin)
			if len(rule.ResponseHeader) > 0 {
				header.Set("Access-Control-Expose-Headers", strings.Join(rule.ResponseHeader, ", "))
			}
		}
		return false
	}
	if rule, ok := h.corsRule(r, t, origin, method); ok && allowsHeaders(rule, r) {
		allowOrigin(header, rule, origin)
		header.Set("Access-Control-Allow-Methods", strings.Join(rule.Method, ", "))
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			header.Set("Access-Control-Allow-Headers", asked)
		}
		header.Set("Access-Control-Max-Age", strconv.Itoa(rule.MaxAgeSeconds))
	}
	header.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return true
}

func allowsHeaders(rule blob.CORSRule, r *http.Request) bool {
	for name := range strings.SplitSeq(r.Header.Get("Access-Control-Request-Headers"), ",") {
		if name = strings.TrimSpace(name); name != "" && !allowsHeader(rule, name) {
			return false
		}
	}
	return true
}

func allowOrigin(header http.Header, rule blob.CORSRule, origin string) {
	if slices.Contains(rule.Origin, "*") {
		origin = "*"
	}
	header.Set("Access-Control-Allow-Origin", origin)
}

// AllowsOrigin reports that the rules of a bucket let a page of another origin
// make this request, which a browser sends with whatever rights the caller has.
func (h *Handler) AllowsOrigin(r *http.Request) bool {
	t, err := h.target(r)
	if err != nil {
		return false
	}
	if h.isForm(r) {
		return true // which needs no rule, and is judged by the signature in its body
	}
	_, ok := h.corsRule(r, t, r.Header.Get("Origin"), r.Method)
	return ok
}
