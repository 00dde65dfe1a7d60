package aiplatform

import (
	"tategu/internal/resource"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// Merge applies the update in given to msg, the stored resource, as req's
// update_mask says: the named paths; every field for "*"; every field that given
// fills when there is no mask (AIP-134). Fields that only the server sets stay.
// A stale etag is ABORTED, a change of an immutable field that the mask names
// INVALID_ARGUMENT.
func Merge(req, msg, given proto.Message) error {
	dst, src := msg.ProtoReflect(), given.ProtoReflect()
	if err := CheckEtag(msg, getString(src, "etag")); err != nil {
		return err
	}
	mask, err := updateMask(req, dst.Descriptor())
	if err != nil {
		return err
	}
	for _, name := range mask.Names() {
		fd := dst.Descriptor().Fields().ByName(protoreflect.Name(name))
		if behaves(fd, annotations.FieldBehavior_IMMUTABLE) && !dst.Get(fd).Equal(src.Get(fd)) {
			return resource.Invalid(name, "%s of %s cannot be changed", name, getString(dst, "name"))
		}
	}
	mask.Apply(dst, src, func(fd protoreflect.FieldDescriptor) bool {
		return serverSet(fd) || mask.Empty() && !src.Has(fd)
	})
	typ, err := typeOf(dst.Descriptor())
	if err != nil {
		return err
	}
	return checkSize(typ.singular, msg)
}

func updateMask(req proto.Message, md protoreflect.MessageDescriptor) (resource.Mask, error) {
	fm, _ := message(req.ProtoReflect(), "update_mask").(*fieldmaskpb.FieldMask)
	return resource.ParseMask("update_mask", fm.GetPaths(), md)
}

func serverSet(fd protoreflect.FieldDescriptor) bool {
	switch fd.Name() {
	case "name", "etag", "create_time", "update_time":
		return true
	}
	return outputOnly(fd) || behaves(fd, annotations.FieldBehavior_IMMUTABLE)
}
