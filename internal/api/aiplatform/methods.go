package aiplatform

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"tategu/internal/api"
	"tategu/internal/operation"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// standardMethod is a method that the descriptor alone describes.
type standardMethod struct {
	*Standard
	service, name string
	md            protoreflect.MethodDescriptor
	typ           resourceType
	new           func() proto.Message // of the resource
}

// Methods gives the named standard methods of a service ("MetadataService",
// "GetContext", ...): Create, Get, List, Update or Delete. Methods whose
// descriptor answers an operation give one that is done.
func (s *Standard) Methods(service string, names ...string) ([]api.Method, error) {
	methods := make([]api.Method, 0, len(names))
	for _, name := range names {
		m, err := s.standardMethod(service, name)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", service, name, err)
		}
		methods = append(methods, m)
	}
	return methods, nil
}

func (s *Standard) standardMethod(service, name string) (api.Method, error) {
	md, err := findMethod(service, name)
	if err != nil {
		return api.Method{}, err
	}
	verb, res := splitVerb(name)
	if verb == "List" {
		if fd := itemsOf(md.Output()); fd != nil {
			res = string(fd.Message().Name())
		}
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(ServicePrefix + res))
	if err != nil {
		return api.Method{}, err
	}
	typ, err := typeOf(mt.Descriptor())
	if err != nil {
		return api.Method{}, err
	}
	m := &standardMethod{Standard: s, service: service, name: name, md: md, typ: typ, new: func() proto.Message { return mt.New().Interface() }}
	handlers := map[string]func(context.Context, proto.Message) (proto.Message, error){
		"Create": m.create, "Get": m.get, "List": m.list, "Update": m.update, "Delete": m.delete,
	}
	h, ok := handlers[verb]
	if !ok {
		return api.Method{}, errors.New("not a standard method")
	}
	permission := "aiplatform." + typ.collection + "." + strings.ToLower(verb)
	return api.Method{Name: MethodName(service, name), Permission: permission, Unary: h}, nil
}

func findMethod(service, name string) (protoreflect.MethodDescriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(ServicePrefix + service))
	if err != nil {
		return nil, err
	}
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not a service", service)
	}
	md := sd.Methods().ByName(protoreflect.Name(name))
	if md == nil {
		return nil, errors.New("there is no such method")
	}
	return md, nil
}

func splitVerb(name string) (verb, res string) {
	for _, v := range []string{"Create", "Get", "List", "Update", "Delete"} {
		if rest, ok := strings.CutPrefix(name, v); ok {
			return v, rest
		}
	}
	return "", name
}

// Get answers a standard Get method into resp.
func (s *Standard) Get(ctx context.Context, req, resp proto.Message) error {
	return s.Load(ctx, s.store, getString(req.ProtoReflect(), "name"), resp)
}

// Delete answers a standard Delete method with an operation that is done. msg is
// the (empty) message of the resource; before, when given, sees it loaded and may
// refuse or remove more in the same transaction.
func (s *Standard) Delete(ctx context.Context, req, msg proto.Message, before func(tx store.Tx) error) (*longrunningpb.Operation, error) {
	var op *longrunningpb.Operation
	r := req.ProtoReflect()
	err := s.store.Update(ctx, func(tx store.Tx) error {
		err := s.Remove(ctx, tx, getString(r, "name"), getString(r, "etag"), msg)
		if err != nil {
			return err
		}
		if before != nil {
			if err := before(tx); err != nil {
				return err
			}
		}
		op, err = operation.Done(ctx, tx, getString(r, "name"), s.Metadata("DeleteOperationMetadata"), &emptypb.Empty{})
		return err
	})
	return op, err
}

// Metadata makes the v1beta1 metadata message of an operation by its short name,
// with its generic part filled. An unknown name gives the generic message.
func (s *Standard) Metadata(name string) proto.Message {
	m := (&pb.GenericOperationMetadata{}).ProtoReflect()
	if mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(ServicePrefix + name)); err == nil {
		m = mt.New()
	}
	target := m
	if fd := field(m, "generic_metadata", protoreflect.MessageKind); fd != nil {
		target = m.Mutable(fd).Message()
	}
	now := s.now()
	setTime(target, "create_time", now)
	setTime(target, "update_time", now)
	return m.Interface()
}

func (m *standardMethod) get(ctx context.Context, req proto.Message) (proto.Message, error) {
	msg := m.new()
	if err := m.Get(ctx, req, msg); err != nil {
		return nil, err
	}
	if fm, ok := message(req.ProtoReflect(), "read_mask").(*fieldmaskpb.FieldMask); ok {
		mask, err := resource.ParseMask("read_mask", fm.GetPaths(), msg.ProtoReflect().Descriptor())
		if err != nil {
			return nil, err
		}
		mask.Prune(msg.ProtoReflect())
	}
	return msg, nil
}

func (m *standardMethod) list(ctx context.Context, req proto.Message) (proto.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.md.Output().FullName())
	if err != nil {
		return nil, err
	}
	resp := mt.New().Interface()
	return resp, m.List(ctx, req, resp)
}

func (m *standardMethod) create(ctx context.Context, req proto.Message) (proto.Message, error) {
	r := req.ProtoReflect()
	given := message(r, m.typ.singular)
	if given == nil {
		return nil, resource.Invalid(m.typ.singular, "%s is missing", m.typ.singular)
	}
	msg := proto.Clone(given)
	ClearOutputOnly(msg)
	return m.answer(ctx, msg, func(tx store.Tx) error {
		return m.Insert(ctx, tx, getString(r, "parent"), getString(r, m.typ.singular+"_id"), msg, stateOf(msg))
	})
}

func (m *standardMethod) update(ctx context.Context, req proto.Message) (proto.Message, error) {
	given := message(req.ProtoReflect(), m.typ.singular)
	if given == nil {
		return nil, resource.Invalid(m.typ.singular, "%s is missing", m.typ.singular)
	}
	msg := m.new()
	return m.answer(ctx, msg, func(tx store.Tx) error {
		err := m.Load(ctx, tx, getString(given.ProtoReflect(), "name"), msg)
		if resource.IsNotFound(err) && allowsMissing(req.ProtoReflect()) {
			return m.createNamed(ctx, tx, given, msg)
		}
		if err != nil {
			return err
		}
		if err := Merge(req, msg, given); err != nil {
			return err
		}
		return m.Save(ctx, tx, msg, stateOf(msg))
	})
}

// createNamed is an update with allow_missing of a resource that is not there.
func (m *standardMethod) createNamed(ctx context.Context, tx store.Tx, given, msg proto.Message) error {
	name, err := resource.ParseName(getString(given.ProtoReflect(), "name"))
	if err != nil {
		return err
	}
	proto.Merge(msg, given)
	ClearOutputOnly(msg)
	return m.Insert(ctx, tx, name.Parent().String(), name.ID(), msg, stateOf(msg))
}

func allowsMissing(req protoreflect.Message) bool {
	fd := field(req, "allow_missing", protoreflect.BoolKind)
	return fd != nil && req.Get(fd).Bool()
}

func (m *standardMethod) delete(ctx context.Context, req proto.Message) (proto.Message, error) {
	if isOperation(m.md) {
		return m.Delete(ctx, req, m.new(), nil)
	}
	r := req.ProtoReflect()
	return &emptypb.Empty{}, m.store.Update(ctx, func(tx store.Tx) error {
		return m.Remove(ctx, tx, getString(r, "name"), getString(r, "etag"), m.new())
	})
}

// answer runs the change and gives msg, or the operation with it as response.
func (m *standardMethod) answer(ctx context.Context, msg proto.Message, change func(store.Tx) error) (proto.Message, error) {
	out := msg
	err := m.store.Update(ctx, func(tx store.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		if !isOperation(m.md) {
			return nil
		}
		op, err := operation.Done(ctx, tx, getString(msg.ProtoReflect(), "name"), m.Metadata(metadataType(m.md)), msg)
		out = op
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func isOperation(md protoreflect.MethodDescriptor) bool {
	return md.Output().FullName() == "google.longrunning.Operation"
}

func metadataType(md protoreflect.MethodDescriptor) string {
	info, _ := proto.GetExtension(md.Options(), longrunningpb.E_OperationInfo).(*longrunningpb.OperationInfo)
	name := info.GetMetadataType()
	return name[strings.LastIndexByte(name, '.')+1:]
}

// stateOf is the text of the message's state field for the row's index.
func stateOf(msg proto.Message) string {
	m := msg.ProtoReflect()
	fd := field(m, "state", protoreflect.EnumKind)
	if fd == nil || !m.Has(fd) {
		return ""
	}
	if v := fd.Enum().Values().ByNumber(m.Get(fd).Enum()); v != nil {
		return string(v.Name())
	}
	return ""
}
