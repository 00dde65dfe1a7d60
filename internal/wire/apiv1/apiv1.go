// Package apiv1 knows the messages and methods of google.cloud.aiplatform.v1 by
// their descriptors alone. What is stored and worked on is v1beta1, so that Go
// types for v1 would only be 5 MB of the binary; docs/adr/0002 has the figures.
//
// descriptors.binpb.zst is a FileDescriptorSet of the client library's own
// descriptors; `make generate` writes it and a test holds it against the library.
package apiv1

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/runtime/protoimpl"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Package is the protobuf package.
const Package = "google.cloud.aiplatform.v1"

//go:embed descriptors.binpb.zst
var packed []byte

// Registry finds descriptors and types of v1 and, behind them, everything that is
// linked into the program. Its types of v1 are dynamic. It is safe for concurrent use.
type Registry struct {
	files *protoregistry.Files
}

// Load reads the descriptors; the fields of a message are read when first asked for.
func Load() (*Registry, error) {
	set, err := unpack()
	if err != nil {
		return nil, err
	}
	r := &Registry{files: &protoregistry.Files{}}
	for len(set) > 0 {
		const file = 1 // FileDescriptorSet.file
		num, typ, n := protowire.ConsumeTag(set)
		if n < 0 || num != file || typ != protowire.BytesType {
			return nil, errors.New("the descriptors of v1 are damaged")
		}
		raw, m := protowire.ConsumeBytes(set[n:])
		if m < 0 {
			return nil, errors.New("the descriptors of v1 are cut off")
		}
		// What generated code does with its descriptor: nothing but names is read now.
		protoimpl.DescBuilder{RawDescriptor: raw, FileRegistry: r}.Build()
		set = set[n+m:]
	}
	return r, nil
}

func unpack() ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("unpack the descriptors of v1: %w", err)
	}
	defer dec.Close()
	set, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack the descriptors of v1: %w", err)
	}
	return set, nil
}

func owns(name protoreflect.FullName) bool { return strings.HasPrefix(string(name), Package+".") }

// RegisterFile is for Load.
func (r *Registry) RegisterFile(f protoreflect.FileDescriptor) error { return r.files.RegisterFile(f) }

// FindFileByPath implements protodesc.Resolver.
func (r *Registry) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if f, err := r.files.FindFileByPath(path); err == nil {
		return f, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (r *Registry) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if owns(name) {
		return r.files.FindDescriptorByName(name)
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// RangeFiles calls f for every file of v1 and every other one until it gives false.
func (r *Registry) RangeFiles(f func(protoreflect.FileDescriptor) bool) {
	more := true
	r.files.RangeFiles(func(d protoreflect.FileDescriptor) bool {
		more = f(d)
		return more
	})
	if !more {
		return
	}
	protoregistry.GlobalFiles.RangeFiles(func(d protoreflect.FileDescriptor) bool {
		return d.Package() == Package || f(d) // a test may link the generated ones too
	})
}

// FindMessageByName implements protoregistry.MessageTypeResolver.
func (r *Registry) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if !owns(name) {
		return protoregistry.GlobalTypes.FindMessageByName(name)
	}
	d, err := r.files.FindDescriptorByName(name)
	if err != nil {
		return nil, err
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, protoregistry.NotFound
	}
	return dynamicpb.NewMessageType(m), nil
}

// FindMessageByURL implements protoregistry.MessageTypeResolver.
func (r *Registry) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	return r.FindMessageByName(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

// FindExtensionByName implements protoregistry.ExtensionTypeResolver.
func (r *Registry) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return protoregistry.GlobalTypes.FindExtensionByName(name)
}

// FindExtensionByNumber implements protoregistry.ExtensionTypeResolver.
func (r *Registry) FindExtensionByNumber(message protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return protoregistry.GlobalTypes.FindExtensionByNumber(message, n)
}
