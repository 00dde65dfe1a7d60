package wire

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// requestPlan is what the annotations say of one method's request, worked out
// once: google.api.field_behavior, google.api.resource_reference and the fields
// that the HTTP paths bind.
type requestPlan struct {
	root  *messagePlan
	bound [][]protoreflect.FieldDescriptor // resource names, the first that is set counts
	// partial requests (those with an update mask) carry a part of their resource,
	// so that REQUIRED means nothing below the top level.
	partial bool
	clears  bool // OUTPUT_ONLY fields are dropped from what the caller sent
}

// messagePlan is the part of one message type.
type messagePlan struct {
	required []protoreflect.FieldDescriptor
	output   []protoreflect.FieldDescriptor
	names    []protoreflect.FieldDescriptor // strings that may hold resource names
	nested   []nestedPlan
	useful   bool
}

type nestedPlan struct {
	field protoreflect.FieldDescriptor
	plan  *messagePlan
}

// planner shares plans among the methods of one API version.
type planner struct {
	plans map[protoreflect.FullName]*messagePlan
}

func newPlanner() planner { return planner{plans: map[protoreflect.FullName]*messagePlan{}} }

func (pl planner) request(m *method) (*requestPlan, error) {
	d := m.request.Descriptor()
	root := pl.plan(d, m.in.Descriptor())
	pl.prune()
	top := *root // the request's own strings are all taken for names
	top.names = nil
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); f.Kind() == protoreflect.StringKind && !f.IsMap() {
			top.names = append(top.names, f)
		}
	}
	p := &requestPlan{root: &top, partial: d.Fields().ByName("update_mask") != nil, clears: m.api.Mutates()}
	for _, field := range boundFields(m) {
		path, err := fieldPath(d, field)
		if err != nil {
			return nil, fmt.Errorf("method %s: %w", m.name, err)
		}
		p.bound = append(p.bound, path)
	}
	return p, nil
}

// boundFields are the fields that the paths bind, in the order of the bindings.
func boundFields(m *method) []string {
	var fields []string
	add := func(path string) {
		t, err := parseTemplate(path)
		if err != nil || len(t.vars) == 0 {
			return // the router reports bad templates
		}
		if f := t.vars[0].field; !slices.Contains(fields, f) {
			fields = append(fields, f)
		}
	}
	rule, _ := proto.GetExtension(m.desc.Options(), annotations.E_Http).(*annotations.HttpRule)
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		for _, path := range []string{r.GetGet(), r.GetPost(), r.GetPut(), r.GetPatch(), r.GetDelete(), r.GetCustom().GetPath()} {
			if path != "" {
				add(path)
			}
		}
	}
	for _, name := range []string{"name", "parent", "endpoint", "resource"} { // methods without a rule
		if f := m.in.Descriptor().Fields().ByName(protoreflect.Name(name)); len(fields) == 0 && f != nil && f.Kind() == protoreflect.StringKind {
			fields = append(fields, name)
		}
	}
	return fields
}

// plan builds the plan of d. called is the message of the version that the
// caller speaks: what v1beta1 alone requires, a v1 caller cannot know.
func (pl planner) plan(d, called protoreflect.MessageDescriptor) *messagePlan {
	if have := pl.plans[d.FullName()]; have != nil {
		return have
	}
	p := &messagePlan{}
	pl.plans[d.FullName()] = p
	isResource := proto.HasExtension(d.Options(), annotations.E_Resource)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		name := f.Name() == "name" && isResource
		asCalled := called.Fields().ByNumber(f.Number())
		if has(f, annotations.FieldBehavior_REQUIRED) && asCalled != nil && has(asCalled, annotations.FieldBehavior_REQUIRED) && canBeMissed(f) {
			p.required = append(p.required, f)
		}
		if has(f, annotations.FieldBehavior_OUTPUT_ONLY) && !name { // an update finds its resource by the name
			p.output = append(p.output, f)
		}
		switch {
		case f.Kind() == protoreflect.StringKind && !f.IsMap() && (name || refersToUs(f)):
			p.names = append(p.names, f)
		case f.Message() != nil:
			of, ofCalled := f, asCalled
			if f.IsMap() {
				of = f.MapValue()
				if asCalled != nil {
					ofCalled = asCalled.MapValue()
				}
			}
			if of.Message() == nil {
				continue
			}
			calledMessage := of.Message()
			if ofCalled != nil && ofCalled.Message() != nil {
				calledMessage = ofCalled.Message()
			}
			p.nested = append(p.nested, nestedPlan{field: f, plan: pl.plan(of.Message(), calledMessage)})
		}
	}
	return p
}

// prune drops the branches that hold nothing to do, such as all of Struct.
func (pl planner) prune() {
	for changed := true; changed; {
		changed = false
		for _, p := range pl.plans {
			if !p.useful && (len(p.required)+len(p.output)+len(p.names) > 0 ||
				slices.ContainsFunc(p.nested, func(n nestedPlan) bool { return n.plan.useful })) {
				p.useful, changed = true, true
			}
		}
	}
	for _, p := range pl.plans {
		p.nested = slices.DeleteFunc(p.nested, func(n nestedPlan) bool { return !n.plan.useful })
	}
}

func has(f protoreflect.FieldDescriptor, want annotations.FieldBehavior) bool {
	behaviors, _ := proto.GetExtension(f.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behaviors, want)
}

// canBeMissed: a zero number or false may be meant, and proto3 cannot tell.
func canBeMissed(f protoreflect.FieldDescriptor) bool {
	switch f.FullName() {
	case "google.cloud.aiplatform.v1beta1.IndexDatapoint.datapoint_id", "google.cloud.aiplatform.v1beta1.IndexDatapoint.feature_vector":
		// Queries have one of both, or neither (sparse); upserts look themselves.
		return false
	case "google.cloud.aiplatform.v1beta1.DeployedIndex.index":
		// The SDK leaves it out of mutate_deployed_index; deploy looks itself.
		return false
	case "google.cloud.aiplatform.v1beta1.BigQueryDestination.output_uri":
		// The log of requests documents a default, and the SDK sends an empty one then
		// (google-cloud-aiplatform 2.7.0, models.py, Endpoint.create).
		return false
	}
	if f.IsList() || f.IsMap() || f.HasPresence() {
		return true
	}
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind:
		return true
	default:
		return false
	}
}

// refersToUs: names of networks and keys carry foreign project numbers.
func refersToUs(f protoreflect.FieldDescriptor) bool {
	ref, _ := proto.GetExtension(f.Options(), annotations.E_ResourceReference).(*annotations.ResourceReference)
	for _, t := range []string{ref.GetType(), ref.GetChildType()} {
		service, _, _ := strings.Cut(t, "/")
		switch service {
		case "*", "aiplatform.googleapis.com", "locations.googleapis.com", "cloudresourcemanager.googleapis.com":
			return true
		}
	}
	return false
}

// fieldPath resolves a dotted path of field names, JSON names included.
func fieldPath(d protoreflect.MessageDescriptor, path string) ([]protoreflect.FieldDescriptor, error) {
	var fields []protoreflect.FieldDescriptor
	for part := range strings.SplitSeq(path, ".") {
		if d == nil {
			return nil, fmt.Errorf("field %q goes through a scalar", path)
		}
		f := d.Fields().ByName(protoreflect.Name(part))
		if f == nil {
			f = d.Fields().ByJSONName(part)
		}
		if f == nil {
			return nil, fmt.Errorf("field %q is unknown", path)
		}
		fields = append(fields, f)
		d = nil
		if !f.IsList() && !f.IsMap() {
			d = f.Message()
		}
	}
	return fields, nil
}

// resource gives the name that the request is about, "" if there is none.
func (p *requestPlan) resource(m protoreflect.Message) string {
	for _, path := range p.bound {
		at := m
		for _, f := range path[:len(path)-1] {
			at = at.Get(f).Message()
		}
		if last := path[len(path)-1]; last.Kind() == protoreflect.StringKind && !last.IsList() {
			if name := at.Get(last).String(); name != "" {
				return name
			}
		}
	}
	return ""
}

// eachName calls rewrite with every value that may be a resource name and keeps
// what it gives back.
func (p *requestPlan) eachName(m protoreflect.Message, rewrite func(string) (string, error)) error {
	return p.root.walk(m, nil, func(m protoreflect.Message, plan *messagePlan, _ []string) error {
		for _, f := range plan.names {
			if !m.Has(f) {
				continue
			}
			if err := rewriteField(m, f, rewrite); err != nil {
				return err
			}
		}
		return nil
	})
}

func rewriteField(m protoreflect.Message, f protoreflect.FieldDescriptor, rewrite func(string) (string, error)) error {
	if !f.IsList() {
		was := m.Get(f).String()
		now, err := rewrite(was)
		if err == nil && now != was {
			m.Set(f, protoreflect.ValueOfString(now))
		}
		return err
	}
	list := m.Mutable(f).List()
	for i := range list.Len() {
		now, err := rewrite(list.Get(i).String())
		if err != nil {
			return err
		}
		list.Set(i, protoreflect.ValueOfString(now))
	}
	return nil
}

// check reports REQUIRED fields that are missing, all at once, and drops
// OUTPUT_ONLY fields.
func (p *requestPlan) check(m protoreflect.Message) error {
	var missing []string
	err := p.root.walk(m, nil, func(m protoreflect.Message, plan *messagePlan, path []string) error {
		if len(path) == 0 || !p.partial {
			for _, f := range plan.required {
				if !m.Has(f) {
					missing = append(missing, strings.Join(append(slices.Clone(path), string(f.Name())), "."))
				}
			}
		}
		if p.clears {
			for _, f := range plan.output {
				m.Clear(f)
			}
		}
		return nil
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	return missingFields(missing)
}

func missingFields(missing []string) error {
	slices.Sort(missing)
	bad := &errdetails.BadRequest{}
	for _, f := range missing {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f, Description: "this field is required"})
	}
	st, err := status.New(codes.InvalidArgument, "required fields are missing: "+strings.Join(missing, ", ")).WithDetails(bad)
	if err != nil {
		return fmt.Errorf("describe missing fields: %w", err)
	}
	return st.Err()
}

// walk visits m and the messages in it that have a plan.
func (p *messagePlan) walk(m protoreflect.Message, path []string, visit func(protoreflect.Message, *messagePlan, []string) error) error {
	if err := visit(m, p, path); err != nil {
		return err
	}
	for _, n := range p.nested {
		if !m.Has(n.field) {
			continue
		}
		below := append(path, string(n.field.Name())) //nolint:gocritic // siblings never see each other's tail
		var err error
		switch v := m.Get(n.field); {
		case n.field.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				err = n.plan.walk(v.Message(), below, visit)
				return err == nil
			})
		case n.field.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = n.plan.walk(v.List().Get(i).Message(), below, visit)
			}
		default:
			err = n.plan.walk(v.Message(), below, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
