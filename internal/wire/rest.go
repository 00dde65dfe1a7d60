package wire

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tategu/internal/resource"
	"tategu/internal/wire/apiv1"
)

const contentJSON = "application/json; charset=UTF-8"

// serveREST answers the JSON form of a method.
func (s *Server) serveREST(w http.ResponseWriter, r *http.Request, rt *route, segments []string) {
	c := s.calls.newCall(r.Context(), rt.method.name, "rest", r.Header.Get)
	if c.frequent = rt.method.api.HTTP != nil; c.frequent {
		c.well = &rt.method.well
	}
	w.Header().Set("X-Request-Id", c.id)
	query, alt, err := parseQuery(r.URL.RawQuery)
	if err == nil {
		err = s.limitBody(w, r)
	}
	x := &exchange{server: s, call: c, route: rt, segments: segments, query: query, alt: alt, types: s.methods.types}
	if err == nil && x.fast() {
		x.pass(w, r)
		return
	}
	x.transcode(w, r, err)
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	c := s.calls.newCall(r.Context(), "unknown", "rest", r.Header.Get)
	w.Header().Set("X-Request-Id", c.id)
	err := s.calls.run(r.Context(), c, func(context.Context) error {
		return resource.Errorf(codes.NotFound, "no method answers %s %s", r.Method, r.URL.Path).
			WithHint("docs/compat.md lists the methods and their paths")
	})
	writeError(w, err)
}

// exchange is one REST request on its way to a method and back.
type exchange struct {
	server   *Server
	call     *call
	route    *route
	segments []string
	query    url.Values
	alt      alt
	types    *apiv1.Registry
}

// fast reports that the method's own HTTP handler takes the request: always for
// JSON methods, whose body is the same on both ways; for raw bodies unless the
// client is one that wraps them (those say $alt).
func (x *exchange) fast() bool {
	m := x.route.method
	wrapped := x.alt.wrapped && isHTTPBody(m.out.Descriptor())
	return m.listed && m.api.HTTP != nil && !wrapped
}

// pass hands the request over after identity and permission.
func (x *exchange) pass(w http.ResponseWriter, r *http.Request) {
	out := &tracked{ResponseWriter: w}
	s, m := x.server, x.route.method
	err := s.calls.run(r.Context(), x.call, func(ctx context.Context) error {
		if len(x.route.vars) == 0 {
			return resource.Unimplemented(m.name + " by a path without a resource name")
		}
		name, err := x.route.bound(x.route.vars[0], x.segments)
		if err != nil {
			return err
		}
		name, x.call.project, err = s.calls.resolve(ctx, x.call.principal, name)
		if err != nil {
			return err
		}
		x.call.resource = name
		if err := s.calls.authorize(ctx, x.call.principal, x.call.project, m.api.Permission); err != nil {
			return err
		}
		err = m.api.HTTP(inCallersVersion(ctx, m), out, r, name)
		if out.status != 0 {
			x.call.code = codeOfHTTP(out.status)
		}
		return err
	})
	if err != nil {
		out.fail(err)
	}
}

// transcode goes through protobuf. early is an error that was found before the
// caller was known; it is told after the caller proved to be one.
func (x *exchange) transcode(w http.ResponseWriter, r *http.Request, early error) {
	s, m := x.server, x.route.method
	stream := &streamWriter{w: w, out: m.out, alt: x.alt, types: x.types}
	var answer proto.Message
	err := s.calls.run(r.Context(), x.call, func(ctx context.Context) error {
		switch {
		case early != nil:
			return early
		case !m.listed:
			return resource.Unimplemented(m.name)
		}
		called, err := x.decode(r)
		if err != nil {
			return err
		}
		stream.alt = x.alt
		req, err := convert(called, m.request)
		if err != nil {
			return err
		}
		answer, err = s.calls.invoke(ctx, x.call, m, req, stream.send)
		if err != nil || answer == nil {
			return err
		}
		if m.version == "" {
			answer = inVersion(answer, pathVersion(x.route.path))
		}
		answer, err = answerAs(answer, m.out)
		return err
	})
	switch {
	case m.desc.IsStreamingServer() && (err == nil || stream.begun):
		stream.end(err)
	case err != nil:
		writeError(w, err)
	default:
		writeAnswer(w, answer, x.alt, x.types)
	}
}

// pathVersion is the version in the path of an unversioned service: who asks
// below /v1 reads v1. /ui has none; there an operation is as it was made.
func pathVersion(path string) string {
	root, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if root == resource.V1 || root == resource.V1beta1 {
		return root
	}
	return ""
}

// alt is how the caller wants the answer.
type alt struct {
	wrapped  bool // HttpBody as JSON: every generated REST client says $alt and means that
	enumInts bool
	sse      bool
}

// parseQuery reads the system parameters (cloud.google.com/apis/docs/system-parameters)
// and leaves the request's own. Clients send the semicolon of
// $alt=json;enum-encoding=int both encoded and plain.
func parseQuery(raw string) (url.Values, alt, error) {
	var a alt
	if raw == "" {
		return nil, a, nil
	}
	query, err := url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B"))
	if err != nil {
		return nil, a, resource.Invalid("query", "the query is not encoded properly")
	}
	for _, name := range []string{"alt", "$alt"} {
		for _, value := range query[name] {
			kind, options, _ := strings.Cut(value, ";")
			switch kind {
			case "", "json":
				a.wrapped = a.wrapped || name == "$alt"
			case "media":
				a.wrapped = false
			case "sse":
				a.sse = true
			default:
				return nil, a, resource.Invalid("$alt", "%s=%s is not supported", name, value).WithHint("use json, sse or media")
			}
			a.enumInts = a.enumInts || options == "enum-encoding=int"
		}
	}
	for name := range query {
		switch {
		case strings.HasPrefix(name, "$"):
			delete(query, name)
		default:
			switch name {
			case "alt", "key", "prettyPrint", "fields", "access_token", "oauth_token", "callback", "quotaUser", "userIp", "uploadType", "upload_protocol":
				delete(query, name)
			}
		}
	}
	return query, a, nil
}

func isHTTPBody(d protoreflect.MessageDescriptor) bool {
	return d.FullName() == (&httpbody.HttpBody{}).ProtoReflect().Descriptor().FullName()
}
