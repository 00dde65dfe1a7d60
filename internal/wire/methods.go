package wire

import (
	"fmt"
	"strings"

	// The descriptors of every service that clients may ask for: a method that is
	// not in the table must still be known by name to be refused by name.
	_ "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	_ "cloud.google.com/go/iam/admin/apiv1/adminpb"
	_ "cloud.google.com/go/iam/apiv1/iampb"
	_ "cloud.google.com/go/iam/credentials/apiv1/credentialspb"
	_ "cloud.google.com/go/longrunning/autogen/longrunningpb"
	_ "cloud.google.com/go/resourcemanager/apiv3/resourcemanagerpb"
	_ "google.golang.org/genproto/googleapis/cloud/location"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tategu/internal/api"
	"tategu/internal/resource"
	"tategu/internal/wire/apiv1"
)

const (
	packageV1      = apiv1.Package
	packageV1beta1 = "google.cloud.aiplatform.v1beta1"
)

// method is one callable method of one API version.
type method struct {
	name    string // as called: google.cloud.aiplatform.v1.ModelService/GetModel
	version string // resource.V1, resource.V1beta1, or "" for unversioned services
	desc    protoreflect.MethodDescriptor
	in, out protoreflect.MessageType // as called
	// The rest is set only when the table lists the method.
	listed  bool
	api     api.Method
	request protoreflect.MessageType // what the handler takes
	direct  bool                     // JSON of in is read as request, which has all that in has
	fields  *requestPlan
	well    wellMetrics // of the JSON form
}

// methods knows every method of the services we speak, listed or not.
type methods struct {
	types    *apiv1.Registry
	byName   map[string]*method
	planners map[string]planner // by version
}

func newMethods(table *api.Table) (*methods, error) {
	types, err := apiv1.Load()
	if err != nil {
		return nil, err
	}
	ms := &methods{types: types, byName: map[string]*method{}, planners: map[string]planner{
		"": newPlanner(), resource.V1: newPlanner(), resource.V1beta1: newPlanner(),
	}}
	services := map[string]bool{
		"google.longrunning.Operations": true, "google.cloud.location.Locations": true,
		"google.iam.v1.IAMPolicy": true, "google.cloud.resourcemanager.v3.Projects": true,
		"google.iam.admin.v1.IAM": true, "google.iam.credentials.v1.IAMCredentials": true,
	}
	types.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if f.Package() == packageV1 || f.Package() == packageV1beta1 {
			for i := range f.Services().Len() {
				services[string(f.Services().Get(i).FullName())] = true
			}
		}
		return true
	})
	for _, name := range table.Names() {
		service, _, _ := strings.Cut(name, "/")
		services[service] = true
	}
	for service := range services {
		if err := ms.addService(service, table); err != nil {
			return nil, err
		}
	}
	for _, name := range table.Names() {
		if ms.byName[name] == nil {
			return nil, fmt.Errorf("the table lists %s, which no descriptor knows", name)
		}
	}
	return ms, nil
}

func (ms *methods) addService(name string, table *api.Table) error {
	d, err := ms.types.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	service, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return fmt.Errorf("%s is no service", name)
	}
	for i := range service.Methods().Len() {
		m, err := ms.newMethod(service.Methods().Get(i), table)
		if err != nil {
			return err
		}
		ms.byName[m.name] = m
	}
	return nil
}

func (ms *methods) newMethod(desc protoreflect.MethodDescriptor, table *api.Table) (*method, error) {
	m := &method{name: string(desc.Parent().FullName()) + "/" + string(desc.Name()), desc: desc}
	var err error
	if m.in, err = ms.messageType(desc.Input()); err != nil {
		return nil, err
	}
	if m.out, err = ms.messageType(desc.Output()); err != nil {
		return nil, err
	}
	stored := m.name
	switch desc.ParentFile().Package() {
	case packageV1:
		m.version = resource.V1
		stored = packageV1beta1 + strings.TrimPrefix(m.name, packageV1)
	case packageV1beta1:
		m.version = resource.V1beta1
	}
	if m.api, m.listed = table.Lookup(stored); !m.listed {
		return m, nil
	}
	if desc.IsStreamingClient() {
		return nil, fmt.Errorf("the table lists %s, whose requests are a stream: not possible yet", m.name)
	}
	if desc.IsStreamingServer() != (m.api.Stream != nil) {
		return nil, fmt.Errorf("the table's handler of %s does not fit its descriptor: one streams and one does not", m.name)
	}
	request := desc.Input()
	if m.version == resource.V1 {
		d, err := ms.types.FindDescriptorByName(protoreflect.FullName(strings.Replace(stored, "/", ".", 1)))
		if err != nil {
			return nil, fmt.Errorf("method %s: %w", stored, err)
		}
		if beta, ok := d.(protoreflect.MethodDescriptor); ok {
			request = beta.Input()
		}
	}
	if m.request, err = ms.messageType(request); err != nil {
		return nil, err
	}
	m.direct = covers(m.request.Descriptor(), m.in.Descriptor(), map[protoreflect.FullName]bool{})
	m.fields, err = ms.planners[m.version].request(m)
	return m, err
}

// covers reports that JSON of a v1 message can be read as the v1beta1 message d: every
// field and every name of an enum is there. Of all messages only those of models and
// some lists are not so.
func covers(d, called protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if d == called || seen[called.FullName()] || called.ParentFile().Package() != packageV1 && !called.IsMapEntry() {
		return true
	}
	seen[called.FullName()] = true
	for i := range called.Fields().Len() {
		if !fieldCovers(d.Fields().ByNumber(called.Fields().Get(i).Number()), called.Fields().Get(i), seen) {
			return false
		}
	}
	return true
}

func fieldCovers(f, called protoreflect.FieldDescriptor, seen map[protoreflect.FullName]bool) bool {
	if f == nil || f.Name() != called.Name() || f.Kind() != called.Kind() || f.Cardinality() != called.Cardinality() {
		return false
	}
	if e := called.Enum(); e != nil {
		for i := range e.Values().Len() {
			v := e.Values().Get(i)
			if have := f.Enum().Values().ByName(v.Name()); have == nil || have.Number() != v.Number() {
				return false
			}
		}
	}
	return called.Message() == nil || covers(f.Message(), called.Message(), seen)
}

// newRequest is an empty message for JSON to be read into.
func (m *method) newRequest() protoreflect.Message {
	if m.direct {
		return m.request.New()
	}
	return m.in.New()
}

// prune clears what is not in d, which is the message as the caller's version has it:
// fields that it does not know are left out, as everywhere.
func prune(m protoreflect.Message, d protoreflect.MessageDescriptor) {
	if m.Descriptor() == d {
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		called := d.Fields().ByNumber(f.Number())
		if called == nil {
			m.Clear(f)
			return true
		}
		each(f, v, called, func(m protoreflect.Message, d protoreflect.MessageDescriptor) bool {
			prune(m, d)
			return true
		})
		return true
	})
}

func (ms *methods) messageType(d protoreflect.MessageDescriptor) (protoreflect.MessageType, error) {
	t, err := ms.types.FindMessageByName(d.FullName())
	if err != nil {
		return nil, fmt.Errorf("message %s: %w", d.FullName(), err)
	}
	return t, nil
}

// convert gives m as type to; the API versions share field numbers, so that
// bytes of one are bytes of the other.
func convert(m proto.Message, to protoreflect.MessageType) (proto.Message, error) {
	if m.ProtoReflect().Descriptor().FullName() == to.Descriptor().FullName() {
		return m, nil
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	out := to.New().Interface()
	if err := proto.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("convert to %s: %w", to.Descriptor().FullName(), err)
	}
	return out, nil
}

// answerAs gives m for the JSON of type to. A message of v1beta1 that says nothing
// but what v1 knows has the same JSON in both, and is not converted: of a list of
// pipeline jobs that would be most of the work.
func answerAs(m proto.Message, to protoreflect.MessageType) (proto.Message, error) {
	if r := m.ProtoReflect(); r.Descriptor().ParentFile().Package() == packageV1beta1 && fits(r, to.Descriptor()) {
		return m, nil
	}
	return convert(m, to)
}

// fits reports that every field that is set in m is one of d.
func fits(m protoreflect.Message, d protoreflect.MessageDescriptor) bool {
	if len(m.GetUnknown()) > 0 {
		return false // v1 has a few fields that v1beta1 lacks
	}
	ok := true
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		ok = fieldFits(f, v, d.Fields().ByNumber(f.Number()))
		return ok
	})
	return ok
}

func fieldFits(f protoreflect.FieldDescriptor, v protoreflect.Value, called protoreflect.FieldDescriptor) bool {
	return called != nil && each(f, v, called, fits)
}

// each calls do with the messages of v1 in a field, until it gives false.
func each(f protoreflect.FieldDescriptor, v protoreflect.Value, called protoreflect.FieldDescriptor, do func(protoreflect.Message, protoreflect.MessageDescriptor) bool) bool {
	d := called.Message()
	if f.IsMap() {
		d = called.MapValue().Message()
	}
	if d == nil || d.ParentFile().Package() != packageV1 {
		return true
	}
	ok := true
	switch {
	case f.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			ok = do(v.Message(), d)
			return ok
		})
	case f.IsList():
		for i := range v.List().Len() {
			if ok = do(v.List().Get(i).Message(), d); !ok {
				break
			}
		}
	default:
		ok = do(v.Message(), d)
	}
	return ok
}
