package resource

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Mask is a checked set of field paths of one message type. The zero value and a
// mask made from "*" stand for the whole message.
type Mask struct {
	paths []maskPath
	all   bool
}

// maskPath is a chain of fields; key ends it inside a map or a Struct.
type maskPath struct {
	fields []protoreflect.FieldDescriptor
	key    string
	hasKey bool
}

// ParseMask resolves paths (AIP-161: snake or camel case, nested with dots, map
// keys as the last segment, in backquotes when they hold dots; "*" = everything)
// against md. param names the request field in errors.
func ParseMask(param string, paths []string, md protoreflect.MessageDescriptor) (Mask, error) {
	var m Mask
	for _, p := range paths {
		if p == "*" {
			m.all = true
			continue
		}
		resolved, err := resolvePath(param, p, md)
		if err != nil {
			return Mask{}, err
		}
		m.paths = append(m.paths, resolved)
	}
	return m, nil
}

// Whole reports a mask that names everything or nothing.
func (m Mask) Whole() bool { return m.all || len(m.paths) == 0 }

// Empty reports a mask without any path, which some methods treat apart from "*".
func (m Mask) Empty() bool { return !m.all && len(m.paths) == 0 }

// Names lists the top-level fields that the mask touches; nil for a whole mask.
func (m Mask) Names() []string {
	if m.Whole() {
		return nil
	}
	var names []string
	for _, p := range m.paths {
		if n := string(p.fields[0].Name()); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// Apply copies the masked fields of src into dst, clearing those that src lacks;
// a whole mask replaces every field. skip keeps fields of dst as they are.
func (m Mask) Apply(dst, src protoreflect.Message, skip func(protoreflect.FieldDescriptor) bool) {
	if !m.Whole() {
		for _, p := range m.paths {
			if skip == nil || !skip(p.fields[0]) {
				p.copy(dst, src)
			}
		}
		return
	}
	fields := dst.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); skip == nil || !skip(fd) {
			copyField(dst, src, fd)
		}
	}
}

// Prune clears every field of msg that the mask does not name.
func (m Mask) Prune(msg protoreflect.Message) {
	if m.Whole() {
		return
	}
	kept := msg.New()
	for _, p := range m.paths {
		p.copy(kept, msg)
	}
	var drop []protoreflect.FieldDescriptor
	msg.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		drop = append(drop, fd)
		return true
	})
	for _, fd := range drop {
		msg.Clear(fd)
	}
	kept.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		msg.Set(fd, v)
		return true
	})
}

func (p maskPath) copy(dst, src protoreflect.Message) {
	last := p.fields[len(p.fields)-1]
	for _, fd := range p.fields[:len(p.fields)-1] {
		if !src.Has(fd) && !dst.Has(fd) {
			return
		}
		src, dst = src.Get(fd).Message(), dst.Mutable(fd).Message()
	}
	if !p.hasKey {
		copyField(dst, src, last)
		return
	}
	key := protoreflect.ValueOfString(p.key).MapKey()
	v := src.Get(last).Map().Get(key)
	switch {
	case v.IsValid():
		dst.Mutable(last).Map().Set(key, v)
	case dst.Has(last):
		dst.Mutable(last).Map().Clear(key)
	}
}

func copyField(dst, src protoreflect.Message, fd protoreflect.FieldDescriptor) {
	if src.Has(fd) {
		dst.Set(fd, src.Get(fd))
		return
	}
	dst.Clear(fd)
}

func resolvePath(param, path string, md protoreflect.MessageDescriptor) (maskPath, error) {
	segments, err := splitPath(path)
	if err != nil {
		return maskPath{}, Invalid(param, "%s: %q: %w", param, path, err)
	}
	var p maskPath
	for i, seg := range segments {
		fd := FieldByName(md, seg)
		if fd == nil {
			return maskPath{}, Invalid(param, "%s: %q is not a field of %s", param, path, md.Name())
		}
		p.fields = append(p.fields, fd)
		rest := segments[i+1:]
		switch {
		case len(rest) == 0:
			return p, nil
		case fd.IsMap() && fd.MapKey().Kind() == protoreflect.StringKind && len(rest) == 1:
			p.key, p.hasKey = rest[0], true
			return p, nil
		case isStruct(fd) && len(rest) == 1:
			p.fields = append(p.fields, fd.Message().Fields().ByName("fields"))
			p.key, p.hasKey = rest[0], true
			return p, nil
		case fd.Message() == nil || fd.IsList() || fd.IsMap():
			return maskPath{}, Invalid(param, "%s: %q goes below %q, which has no fields", param, path, seg)
		}
		md = fd.Message()
	}
	return p, nil
}

func isStruct(fd protoreflect.FieldDescriptor) bool {
	return !fd.IsMap() && fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Struct"
}

// FieldByName finds a field by its proto name or its JSON name.
func FieldByName(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByName(protoreflect.Name(name)); fd != nil {
		return fd
	}
	return md.Fields().ByJSONName(name)
}

// splitPath cuts a path at its dots; a segment in backquotes may hold dots.
func splitPath(path string) ([]string, error) {
	var segments []string
	for rest := path; ; {
		if quoted, ok := strings.CutPrefix(rest, "`"); ok {
			seg, after, closed := strings.Cut(quoted, "`")
			if !closed || after != "" && after[0] != '.' {
				return nil, errUnbalanced
			}
			segments = append(segments, seg)
			if after == "" {
				return segments, nil
			}
			rest = after[1:]
			continue
		}
		seg, after, more := strings.Cut(rest, ".")
		if seg == "" {
			return nil, errEmptySegment
		}
		segments = append(segments, seg)
		if !more {
			return segments, nil
		}
		rest = after
	}
}
