package wire

import (
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tategu/internal/resource"
)

// route is one HTTP binding of a method.
type route struct {
	template
	method *method
	path   string // the template's text
	body   string // "", "*" or a field
}

// router finds the route of a request. It is a tree of path segments; literals
// win over "*", and "*" over "**".
type router struct {
	root  *node
	verbs map[string]bool
	count int
}

type node struct {
	literal map[string]*node
	star    *node
	rest    map[string]*route // ** from here, by key
	routes  map[string]*route // ends here, by key
}

func newNode() *node {
	return &node{literal: map[string]*node{}, rest: map[string]*route{}, routes: map[string]*route{}}
}

// key of the routes that end at one node.
func routeKey(httpMethod, verb string) string { return httpMethod + ":" + verb }

// newRouter has a route for every binding of every known method: one that the
// table does not list is refused by name.
func newRouter(ms *methods) (*router, error) {
	r := &router{root: newNode(), verbs: map[string]bool{}}
	for _, m := range ms.byName {
		if hasServiceRules(m.name) || isSuperseded(m.name) {
			continue
		}
		rule, _ := proto.GetExtension(m.desc.Options(), annotations.E_Http).(*annotations.HttpRule)
		if err := r.addRule(m, rule); err != nil {
			return nil, err
		}
	}
	for _, sr := range serviceRules() {
		if err := r.add(ms.byName[sr.method], sr.http, sr.path, sr.body); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *router) addRule(m *method, rule *annotations.HttpRule) error {
	if rule == nil {
		return nil // gRPC only
	}
	var httpMethod, path string
	switch p := rule.Pattern.(type) {
	case *annotations.HttpRule_Get:
		httpMethod, path = "GET", p.Get
	case *annotations.HttpRule_Post:
		httpMethod, path = "POST", p.Post
	case *annotations.HttpRule_Put:
		httpMethod, path = "PUT", p.Put
	case *annotations.HttpRule_Patch:
		httpMethod, path = "PATCH", p.Patch
	case *annotations.HttpRule_Delete:
		httpMethod, path = "DELETE", p.Delete
	case *annotations.HttpRule_Custom:
		httpMethod, path = p.Custom.GetKind(), p.Custom.GetPath()
	default:
		return fmt.Errorf("method %s has an HTTP rule without a path", m.name)
	}
	if err := r.add(m, httpMethod, path, rule.Body); err != nil {
		return err
	}
	for _, more := range rule.AdditionalBindings {
		if err := r.addRule(m, more); err != nil {
			return err
		}
	}
	return nil
}

func (r *router) add(m *method, httpMethod, path, body string) error {
	t, err := parseTemplate(path)
	if err != nil {
		return fmt.Errorf("method %s: %w", m.name, err)
	}
	rt := &route{template: t, method: m, path: path, body: body}
	for _, v := range t.vars {
		if _, err := fieldPath(m.in.Descriptor(), v.field); err != nil {
			return fmt.Errorf("method %s, path %s: %w", m.name, path, err)
		}
	}
	if body != "" && body != "*" {
		if m.in.Descriptor().Fields().ByName(protoreflect.Name(body)) == nil {
			return fmt.Errorf("method %s: body field %q is unknown", m.name, body)
		}
	}
	at, end := r.root, (*node).ended
	for _, s := range t.segments {
		if s == "**" {
			end = (*node).open
			break
		}
		at = at.child(s)
	}
	key := routeKey(httpMethod, t.verb)
	if have := end(at)[key]; have != nil {
		return fmt.Errorf("%s %s is bound to both %s and %s", httpMethod, path, have.method.name, m.name)
	}
	end(at)[key] = rt
	if t.verb != "" {
		r.verbs[t.verb] = true
	}
	r.count++
	return nil
}

func (n *node) ended() map[string]*route { return n.routes }
func (n *node) open() map[string]*route  { return n.rest }

func (n *node) child(segment string) *node {
	if segment == "*" {
		if n.star == nil {
			n.star = newNode()
		}
		return n.star
	}
	if n.literal[segment] == nil {
		n.literal[segment] = newNode()
	}
	return n.literal[segment]
}

// find gives the route of a request by its escaped path, and the path's
// segments, still escaped.
func (r *router) find(httpMethod, escapedPath string) (*route, []string) {
	path, ok := strings.CutPrefix(escapedPath, "/")
	if !ok || len(path) > maxPath {
		return nil, nil
	}
	verb := ""
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') && r.verbs[path[i+1:]] {
		path, verb = path[:i], path[i+1:]
	}
	segments := strings.Split(path, "/")
	return r.root.match(segments, routeKey(httpMethod, verb)), segments
}

// maxPath and the tree's own depth bound the search.
const maxPath = 8 << 10

func (n *node) match(segments []string, key string) *route {
	if len(segments) == 0 {
		return n.routes[key]
	}
	if segments[0] == "" {
		return nil
	}
	if next := n.literal[segments[0]]; next != nil {
		if rt := next.match(segments[1:], key); rt != nil {
			return rt
		}
	}
	if n.star != nil {
		if rt := n.star.match(segments[1:], key); rt != nil {
			return rt
		}
	}
	return n.rest[key]
}

// bound gives the value of a variable: its segments decoded. A slash that came
// encoded stays encoded where the pattern has several segments (http.proto), so
// that no one smuggles a segment into a resource name.
func (rt *route) bound(v variable, segments []string) (string, error) {
	end := v.end
	if rt.segments[v.end-1] == "**" {
		end = len(segments)
	}
	parts := make([]string, 0, end-v.start)
	for _, s := range segments[v.start:end] {
		if !strings.Contains(s, "%") {
			parts = append(parts, s)
			continue
		}
		plain, err := url.PathUnescape(s)
		if err != nil {
			return "", resource.Invalid(v.field, "path segment %q is not encoded properly", s)
		}
		if v.end-v.start > 1 || rt.segments[v.start] == "**" {
			plain = strings.ReplaceAll(plain, "/", "%2F")
		}
		parts = append(parts, plain)
	}
	return strings.Join(parts, "/"), nil
}
