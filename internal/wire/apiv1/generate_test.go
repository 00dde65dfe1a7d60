package apiv1

import (
	"bytes"
	"cmp"
	"flag"
	"os"
	"slices"
	"testing"

	_ "cloud.google.com/go/aiplatform/apiv1/aiplatformpb" // what the file is made of
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

var update = flag.Bool("update", false, "write the descriptors of the client library that go.mod names")

// TestUpToDate compares the packed descriptors with the library's, so that a new
// version of it cannot be taken by halves.
func TestUpToDate(t *testing.T) {
	t.Parallel()
	var set descriptorpb.FileDescriptorSet
	protoregistry.GlobalFiles.RangeFilesByPackage(Package, func(f protoreflect.FileDescriptor) bool {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
		return true
	})
	slices.SortFunc(set.File, func(a, b *descriptorpb.FileDescriptorProto) int { return cmp.Compare(a.GetName(), b.GetName()) })
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&set)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("descriptors.binpb.zst", enc.EncodeAll(want, nil), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := unpack()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the descriptors are %d bytes, those of the library %d: run make generate", len(got), len(want))
	}
}

// TestLikeGenerated holds every message of the registry against the generated one.
func TestLikeGenerated(t *testing.T) {
	t.Parallel()
	r, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	protoregistry.GlobalFiles.RangeFilesByPackage(Package, func(f protoreflect.FileDescriptor) bool {
		mine, err := r.FindFileByPath(f.Path())
		if err != nil {
			t.Errorf("%s: %v", f.Path(), err)
			return true
		}
		n++
		if got, want := protodesc.ToFileDescriptorProto(mine), protodesc.ToFileDescriptorProto(f); !proto.Equal(got, want) {
			t.Errorf("%s differs from the generated one", f.Path())
		}
		return true
	})
	if n < 100 {
		t.Errorf("%d files were compared, want more than 100", n)
	}
}

// TestReach follows the fields of a message into other files, its own and the
// well-known ones.
func TestReach(t *testing.T) {
	t.Parallel()
	r, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	mt, err := r.FindMessageByURL("type.googleapis.com/google.cloud.aiplatform.v1.Model")
	if err != nil {
		t.Fatal(err)
	}
	fields := mt.Descriptor().Fields()
	for name, want := range map[protoreflect.Name]protoreflect.FullName{
		"container_spec": "google.cloud.aiplatform.v1.ModelContainerSpec",
		"metadata":       "google.protobuf.Value",
		"create_time":    "google.protobuf.Timestamp",
	} {
		m := fields.ByName(name).Message()
		if m.FullName() != want || m.IsPlaceholder() {
			t.Errorf("%s is a %s (placeholder %v), want %s", name, m.FullName(), m.IsPlaceholder(), want)
		}
	}
	if _, err := r.FindMessageByName("google.cloud.aiplatform.v1.Nothing"); err == nil {
		t.Error("a message that is not there was found")
	}
}
