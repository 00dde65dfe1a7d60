package aiplatform

import (
	"strings"
	"testing"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/store"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// TestEveryMethod sends what a careless client could: nothing, and names and
// messages that are there but empty of sense.
func TestEveryMethod(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, name := range s.table.Names() {
		t.Run(name[strings.LastIndexByte(name, '/')+1:], func(t *testing.T) {
			t.Parallel()
			m, _ := s.table.Lookup(name)
			if _, known := identity.RoleFor(m.Permission); !known {
				t.Errorf("no role has the permission %s", m.Permission)
			}
			d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.Replace(name, "/", ".", 1)))
			if err != nil {
				t.Fatal(err)
			}
			md := d.(protoreflect.MethodDescriptor)
			mt, err := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			for _, req := range []proto.Message{mt.New().Interface(), careless(mt.New()).Interface()} {
				resp, err := m.Unary(t.Context(), req)
				switch code := resource.CodeOf(err); code {
				case codes.OK:
					if got := resp.ProtoReflect().Descriptor(); got != md.Output() {
						t.Errorf("answers %s, not %s", got.FullName(), md.Output().FullName())
					}
				case codes.InvalidArgument, codes.NotFound:
				default:
					t.Errorf("%v gives %v: %v", req, code, err)
				}
			}
		})
	}
}

// careless fills texts with a name of nothing and messages with empty ones.
func careless(m protoreflect.Message) protoreflect.Message {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch fd := fields.Get(i); {
		case fd.IsList() || fd.IsMap():
		case fd.Kind() == protoreflect.StringKind && !strings.HasSuffix(string(fd.Name()), "_token"):
			m.Set(fd, protoreflect.ValueOfString("projects/p/locations/-"))
		case fd.Kind() == protoreflect.MessageKind:
			m.Mutable(fd)
		}
	}
	return m
}

func TestMethodsAreStandardOnes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, tt := range [][2]string{
		{"NoService", "GetThing"}, {"ModelService", "GetThing"}, {"ModelService", "UploadModel"}, {"ModelService", "DeployModel"},
	} {
		if _, err := s.std.Methods(tt[0], tt[1]); err == nil {
			t.Errorf("%s.%s was taken for a standard method", tt[0], tt[1])
		}
	}
	methods, err := s.std.Methods("TensorboardService", "CreateTensorboard", "ListTensorboards")
	if err != nil {
		t.Fatal(err)
	}
	if p := methods[0].Permission; p != "aiplatform.tensorboards.create" {
		t.Errorf("permission = %s", p)
	}
}

func TestBuildingBlocks(t *testing.T) {
	t.Parallel()
	s, ctx := newServer(t), t.Context()
	job := &pb.CustomJob{DisplayName: "j", Error: nil, State: pb.JobState_JOB_STATE_QUEUED, WebAccessUris: map[string]string{"a": "b"}}
	ClearOutputOnly(job)
	if job.State != 0 || len(job.WebAccessUris) != 0 || job.DisplayName != "j" {
		t.Errorf("after clearing: %v", job)
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		return s.std.Insert(ctx, tx, location, "7", job, "QUEUED")
	})
	if err != nil || job.Name != location+"/customJobs/7" || job.CreateTime == nil || job.UpdateTime == nil {
		t.Fatalf("insert = %v, %v", job, err)
	}
	rows, err := s.store.List(ctx, store.Query{Kind: resource.KindCustomJobs, Parent: location, States: []string{"QUEUED"}})
	if err != nil || len(rows) != 1 || rows[0].Key != job.Name {
		t.Fatalf("rows = %v, %v", rows, err)
	}
	if err := s.std.Load(ctx, s.store, location+"/pipelineJobs/7", &pb.CustomJob{}); resource.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("a name of another collection: %v", err)
	}
	if err := s.std.Load(ctx, s.store, location+"/customJobs/8", &pb.CustomJob{}); !resource.IsNotFound(err) || !strings.Contains(err.Error(), "customJobs/8") {
		t.Errorf("missing: %v", err)
	}
}

func TestMergeKeepsWhatTheServerSets(t *testing.T) {
	t.Parallel()
	stored := &pb.Endpoint{Name: "n", DisplayName: "old", Description: "d", DedicatedEndpointDns: "x", Network: "net"}
	given := &pb.Endpoint{Name: "other", DisplayName: "new", DedicatedEndpointDns: "evil"}
	for name, tt := range map[string]struct {
		paths []string
		want  *pb.Endpoint
	}{
		"star":    {[]string{"*"}, &pb.Endpoint{Name: "n", DisplayName: "new", DedicatedEndpointDns: "x"}},
		"nothing": {nil, &pb.Endpoint{Name: "n", DisplayName: "new", Description: "d", DedicatedEndpointDns: "x", Network: "net"}},
		"named":   {[]string{"dedicated_endpoint_dns", "name"}, &pb.Endpoint{Name: "n", DisplayName: "old", Description: "d", DedicatedEndpointDns: "x", Network: "net"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := proto.CloneOf(stored)
			if err := Merge(&pb.UpdateEndpointRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: tt.paths}}, got, given); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, tt.want) {
				t.Errorf("got %v", got)
			}
		})
	}
}
