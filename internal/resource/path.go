package resource

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// valuePath leads from a message to the values that a filter or an order looks
// at: fields, keys of maps, keys of Struct and Value messages. Lists on the way
// branch into their elements.
type valuePath struct {
	steps []step
	// lastSegment takes the id of a resource name instead of the whole name.
	lastSegment bool
	leaf        protoreflect.FieldDescriptor // nil when the leaf is a google.protobuf.Value
}

// step is a field, or a key when fd is nil.
type step struct {
	fd  protoreflect.FieldDescriptor
	key string
}

const (
	structName = protoreflect.FullName("google.protobuf.Struct")
	valueName  = protoreflect.FullName("google.protobuf.Value")
)

// findPath resolves the segments of a path against md.
func findPath(md protoreflect.MessageDescriptor, segments []string) (valuePath, error) {
	var p valuePath
	for i := 0; i < len(segments); i++ {
		fd := FieldByName(md, segments[i])
		if fd == nil {
			return p, fmt.Errorf("%q is not a field of %s", segments[i], md.Name())
		}
		p.steps = append(p.steps, step{fd: fd})
		p.leaf = fd
		rest := segments[i+1:]
		if fd.IsMap() && len(rest) > 0 {
			if fd.MapKey().Kind() != protoreflect.StringKind {
				return p, fmt.Errorf("the keys of %q are not text", segments[i])
			}
			p.steps = append(p.steps, step{key: rest[0]})
			fd, rest, i = fd.MapValue(), rest[1:], i+1
			p.leaf = fd
		}
		if isDynamic(fd) {
			if len(rest) == 0 && fd.Message().FullName() == structName {
				return p, nil
			}
			for _, key := range rest {
				p.steps = append(p.steps, step{key: key})
			}
			p.leaf = nil
			return p, nil
		}
		if len(rest) == 0 {
			return p, nil
		}
		if fd.Message() == nil || fd.IsMap() {
			return p, fmt.Errorf("%q has no fields, so %q cannot be below it", segments[i], rest[0])
		}
		md = fd.Message()
	}
	return p, nil
}

func isDynamic(fd protoreflect.FieldDescriptor) bool {
	return !fd.IsMap() && fd.Message() != nil &&
		(fd.Message().FullName() == structName || fd.Message().FullName() == valueName)
}

// visit calls yield with each value at the end of the path until it gives true.
// A scalar or enum that is unset counts as its default; everything else that is
// missing is not visited.
func (p valuePath) visit(m protoreflect.Message, yield func(protoreflect.Value) bool) bool {
	return visitMessage(m, p.steps, yield)
}

func visitMessage(m protoreflect.Message, steps []step, yield func(protoreflect.Value) bool) bool {
	if len(steps) == 0 {
		return yield(protoreflect.ValueOfMessage(m))
	}
	if steps[0].fd == nil {
		return visitDynamic(m, steps, yield)
	}
	fd, rest := steps[0].fd, steps[1:]
	switch {
	case fd.IsMap():
		return visitMap(m.Get(fd).Map(), fd, rest, yield)
	case fd.IsList():
		list := m.Get(fd).List()
		for i := range list.Len() {
			if visitValue(list.Get(i), fd, rest, yield) {
				return true
			}
		}
		return false
	case !m.Has(fd) && (fd.Message() != nil || fd.HasPresence()):
		return false
	}
	return visitValue(m.Get(fd), fd, rest, yield)
}

func visitMap(m protoreflect.Map, fd protoreflect.FieldDescriptor, rest []step, yield func(protoreflect.Value) bool) bool {
	if len(rest) == 0 { // the map itself: its keys
		found := false
		m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			found = yield(k.Value())
			return !found
		})
		return found
	}
	v := m.Get(protoreflect.ValueOfString(rest[0].key).MapKey())
	return v.IsValid() && visitValue(v, fd.MapValue(), rest[1:], yield)
}

func visitValue(v protoreflect.Value, fd protoreflect.FieldDescriptor, rest []step, yield func(protoreflect.Value) bool) bool {
	if fd.Message() == nil {
		return yield(v)
	}
	return visitMessage(v.Message(), rest, yield)
}

// visitDynamic walks keys of Struct and Value messages. As the metadata service
// documents, a last number_value, string_value or bool_value names the type.
func visitDynamic(m protoreflect.Message, steps []step, yield func(protoreflect.Value) bool) bool {
	v := dynamicValue(m)
	for i, s := range steps {
		next, ok := v.GetStructValue().GetFields()[s.key]
		if !ok {
			last := i == len(steps)-1
			return last && slices.Contains(typedKeys(v), s.key) && yield(protoreflect.ValueOfMessage(v.ProtoReflect()))
		}
		v = next
	}
	return yield(protoreflect.ValueOfMessage(v.ProtoReflect()))
}

func typedKeys(v *structpb.Value) []string {
	switch v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		return []string{"number_value", "numberValue"}
	case *structpb.Value_StringValue:
		return []string{"string_value", "stringValue"}
	case *structpb.Value_BoolValue:
		return []string{"bool_value", "boolValue"}
	default:
		return nil
	}
}

func dynamicValue(m protoreflect.Message) *structpb.Value {
	switch v := m.Interface().(type) {
	case *structpb.Value:
		return v
	case *structpb.Struct:
		return structpb.NewStructValue(v)
	default: // dynamicpb messages of the same types
		data, err := proto.Marshal(v)
		if err != nil {
			return structpb.NewNullValue()
		}
		if m.Descriptor().FullName() == structName {
			s := &structpb.Struct{}
			if proto.Unmarshal(data, s) != nil {
				return structpb.NewNullValue()
			}
			return structpb.NewStructValue(s)
		}
		out := &structpb.Value{}
		if proto.Unmarshal(data, out) != nil {
			return structpb.NewNullValue()
		}
		return out
	}
}

// lastSegment is the id in a resource name.
func lastSegment(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
