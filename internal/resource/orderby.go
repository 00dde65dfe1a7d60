package resource

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

const maxOrderKeys = 16

// OrderBy is a checked AIP-132 order: "create_time desc, display_name".
type OrderBy struct{ keys []orderKey }

type orderKey struct {
	path valuePath
	desc bool
}

// ParseOrderBy checks text against the fields of a message.
func ParseOrderBy(text string, s Schema) (OrderBy, error) {
	var o OrderBy
	if strings.TrimSpace(text) == "" {
		return o, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		words := strings.Fields(part)
		if len(words) == 0 || len(words) > 2 || len(o.keys) == maxOrderKeys {
			return o, Invalid("order_by", "order_by: %q is not FIELD, FIELD desc or a list of at most %d of them", part, maxOrderKeys)
		}
		key := orderKey{}
		if len(words) == 2 {
			switch strings.ToLower(words[1]) {
			case "asc":
			case "desc":
				key.desc = true
			default:
				return o, Invalid("order_by", "order_by: %q must be asc or desc", words[1])
			}
		}
		segments, err := splitPath(words[0])
		if err != nil {
			return o, Invalid("order_by", "order_by: %q: %w", words[0], err)
		}
		if key.path, err = s.find(segments); err != nil {
			return o, Invalid("order_by", "order_by: %w", err)
		}
		if leaf := key.path.leaf; leaf != nil && !sortable(key.path) {
			return o, Invalid("order_by", "order_by: %q has no order", words[0])
		}
		o.keys = append(o.keys, key)
	}
	return o, nil
}

// Empty reports that no order was asked for.
func (o OrderBy) Empty() bool { return len(o.keys) == 0 }

// Compare orders two messages as slices.SortFunc wants; 0 when no key tells them apart.
func (o OrderBy) Compare(a, b protoreflect.Message) int {
	for _, k := range o.keys {
		c := compareValues(k.path.first(a), k.path.first(b), k.path.leaf)
		if k.desc {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func sortable(p valuePath) bool {
	if slices.ContainsFunc(p.steps, func(s step) bool { return s.fd != nil && s.fd.IsList() }) {
		return false
	}
	fd := p.leaf
	if fd.IsMap() || fd.Kind() == protoreflect.BytesKind {
		return false
	}
	if fd.Message() == nil {
		return true
	}
	name := fd.Message().FullName()
	return name == "google.protobuf.Timestamp" || name == "google.protobuf.Duration"
}

func (p valuePath) first(m protoreflect.Message) protoreflect.Value {
	var out protoreflect.Value
	p.visit(m, func(v protoreflect.Value) bool {
		out = v
		return true
	})
	return out
}

// compareValues puts missing values first.
func compareValues(a, b protoreflect.Value, fd protoreflect.FieldDescriptor) int {
	if !a.IsValid() || !b.IsValid() {
		return cmp.Compare(btoi(a.IsValid()), btoi(b.IsValid()))
	}
	if fd == nil {
		return compareDynamic(dynamicValue(a.Message()), dynamicValue(b.Message()))
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return strings.Compare(a.String(), b.String())
	case protoreflect.BoolKind:
		return cmp.Compare(btoi(a.Bool()), btoi(b.Bool()))
	case protoreflect.EnumKind:
		return cmp.Compare(a.Enum(), b.Enum())
	case protoreflect.MessageKind:
		as, an := secondsOf(a.Message())
		bs, bn := secondsOf(b.Message())
		return cmp.Or(cmp.Compare(as, bs), cmp.Compare(an, bn))
	default:
		return cmp.Compare(number(a), number(b))
	}
}

// compareDynamic orders values of one type by value, else by type.
func compareDynamic(a, b *structpb.Value) int {
	rank := func(v *structpb.Value) int {
		switch v.GetKind().(type) {
		case *structpb.Value_BoolValue:
			return 1
		case *structpb.Value_NumberValue:
			return 2
		case *structpb.Value_StringValue:
			return 3
		default:
			return 0
		}
	}
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		cmp.Compare(btoi(a.GetBoolValue()), btoi(b.GetBoolValue())),
		cmp.Compare(a.GetNumberValue(), b.GetNumberValue()),
		strings.Compare(a.GetStringValue(), b.GetStringValue()),
	)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
