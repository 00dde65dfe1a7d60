package torchserve

import (
	"fmt"
	"strings"

	_ "google.golang.org/genproto/googleapis/rpc/status" // the descriptors refer to it
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/emptypb" // likewise
)

// protoFile is a .proto file in short: messages as lines of fields, and methods.
type protoFile struct {
	path, pkg string
	imports   []string
	messages  []protoMessage
	service   string
	methods   []protoMethod
}

// protoMessage has fields as "NUMBER NAME TYPE"; a type may begin with repeated or
// optional, be map:KEY:VALUE, or oneof:NAME:TYPE. A name with a dot is that of a message
// inside of another.
type protoMessage struct {
	name   string
	fields string
}

type protoMethod struct {
	name, in, out  string
	client, server bool // streams
}

// build makes descriptors of files that refer to each other's packages in the order given.
func buildFiles(files []protoFile) (*protoregistry.Files, error) {
	reg := &protoregistry.Files{}
	for _, f := range files {
		d, err := f.descriptor()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		fd, err := protodesc.NewFile(d, protoregistry.GlobalFiles)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		if err := reg.RegisterFile(fd); err != nil {
			return nil, err
		}
	}
	return reg, nil
}

func (f protoFile) descriptor() (*descriptorpb.FileDescriptorProto, error) {
	d := &descriptorpb.FileDescriptorProto{Name: &f.path, Package: &f.pkg, Syntax: new("proto3"), Dependency: f.imports}
	outer := map[string]*descriptorpb.DescriptorProto{}
	for _, m := range f.messages {
		into, name, nested := strings.Cut(m.name, ".")
		if !nested {
			name = into
		}
		msg := &descriptorpb.DescriptorProto{Name: &name}
		for line := range strings.SplitSeq(m.fields, ";") {
			if err := f.field(msg, m.name, strings.Fields(line)); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
		}
		syntheticOneofs(msg)
		if nested {
			outer[into].NestedType = append(outer[into].NestedType, msg)
			continue
		}
		outer[name] = msg
		d.MessageType = append(d.MessageType, msg)
	}
	if f.service != "" {
		s := &descriptorpb.ServiceDescriptorProto{Name: &f.service}
		for _, m := range f.methods {
			s.Method = append(s.Method, &descriptorpb.MethodDescriptorProto{
				Name: &m.name, InputType: new(f.ref(m.in)), OutputType: new(f.ref(m.out)), ClientStreaming: &m.client, ServerStreaming: &m.server,
			})
		}
		d.Service = append(d.Service, s)
	}
	return d, nil
}

// ref is the full name of a type: one that begins with a dot has it already.
func (f protoFile) ref(name string) string {
	if strings.HasPrefix(name, ".") {
		return name
	}
	return "." + f.pkg + "." + name
}

func (f protoFile) field(msg *descriptorpb.DescriptorProto, full string, words []string) error {
	if len(words) == 0 {
		return nil
	}
	if len(words) < 3 {
		return fmt.Errorf("field %v: want NUMBER NAME TYPE", words)
	}
	var number int32
	if _, err := fmt.Sscan(words[0], &number); err != nil {
		return err
	}
	fd := &descriptorpb.FieldDescriptorProto{Name: &words[1], Number: &number, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	kind := words[2]
	switch kind {
	case "repeated":
		fd.Label, kind = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), words[3]
	case "optional":
		fd.Proto3Optional, kind = new(true), words[3]
	}
	if rest, ok := strings.CutPrefix(kind, "oneof:"); ok {
		var name string
		name, kind, _ = strings.Cut(rest, ":")
		if len(msg.OneofDecl) == 0 {
			msg.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: &name}}
		}
		fd.OneofIndex = new(int32(0))
	}
	if rest, ok := strings.CutPrefix(kind, "map:"); ok {
		key, value, _ := strings.Cut(rest, ":")
		entry := camel(words[1]) + "Entry"
		e := &descriptorpb.DescriptorProto{Name: &entry, Options: &descriptorpb.MessageOptions{MapEntry: new(true)}}
		if err := f.field(e, full, []string{"1", "key", key}); err != nil {
			return err
		}
		if err := f.field(e, full, []string{"2", "value", value}); err != nil {
			return err
		}
		msg.NestedType = append(msg.NestedType, e)
		fd.Label, kind = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), full+"."+entry
	}
	if t, ok := descriptorpb.FieldDescriptorProto_Type_value["TYPE_"+strings.ToUpper(kind)]; ok {
		fd.Type = descriptorpb.FieldDescriptorProto_Type(t).Enum()
	} else {
		fd.Type, fd.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), new(f.ref(kind))
	}
	msg.Field = append(msg.Field, fd)
	return nil
}

// syntheticOneofs gives every optional field the oneof that proto3 wants, behind all others.
func syntheticOneofs(msg *descriptorpb.DescriptorProto) {
	for _, fd := range msg.Field {
		if fd.GetProto3Optional() {
			fd.OneofIndex = new(int32(len(msg.OneofDecl)))
			msg.OneofDecl = append(msg.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: new("_" + fd.GetName())})
		}
	}
}

func camel(s string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(s, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// methodsOf lists the methods of all services by their full name, /SERVICE/METHOD.
func methodsOf(reg *protoregistry.Files) map[string]protoreflect.MethodDescriptor {
	out := map[string]protoreflect.MethodDescriptor{}
	reg.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				out["/"+string(s.FullName())+"/"+string(m.Name())] = m
			}
		}
		return true
	})
	return out
}
