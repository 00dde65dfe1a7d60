package resource

import (
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

func executionMetadata(tb testing.TB, fields map[string]any) *structpb.Struct {
	tb.Helper()
	s, err := structpb.NewStruct(fields)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestMaskApply(t *testing.T) {
	t.Parallel()
	dst := func() *pb.Model {
		return &pb.Model{
			DisplayName: "old", Description: "old", Labels: map[string]string{"a": "1", "b": "2", "x.y": "3"},
			ContainerSpec: &pb.ModelContainerSpec{ImageUri: "old", PredictRoute: "/p"},
		}
	}
	src := &pb.Model{DisplayName: "new", Labels: map[string]string{"a": "9", "x.y": "8"}, ContainerSpec: &pb.ModelContainerSpec{ImageUri: "new"}}
	for name, tt := range map[string]struct {
		paths []string
		want  func(*pb.Model)
	}{
		"a field":         {[]string{"display_name"}, func(m *pb.Model) { m.DisplayName = "new" }},
		"camel case":      {[]string{"displayName"}, func(m *pb.Model) { m.DisplayName = "new" }},
		"clears":          {[]string{"description"}, func(m *pb.Model) { m.Description = "" }},
		"nested":          {[]string{"container_spec.image_uri"}, func(m *pb.Model) { m.ContainerSpec.ImageUri = "new" }},
		"nested clears":   {[]string{"container_spec.predict_route"}, func(m *pb.Model) { m.ContainerSpec.PredictRoute = "" }},
		"whole message":   {[]string{"container_spec"}, func(m *pb.Model) { m.ContainerSpec = &pb.ModelContainerSpec{ImageUri: "new"} }},
		"map":             {[]string{"labels"}, func(m *pb.Model) { m.Labels = map[string]string{"a": "9", "x.y": "8"} }},
		"map key":         {[]string{"labels.a"}, func(m *pb.Model) { m.Labels["a"] = "9" }},
		"map key removed": {[]string{"labels.b"}, func(m *pb.Model) { delete(m.Labels, "b") }},
		"quoted key":      {[]string{"labels.`x.y`"}, func(m *pb.Model) { m.Labels["x.y"] = "8" }},
		"absent in both":  {[]string{"explanation_spec.parameters"}, func(*pb.Model) {}},
		"star":            {[]string{"*"}, func(m *pb.Model) { proto.Reset(m); proto.Merge(m, src) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, want := dst(), dst()
			tt.want(want)
			mask, err := ParseMask("update_mask", tt.paths, got.ProtoReflect().Descriptor())
			if err != nil {
				t.Fatal(err)
			}
			mask.Apply(got.ProtoReflect(), proto.CloneOf(src).ProtoReflect(), nil)
			if !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestMaskOfStruct(t *testing.T) {
	t.Parallel()
	dst := &pb.Context{Metadata: executionMetadata(t, map[string]any{"a": 1, "b": 2})}
	src := &pb.Context{Metadata: executionMetadata(t, map[string]any{"a": 9})}
	mask, err := ParseMask("update_mask", []string{"metadata.a", "metadata.b"}, dst.ProtoReflect().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	mask.Apply(dst.ProtoReflect(), src.ProtoReflect(), nil)
	if !proto.Equal(dst, src) {
		t.Errorf("got %v", dst)
	}
}

func TestMaskPrune(t *testing.T) {
	t.Parallel()
	m := &pb.Model{Name: "n", Description: "d", Labels: map[string]string{"a": "1", "b": "2"}, ContainerSpec: &pb.ModelContainerSpec{ImageUri: "i", PredictRoute: "/p"}}
	mask, err := ParseMask("read_mask", []string{"name", "labels.a", "container_spec.image_uri"}, m.ProtoReflect().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	mask.Prune(m.ProtoReflect())
	want := &pb.Model{Name: "n", Labels: map[string]string{"a": "1"}, ContainerSpec: &pb.ModelContainerSpec{ImageUri: "i"}}
	if !proto.Equal(m, want) {
		t.Errorf("got %v", m)
	}
}

func TestMaskErrors(t *testing.T) {
	t.Parallel()
	md := (&pb.Model{}).ProtoReflect().Descriptor()
	for _, path := range []string{"nope", "container_spec.nope", "", ".", "display_name.x", "labels.a.b", "version_aliases.x", "labels.`a", "a..b"} {
		_, err := ParseMask("update_mask", []string{path}, md)
		if CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func FuzzMask(f *testing.F) {
	for _, seed := range []string{"display_name", "labels.`x.y`", "container_spec.env", "*", "a.b", "metadata", "``"} {
		f.Add(seed)
	}
	md := (&pb.Model{}).ProtoReflect().Descriptor()
	f.Fuzz(func(t *testing.T, path string) {
		mask, err := ParseMask("m", []string{path}, md)
		if err != nil {
			return
		}
		m := sampleModel(t)
		before := proto.CloneOf(m)
		mask.Apply(m.ProtoReflect(), before.ProtoReflect(), func(protoreflect.FieldDescriptor) bool { return false })
		if !proto.Equal(m, before) {
			t.Fatalf("%q: applying a message to its equal changed it", path)
		}
		mask.Prune(m.ProtoReflect())
		mask.Apply(m.ProtoReflect(), before.ProtoReflect(), nil)
		mask.Prune(before.ProtoReflect())
		if !proto.Equal(m, before) {
			t.Fatalf("%q: pruning and applying differ", path)
		}
	})
}

func TestPage(t *testing.T) {
	t.Parallel()
	for _, p := range []Page{{}, {Offset: 7}, {Created: time.Unix(5, 6).UTC(), Key: "projects/p/x"}} {
		got, err := ParsePage(p.Token("q"), "q")
		if p.Created.IsZero() {
			p.Created = time.Unix(0, 0).UTC()
		}
		if err != nil || got != p {
			t.Errorf("%+v came back as %+v, %v", p, got, err)
		}
		token := p.Token("q")
		for i := range token {
			bad := []byte(token)
			bad[i] = "AB"[btoi(bad[i] == 'A')]
			if _, err := ParsePage(string(bad), "q"); CodeOf(err) != codes.InvalidArgument {
				t.Errorf("a token changed at %d is taken: %v", i, err)
			}
		}
		if _, err := ParsePage(token, "other"); CodeOf(err) != codes.InvalidArgument {
			t.Errorf("a token of another query is taken: %v", err)
		}
	}
}

func TestPageSize(t *testing.T) {
	t.Parallel()
	for asked, want := range map[int]int{0: DefaultPageSize, 1: 1, 1000: 1000, 5000: MaxPageSize} {
		if got, err := PageSize(asked); err != nil || got != want {
			t.Errorf("PageSize(%d) = %d, %v", asked, got, err)
		}
	}
	if _, err := PageSize(-1); CodeOf(err) != codes.InvalidArgument {
		t.Errorf("negative: %v", err)
	}
}

func FuzzPage(f *testing.F) {
	f.Add(Page{Offset: 3, Key: "k"}.Token("q"), "q")
	f.Add("", "")
	f.Add("AAAA", "x")
	f.Fuzz(func(t *testing.T, token, query string) {
		p, err := ParsePage(token, query)
		if err != nil {
			return
		}
		if p.Token(query) != token {
			t.Fatalf("%q is read as %+v, which writes %q", token, p, p.Token(query))
		}
	})
}

func TestName(t *testing.T) {
	t.Parallel()
	n, err := ParseName("projects/p/locations/l/models/m@v1")
	if err != nil {
		t.Fatal(err)
	}
	if n.String() != "projects/p/locations/l/models/m" || n.Version != "v1" || n.Collection() != "models" || n.ID() != "m" ||
		n.Project() != "p" || n.Location() != "l" || n.Parent().String() != "projects/p/locations/l" || n.Child("a", "b").Get("a") != "b" {
		t.Errorf("name = %+v", n)
	}
	for _, bad := range []string{"", "a", "a//b/c", "/a", "projects/p/", "projects/p@v/locations/l"} {
		if _, err := ParseName(bad); CodeOf(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if a, b := NewID(), NewID(); a == b || len(a) != 19 {
		t.Errorf("ids %s and %s", a, b)
	}
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"projects/p/locations/l/models/m@v1", "a/b", "a/b@", "@", "a/@", "a@b/c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			return
		}
		again, err := ParseName(n.String())
		if err != nil || again.String() != n.String() || n.Parent().Child(n.Collection(), n.ID()).String() != n.String() {
			t.Fatalf("%q is read as %q, which is read as %q, %v", s, n, again, err)
		}
	})
}
