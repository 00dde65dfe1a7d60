package main

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"

	// Every method that the aiplatform API has, served or not.
	_ "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	_ "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// boundMethod is a method with an HTTP binding, for requests whose fields are
// made up from the descriptor: right in their types, at random in their values.
type boundMethod struct {
	name             string
	verb, path, body string
	in               protoreflect.MessageDescriptor
}

// boundMethods lists the methods of both API versions, the served ones four times
// so that most requests get past the name of the method.
func boundMethods(served map[string]bool) []*boundMethod {
	var out []*boundMethod
	for _, pkg := range []protoreflect.FullName{"google.cloud.aiplatform.v1", "google.cloud.aiplatform.v1beta1"} {
		protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
			for i := range f.Services().Len() {
				for k := range f.Services().Get(i).Methods().Len() {
					if m := bind(f.Services().Get(i).Methods().Get(k)); m != nil {
						out = append(out, m)
					}
				}
			}
			return true
		})
	}
	slices.SortFunc(out, func(a, b *boundMethod) int { return cmp.Compare(a.name, b.name) })
	for _, m := range out {
		if served[unversioned(m.name)] {
			out = append(out, m, m, m)
		}
	}
	return out
}

// unversioned gives the v1beta1 name, which is what the dispatch table has.
func unversioned(name string) string {
	return strings.Replace(name, "google.cloud.aiplatform.v1.", "google.cloud.aiplatform.v1beta1.", 1)
}

func bind(md protoreflect.MethodDescriptor) *boundMethod {
	rule, _ := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return nil
	}
	m := &boundMethod{name: string(md.Parent().FullName()) + "/" + string(md.Name()), body: rule.Body, in: md.Input()}
	for verb, path := range map[string]string{"GET": rule.GetGet(), "POST": rule.GetPost(), "PUT": rule.GetPut(), "PATCH": rule.GetPatch(), "DELETE": rule.GetDelete()} {
		if path != "" {
			m.verb, m.path = verb, path
		}
	}
	return m
}

// seed makes one request for the method.
func (m *boundMethod) seed(r *rand.Rand) seedRequest {
	s := seedRequest{title: m.name, auto: m}
	msg := dynamicpb.NewMessage(m.in)
	fill(r, msg, 0)
	if r.IntN(4) == 0 {
		s.method, s.target = "GRPC", m.name
		s.body = marshalJSON(msg)
		return s
	}
	s.method, s.target = m.verb, fillPath(r, m.path)
	if m.body == "" {
		return s
	}
	s.header = [][2]string{{"Content-Type", "application/json"}}
	if m.body != "*" {
		if f := m.in.Fields().ByName(protoreflect.Name(m.body)); f != nil && f.Message() != nil && !f.IsList() && !f.IsMap() {
			if part, ok := msg.Get(f).Message().Interface().(*dynamicpb.Message); ok {
				msg = part
			}
		}
	}
	s.body = marshalJSON(msg)
	return s
}

func marshalJSON(m *dynamicpb.Message) []byte {
	text, err := protojson.Marshal(m)
	if err != nil {
		return []byte("{}") // a made-up Any or Timestamp has no JSON form
	}
	return text
}

// fillPath puts names into a path template.
func fillPath(r *rand.Rand, path string) string {
	path = strings.NewReplacer("{", "", "}", "").Replace(path)
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if _, pattern, ok := strings.Cut(s, "="); ok {
			segments[i] = pattern
		}
	}
	for i, s := range segments {
		star, verb, hasVerb := strings.Cut(s, ":")
		if star != "*" && star != "**" {
			continue
		}
		segments[i] = idOf(r, segments[i-1])
		if hasVerb {
			segments[i] += ":" + verb
		}
	}
	return strings.Join(segments, "/")
}

func idOf(r *rand.Rand, collection string) string {
	known := map[string]string{
		"projects": "p", "locations": "us-central1", "models": "corpus-model", "endpoints": "77", "metadataStores": "default", "contexts": "c1",
		"artifacts": "a1", "executions": "e1", "metadataSchemas": "s1", "pipelineJobs": "corpus-run",
	}
	if id := known[collection]; id != "" && r.IntN(10) > 0 {
		return id
	}
	return []string{"1", "x", "-", "none", "1234567890123456789"}[r.IntN(5)]
}

// fill sets fields at random.
func fill(r *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		required := slices.Contains(behaviors(f), annotations.FieldBehavior_REQUIRED)
		if depth > 4 || !required && r.IntN(3+depth) > 0 {
			continue
		}
		switch {
		case f.IsMap():
			setMap(r, m, f, depth)
		case f.IsList():
			list := m.Mutable(f).List()
			for range 1 + r.IntN(2) {
				list.Append(made(r, f, list.NewElement(), depth))
			}
		default:
			m.Set(f, made(r, f, m.NewField(f), depth))
		}
	}
}

func behaviors(f protoreflect.FieldDescriptor) []annotations.FieldBehavior {
	b, _ := proto.GetExtension(f.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return b
}

func setMap(r *rand.Rand, m protoreflect.Message, f protoreflect.FieldDescriptor, depth int) {
	if f.MapKey().Kind() != protoreflect.StringKind {
		return
	}
	entries := m.Mutable(f).Map()
	for _, k := range []string{"a", "0", "team"}[:1+r.IntN(3)] {
		entries.Set(protoreflect.ValueOfString(k).MapKey(), made(r, f.MapValue(), entries.NewValue(), depth))
	}
}

// made gives a value for a field; zero is an empty one of its type.
func made(r *rand.Rand, f protoreflect.FieldDescriptor, zero protoreflect.Value, depth int) protoreflect.Value {
	numbers := []int64{0, 1, -1, 2, 100, 1 << 31, -1 << 31, 1<<63 - 1, -1 << 63}
	n := numbers[r.IntN(len(numbers))]
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(textFor(r, string(f.Name())))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 != 0)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{1, 0xff, 0})
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(r.IntN(values.Len())).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(n)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n) / 3)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 3)
	default:
		fill(r, zero.Message(), depth+1)
		return zero
	}
}

func textFor(r *rand.Rand, field string) string {
	const location = "projects/p/locations/us-central1"
	fitting := map[string][]string{
		"parent": {location, location + "/metadataStores/default"}, "model": {location + "/models/corpus-model", location + "/models/corpus-model@1"},
		"endpoint": {location + "/endpoints/77"}, "uris": {"gs://corpus-bucket/rows.jsonl"}, "output_uri_prefix": {"gs://corpus-bucket/out"},
		"artifact_uri": {"gs://corpus-bucket/model"}, "image_uri": {"none"}, "instances_format": {"jsonl"}, "predictions_format": {"jsonl"},
		"name":     {location + "/models/corpus-model", location + "/endpoints/77", location + "/metadataStores/default/contexts/c1", location + "/pipelineJobs/corpus-run", "n"},
		"artifact": {location + "/metadataStores/default/artifacts/a1"}, "execution": {location + "/metadataStores/default/executions/e1"},
		"context": {location + "/metadataStores/default/contexts/c1"}, "command": {"true"},
	}
	if texts := fitting[field]; texts != nil && r.IntN(5) > 0 {
		return texts[r.IntN(len(texts))]
	}
	texts := []string{"a", "", "x y", "1", "-1", "é\u0000", "a/b", "*", "gs://corpus-bucket/a.txt", location, "{{$.x}}", strings.Repeat("t", 200)}
	return texts[r.IntN(len(texts))]
}
