package aiplatform

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// resourceType is what google.api.resource says of a message.
type resourceType struct {
	message    string   // "CustomJob"
	singular   string   // "custom_job": the request field that holds it
	collection string   // "customJobs"
	patterns   []string // "projects/{project}/locations/{location}/customJobs/{custom_job}"
}

func typeOf(md protoreflect.MessageDescriptor) (resourceType, error) {
	res, _ := proto.GetExtension(md.Options(), annotations.E_Resource).(*annotations.ResourceDescriptor)
	if res == nil || len(res.Pattern) == 0 {
		return resourceType{}, fmt.Errorf("%s is not a resource", md.FullName())
	}
	name, err := resource.ParseName(res.Pattern[0])
	if err != nil {
		return resourceType{}, fmt.Errorf("%s: %w", md.FullName(), err)
	}
	return resourceType{
		message: string(md.Name()), singular: snake(string(md.Name())),
		collection: name.Collection(), patterns: res.Pattern,
	}, nil
}

func (t resourceType) kind() store.Kind { return store.Kind(t.collection) }

// matches reports whether name has the form of one of the patterns.
func (t resourceType) matches(name string) bool {
	for _, p := range t.patterns {
		if matchPattern(p, name) {
			return true
		}
	}
	return false
}

// matchesParent is the same for a parent, in which "-" stands for any id.
func (t resourceType) matchesParent(parent string) bool {
	return t.matches(parent + "/" + t.collection + "/x")
}

func (t resourceType) parentPattern() string {
	return strings.TrimSuffix(t.patterns[0][:strings.LastIndexByte(t.patterns[0], '/')], "/"+t.collection)
}

func matchPattern(pattern, name string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(name, "/")
	if len(want) != len(got) {
		return false
	}
	for i, w := range want {
		variable := strings.HasPrefix(w, "{")
		if got[i] == "" || !variable && w != got[i] {
			return false
		}
	}
	return true
}

// snake turns CustomJob into custom_job, as request fields are called.
func snake(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func field(m protoreflect.Message, name string, kind protoreflect.Kind) protoreflect.FieldDescriptor {
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if fd == nil || fd.Kind() != kind || fd.Cardinality() == protoreflect.Repeated {
		return nil
	}
	return fd
}

func getString(m protoreflect.Message, name string) string {
	if fd := field(m, name, protoreflect.StringKind); fd != nil {
		return m.Get(fd).String()
	}
	return ""
}

func setString(m protoreflect.Message, name, value string) {
	if fd := field(m, name, protoreflect.StringKind); fd != nil {
		m.Set(fd, protoreflect.ValueOfString(value))
	}
}

func setTime(m protoreflect.Message, name string, at time.Time) {
	if fd := field(m, name, protoreflect.MessageKind); fd != nil && fd.Message().FullName() == "google.protobuf.Timestamp" {
		m.Set(fd, protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()))
	}
}

// message gives the sub-message in a field of a request; nil when it is not set.
func message(m protoreflect.Message, name string) proto.Message {
	fd := field(m, name, protoreflect.MessageKind)
	if fd == nil || !m.Has(fd) {
		return nil
	}
	return m.Get(fd).Message().Interface()
}

// ClearOutputOnly drops what a client sent in fields that only the server sets,
// as AIP-203 wants.
func ClearOutputOnly(msg proto.Message) {
	m := msg.ProtoReflect()
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if outputOnly(fd) {
			m.Clear(fd)
		}
		return true
	})
}

func outputOnly(fd protoreflect.FieldDescriptor) bool {
	return behaves(fd, annotations.FieldBehavior_OUTPUT_ONLY)
}

func behaves(fd protoreflect.FieldDescriptor, want annotations.FieldBehavior) bool {
	behaviors, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behaviors, want)
}
