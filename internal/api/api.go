// Package api is what every protocol package shares with the wire: the dispatch
// table. A method is its full name, the permission it needs, and a handler over
// protobuf messages. gRPC and REST both end here; identity, permission, field
// checks and audit are middleware in package wire.
//
// Handlers of aiplatform methods speak the v1beta1 messages only. The wire
// converts v1 requests and answers by their bytes (v1beta1 is a superset).
package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Public is the permission of a method that anyone authenticated may call.
const Public = "public"

// Method is one row of the dispatch table. Exactly one of Unary and Stream is
// set; HTTP is an optional fast path for REST that bypasses protobuf.
type Method struct {
	// Name is package.Service/Method; for aiplatform the v1beta1 name, which
	// also serves v1: google.cloud.aiplatform.v1beta1.ModelService/UploadModel.
	Name string
	// Permission such as aiplatform.models.upload, checked against the project of
	// the request's resource name before the handler runs.
	Permission string
	Unary      func(ctx context.Context, req proto.Message) (proto.Message, error)
	Stream     func(ctx context.Context, req proto.Message, send func(proto.Message) error) error
	// HTTP serves a REST request itself, after identity and permission; name is
	// the resource name bound by the path. The caller is in ctx: r's own knows only
	// when they leave, since a copy of r costs more than all else of it here. Errors
	// are written by the wire.
	HTTP func(ctx context.Context, w http.ResponseWriter, r *http.Request, name string) error
	// Limits are the method's own bounds of a request.
	Limits Limits
}

// Limits are looked at before a request is decoded, which takes many times its
// size.
type Limits struct {
	// Values is the most that a request may hold; 0 = what the wire allows.
	Values int
	// JSON looks at the body of a REST request, Wire at a message of gRPC; nil = not.
	JSON func(text []byte) error
	Wire func(data []byte, d protoreflect.MessageDescriptor) error
}

// Within gives the method with bounds of its own.
func (m Method) Within(l Limits) Method {
	m.Limits = l
	return m
}

// Mutates reports whether calls are audited: everything that is not a plain read.
func (m Method) Mutates() bool {
	_, short, _ := cutLast(m.Name, '/')
	for _, p := range []string{"Get", "List", "Query", "Search", "Read", "BatchRead", "Check", "Predict", "RawPredict", "StreamRawPredict", "Explain", "Find", "Wait", "Test"} {
		if len(short) >= len(p) && short[:len(p)] == p {
			return false
		}
	}
	return true
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// Unary adapts a typed handler.
func Unary[Req, Resp proto.Message](name, permission string, h func(context.Context, Req) (Resp, error)) Method {
	return Method{Name: name, Permission: permission, Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
		typed, ok := req.(Req)
		if !ok {
			return nil, fmt.Errorf("%s: got %T", name, req)
		}
		return h(ctx, typed)
	}}
}

// Stream adapts a typed server-streaming handler.
func Stream[Req, Resp proto.Message](name, permission string, h func(context.Context, Req, func(Resp) error) error) Method {
	return Method{Name: name, Permission: permission, Stream: func(ctx context.Context, req proto.Message, send func(proto.Message) error) error {
		typed, ok := req.(Req)
		if !ok {
			return fmt.Errorf("%s: got %T", name, req)
		}
		return h(ctx, typed, func(m Resp) error { return send(m) })
	}}
}

// Table is the dispatch table: the allow-list of what tategu serves.
type Table struct{ methods map[string]Method }

// NewTable joins methods; two rows of one name are an error.
func NewTable(groups ...[]Method) (*Table, error) {
	t := &Table{methods: map[string]Method{}}
	for _, group := range groups {
		for _, m := range group {
			if _, dup := t.methods[m.Name]; dup {
				return nil, fmt.Errorf("method %s is listed twice", m.Name)
			}
			if m.Permission == "" {
				return nil, fmt.Errorf("method %s has no permission", m.Name)
			}
			if (m.Unary == nil) == (m.Stream == nil) {
				return nil, fmt.Errorf("method %s needs exactly one of Unary and Stream", m.Name)
			}
			t.methods[m.Name] = m
		}
	}
	return t, nil
}

// Lookup finds a method by its full name.
func (t *Table) Lookup(name string) (Method, bool) {
	m, ok := t.methods[name]
	return m, ok
}

// Names lists all methods in order.
func (t *Table) Names() []string { return slices.Sorted(maps.Keys(t.methods)) }
