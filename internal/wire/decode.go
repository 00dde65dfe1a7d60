package wire

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"tategu/internal/api"
	"tategu/internal/resource"
)

// limitBody bounds what is read, unpacked or not.
func (s *Server) limitBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if r.ContentLength > s.cfg.MaxBody {
		return &http.MaxBytesError{Limit: s.cfg.MaxBody}
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.cfg.MaxBody)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return nil
	case "gzip":
		r.Header.Del("Content-Encoding")
		r.ContentLength = -1
		r.Body = &gunzip{packed: r.Body, limit: s.cfg.MaxBody}
		return nil
	default:
		return resource.Invalid("Content-Encoding", "content encoding %q is not supported", encoding).WithHint("send gzip or plain bytes")
	}
}

// gunzip unpacks a body up to a limit and up to a multiple of what was sent,
// against bombs.
type gunzip struct {
	packed      io.ReadCloser
	came        int64 // packed bytes
	plain       *gzip.Reader
	gave, limit int64
}

// packedReader counts what was sent.
type packedReader struct{ g *gunzip }

// Read implements io.Reader.
func (p packedReader) Read(b []byte) (int, error) {
	n, err := p.g.packed.Read(b)
	p.g.came += int64(n)
	return n, err
}

// Read implements io.Reader.
func (g *gunzip) Read(b []byte) (int, error) {
	if g.plain == nil {
		plain, err := gzip.NewReader(packedReader{g})
		if err != nil {
			return 0, badGzip(err)
		}
		g.plain = plain
	}
	n, err := g.plain.Read(b[:min(int64(len(b)), g.limit-g.gave+1)])
	switch g.gave += int64(n); {
	case g.gave > g.limit:
		return 0, &http.MaxBytesError{Limit: g.limit}
	case g.gave > unpackFree+g.came*unpackRatio:
		return 0, resource.Invalid("body", "the body unpacks to more than %d times its size", unpackRatio).WithHint("send it without gzip")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = badGzip(err)
	}
	return n, err
}

// Close implements io.Closer.
func (g *gunzip) Close() error { return g.packed.Close() }

func badGzip(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return resource.Invalid("body", "the body is not valid gzip")
}

// decode makes the request message of the called version from body, query and path.
func (x *exchange) decode(r *http.Request) (proto.Message, error) {
	m := x.route.method
	req := m.newRequest()
	if x.route.body != "" {
		body, err := api.ReadBody(r)
		if err != nil {
			return nil, err
		}
		if err := x.decodeBody(req, body, r.Header.Get("Content-Type")); err != nil {
			return nil, err
		}
	}
	if x.route.body != "*" {
		for _, name := range sortedKeys(x.query) {
			for _, value := range x.query[name] {
				if err := setPath(req, name, value, true); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, v := range x.route.vars {
		value, err := x.route.bound(v, x.segments)
		if err != nil {
			return nil, err
		}
		if err := setPath(req, v.field, value, false); err != nil {
			return nil, err
		}
	}
	prune(req, m.in.Descriptor())
	return req.Interface(), nil
}

func sortedKeys(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// decodeBody puts the body where the rule says. A raw body may be anything; most
// clients that say $alt wrap it: {"httpBody": {"contentType": .., "data": ..}}. Those that
// do not (Rust's) read the answer as it is, too.
func (x *exchange) decodeBody(req protoreflect.Message, body []byte, contentType string) error {
	target := req
	raw := rawField(req.Descriptor(), x.route.body)
	wrapped := x.alt.wrapped && x.route.body == "*" && wrapsRaw(body)
	switch {
	case raw != nil && !wrapped:
		x.alt.wrapped = false
		hb := &httpbody.HttpBody{ContentType: strings.ToValidUTF8(contentType, "?"), Data: body}
		req.Set(raw, protoreflect.ValueOfMessage(hb.ProtoReflect()))
		return nil
	case x.route.body != "*":
		f := req.Descriptor().Fields().ByName(protoreflect.Name(x.route.body))
		if f.IsList() || f.IsMap() || f.Message() == nil {
			body = fmt.Appendf(nil, "{%q:%s}", f.JSONName(), body)
		} else {
			target = req.Mutable(f).Message()
		}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := checkJSON(body, x.route.method.api.Limits); err != nil {
		return err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting, Resolver: x.types}).Unmarshal(body, target.Interface()); err != nil {
		if deep := tooDeep(err); deep != nil {
			return deep
		}
		return resource.Invalid("body", "the JSON body does not fit %s: %s", x.called(target.Descriptor()), plainError(err))
	}
	return nil
}

// called is the name of a message in the caller's version.
func (x *exchange) called(d protoreflect.MessageDescriptor) string {
	name := string(d.FullName())
	if rest, ok := strings.CutPrefix(name, packageV1beta1+"."); ok && x.route.method.version == resource.V1 {
		return packageV1 + "." + rest
	}
	return name
}

// plainError drops the prefix with its deliberately unstable space.
func plainError(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
}

// rawField gives the HttpBody field that takes a raw body, or nil.
func rawField(d protoreflect.MessageDescriptor, body string) protoreflect.FieldDescriptor {
	name := protoreflect.Name(body)
	if body == "*" {
		name = "http_body"
	}
	f := d.Fields().ByName(name)
	if f == nil || f.Message() == nil || !isHTTPBody(f.Message()) {
		return nil
	}
	return f
}

func wrapsRaw(body []byte) bool {
	var top map[string]json.RawMessage
	if json.Unmarshal(body, &top) != nil {
		return false
	}
	return top["httpBody"] != nil || top["http_body"] != nil
}

// setPath sets one field by its dotted path. A query may hold names that the
// method does not know; those are left out.
func setPath(m protoreflect.Message, path, value string, query bool) error {
	fields, err := fieldPath(m.Descriptor(), path)
	if err != nil {
		if query {
			return nil
		}
		return resource.Invalid(path, "%s", err.Error())
	}
	if !utf8.ValidString(value) {
		return resource.Invalid(path, "%s is not valid UTF-8", path)
	}
	for _, f := range fields[:len(fields)-1] {
		m = m.Mutable(f).Message()
	}
	f := fields[len(fields)-1]
	if f.IsMap() {
		return resource.Invalid(path, "%s cannot be set by the query", path)
	}
	v, err := parseValue(m, f, value)
	if err != nil {
		return resource.Invalid(path, "%q is no value for %s", value, path)
	}
	if f.IsList() {
		m.Mutable(f).List().Append(v)
	} else {
		m.Set(f, v)
	}
	return nil
}

func parseValue(m protoreflect.Message, f protoreflect.FieldDescriptor, s string) (protoreflect.Value, error) {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), nil
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(s)
		return protoreflect.ValueOfBool(b), err
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		n, err := strconv.ParseInt(s, 10, 32)
		return protoreflect.ValueOfInt32(int32(n)), err
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(s, 10, 64)
		return protoreflect.ValueOfInt64(n), err
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := strconv.ParseUint(s, 10, 32)
		return protoreflect.ValueOfUint32(uint32(n)), err
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(s, 10, 64)
		return protoreflect.ValueOfUint64(n), err
	case protoreflect.FloatKind:
		n, err := strconv.ParseFloat(s, 32)
		return protoreflect.ValueOfFloat32(float32(n)), err
	case protoreflect.DoubleKind:
		n, err := strconv.ParseFloat(s, 64)
		return protoreflect.ValueOfFloat64(n), err
	case protoreflect.BytesKind:
		return parseBytes(s)
	case protoreflect.EnumKind:
		return parseEnum(f, s)
	default:
		return parseMessage(m, f, s)
	}
}

// parseBytes takes both alphabets, padded or not, as protojson does.
func parseBytes(s string) (protoreflect.Value, error) {
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	b, err := enc.DecodeString(strings.TrimRight(s, "="))
	return protoreflect.ValueOfBytes(b), err
}

func parseEnum(f protoreflect.FieldDescriptor, s string) (protoreflect.Value, error) {
	if v := f.Enum().Values().ByName(protoreflect.Name(s)); v != nil {
		return protoreflect.ValueOfEnum(v.Number()), nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n > math.MaxInt32 {
		return protoreflect.Value{}, fmt.Errorf("%q is not in %s", s, f.Enum().FullName())
	}
	return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)), nil
}

// parseMessage reads the well-known types that have a text form.
func parseMessage(m protoreflect.Message, f protoreflect.FieldDescriptor, s string) (protoreflect.Value, error) {
	var v protoreflect.Value
	if f.IsList() {
		v = m.NewField(f).List().NewElement()
	} else {
		v = m.NewField(f)
	}
	mask := &fieldmaskpb.FieldMask{}
	if f.Message().FullName() == mask.ProtoReflect().Descriptor().FullName() {
		mask.Paths = maskPaths(s)
		return protoreflect.ValueOfMessage(mask.ProtoReflect()), nil
	}
	if !strings.HasPrefix(string(f.Message().FullName()), "google.protobuf.") {
		return v, fmt.Errorf("%s has no text form", f.Message().FullName())
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		return v, err
	}
	if err = protojson.Unmarshal(quoted, v.Message().Interface()); err != nil {
		err = protojson.Unmarshal([]byte(s), v.Message().Interface()) // numbers, booleans and objects are bare
	}
	return v, err
}

// maskPaths takes displayName as well as display_name, since clients send both.
func maskPaths(s string) []string {
	var paths []string
	for path := range strings.SplitSeq(s, ",") {
		if path = strings.TrimSpace(path); path == "" {
			continue
		}
		var b strings.Builder
		for _, r := range path {
			if r >= 'A' && r <= 'Z' {
				b.WriteByte('_')
				r += 'a' - 'A'
			}
			b.WriteRune(r)
		}
		paths = append(paths, b.String())
	}
	return paths
}
