package wire

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	v1 "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"tategu/internal/api"
	"tategu/internal/resource"
	"tategu/internal/wire/apiv1"
)

// everything lists each method that both versions have and the table could hold.
func everything(t *testing.T) *api.Table {
	t.Helper()
	empty, err := api.NewTable()
	if err != nil {
		t.Fatal(err)
	}
	ms, err := newMethods(empty)
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("not called here")
	var all []api.Method
	for name, m := range ms.byName {
		if m.version == resource.V1 || m.desc.IsStreamingClient() {
			continue
		}
		am := api.Method{Name: name, Permission: "x.y.z"}
		if m.desc.IsStreamingServer() {
			am.Stream = func(context.Context, proto.Message, func(proto.Message) error) error { return failed }
		} else {
			am.Unary = func(context.Context, proto.Message) (proto.Message, error) { return nil, failed }
		}
		all = append(all, am)
	}
	table, err := api.NewTable(all)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestEveryMethod builds the routes and plans of all services: no two bindings
// meet, every method of v1 finds its v1beta1 handler, and every binding finds
// the way back to its method.
func TestEveryMethod(t *testing.T) {
	t.Parallel()
	ms, err := newMethods(everything(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRouter(ms)
	if err != nil {
		t.Fatal(err)
	}
	if r.count < 900 {
		t.Errorf("only %d routes", r.count)
	}
	for name, m := range ms.byName {
		rule, _ := proto.GetExtension(m.desc.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !m.listed {
			if m.version != resource.V1 && !m.desc.IsStreamingClient() {
				t.Errorf("%s is not listed", name)
			}
			continue
		}
		if m.fields == nil || m.request == nil {
			t.Errorf("%s has no plan", name)
			continue
		}
		if len(m.fields.bound) == 0 && !hasServiceRules(name) {
			t.Logf("%s has no resource: only a caller with a role in every project may call it", name)
		}
		if rule == nil || hasServiceRules(name) || isSuperseded(name) {
			continue
		}
		for _, b := range append([]*annotations.HttpRule{rule}, rule.AdditionalBindings...) {
			httpMethod, path := example(b)
			if rt, _ := r.find(httpMethod, path); rt == nil || rt.method != m {
				t.Errorf("%s %s does not lead to %s", httpMethod, path, name)
			}
		}
	}
}

// example makes a path that the rule's template matches.
func example(rule *annotations.HttpRule) (httpMethod, path string) {
	for _, p := range []struct{ method, path string }{
		{"GET", rule.GetGet()}, {"POST", rule.GetPost()}, {"PUT", rule.GetPut()}, {"PATCH", rule.GetPatch()}, {"DELETE", rule.GetDelete()},
	} {
		if p.path == "" {
			continue
		}
		tm, err := parseTemplate(p.path)
		if err != nil {
			return p.method, err.Error()
		}
		path = "/" + strings.NewReplacer("**", "x/y", "*", "x").Replace(strings.Join(tm.segments, "/"))
		if tm.verb != "" {
			path += ":" + tm.verb
		}
		return p.method, path
	}
	return "", ""
}

// TestVersionsAreOneModel: bytes of a v1 message are bytes of the v1beta1 one.
func TestVersionsAreOneModel(t *testing.T) {
	t.Parallel()
	messages := 0
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		name := string(mt.Descriptor().FullName())
		rest, ok := strings.CutPrefix(name, packageV1+".")
		if !ok {
			return true
		}
		beta, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(packageV1beta1 + "." + rest))
		if err != nil {
			return true // v1 alone has it: no table row can use it
		}
		messages++
		for i := range mt.Descriptor().Fields().Len() {
			f := mt.Descriptor().Fields().Get(i)
			b := beta.Descriptor().Fields().ByNumber(f.Number())
			if b != nil && (b.Kind() != f.Kind() || b.Cardinality() != f.Cardinality() || b.Name() != f.Name()) {
				t.Errorf("%s.%s is not the same field in v1beta1", name, f.Name())
			}
		}
		return true
	})
	if messages < 1000 {
		t.Errorf("compared only %d messages", messages)
	}
}

func TestTableMustFitTheDescriptors(t *testing.T) {
	t.Parallel()
	unary := func(context.Context, proto.Message) (proto.Message, error) { return nil, errors.New("not called") }
	stream := func(context.Context, proto.Message, func(proto.Message) error) error { return errors.New("not called") }
	for _, tt := range []struct {
		m    api.Method
		want string
	}{
		{api.Method{Name: packageV1beta1 + ".ModelService/BakeModel", Unary: unary}, "no descriptor knows"},
		{api.Method{Name: "no.such.Service/Get", Unary: unary}, "service no.such.Service"},
		{api.Method{Name: packageV1beta1 + ".PredictionService/StreamRawPredict", Unary: unary}, "one streams"},
		{api.Method{Name: packageV1beta1 + ".ModelService/GetModel", Stream: stream}, "one streams"},
		{api.Method{Name: packageV1beta1 + ".PredictionService/StreamingPredict", Stream: stream}, "not possible yet"},
	} {
		tt.m.Permission = "x.y.z"
		table, err := api.NewTable([]api.Method{tt.m})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newMethods(table); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.m.Name, err, tt.want)
		}
	}
}

// TestFieldPlans: what the annotations of real requests come to.
func TestFieldPlans(t *testing.T) {
	t.Parallel()
	ms, err := newMethods(everything(t))
	if err != nil {
		t.Fatal(err)
	}
	plan := func(name string) *requestPlan {
		m := ms.byName[name]
		if m == nil || m.fields == nil {
			t.Fatalf("no plan for %s", name)
		}
		return m.fields
	}
	t.Run("an update may carry a part of its resource", func(t *testing.T) {
		t.Parallel()
		req := &pb.UpdateModelRequest{Model: &pb.Model{Name: "n", VersionId: "3"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}}}
		p := plan(packageV1beta1 + ".ModelService/UpdateModel")
		if err := p.check(req.ProtoReflect()); err != nil || req.Model.Name != "n" || req.Model.VersionId != "" {
			t.Errorf("check = %v, left %v", err, req)
		}
		if got := p.resource(req.ProtoReflect()); got != "n" {
			t.Errorf("resource = %q", got)
		}
		if err := p.check((&pb.UpdateModelRequest{}).ProtoReflect()); status.Code(err) != codes.InvalidArgument {
			t.Errorf("an update without a model: %v", err)
		}
	})
	t.Run("zero replicas is a number like another", func(t *testing.T) {
		t.Parallel()
		req := &pb.DeployModelRequest{Endpoint: "e", DeployedModel: &pb.DeployedModel{PredictionResources: &pb.DeployedModel_DedicatedResources{
			DedicatedResources: &pb.DedicatedResources{MachineSpec: &pb.MachineSpec{}},
		}}}
		if err := plan(packageV1 + ".EndpointService/DeployModel").check(req.ProtoReflect()); err != nil {
			t.Error(err)
		}
	})
	t.Run("names below the top are found, networks are not ours", func(t *testing.T) {
		t.Parallel()
		req := &pb.CreatePipelineJobRequest{Parent: "projects/1/locations/l", PipelineJob: &pb.PipelineJob{
			Network: "projects/1/global/networks/n", Labels: map[string]string{"a": "projects/1"},
		}}
		deploy := &pb.DeployModelRequest{Endpoint: "projects/1/x", DeployedModel: &pb.DeployedModel{Model: "projects/1/y"}}
		rename := func(s string) (string, error) { return strings.Replace(s, "projects/1/", "projects/p/", 1), nil }
		if err := plan(packageV1+".PipelineService/CreatePipelineJob").eachName(req.ProtoReflect(), rename); err != nil {
			t.Fatal(err)
		}
		if err := plan(packageV1+".EndpointService/DeployModel").eachName(deploy.ProtoReflect(), rename); err != nil {
			t.Fatal(err)
		}
		if req.Parent != "projects/p/locations/l" || req.PipelineJob.Network != "projects/1/global/networks/n" || req.PipelineJob.Labels["a"] != "projects/1" {
			t.Errorf("pipeline job: %v", req)
		}
		if deploy.Endpoint != "projects/p/x" || deploy.DeployedModel.Model != "projects/p/y" {
			t.Errorf("deploy: %v", deploy)
		}
	})
	t.Run("a struct is left alone", func(t *testing.T) {
		t.Parallel()
		if p := ms.planners[resource.V1beta1].plans["google.protobuf.Struct"]; p == nil || p.useful || len(p.nested) > 0 {
			t.Errorf("plan of Struct = %+v", p)
		}
	})
}

// TestAnswerAs: whether or not an answer is converted, a v1 caller is told what v1
// has and nothing else.
func TestAnswerAs(t *testing.T) {
	t.Parallel()
	types, err := apiv1.Load()
	if err != nil {
		t.Fatal(err)
	}
	model, err := types.FindMessageByName(apiv1.Package + ".ListModelsResponse")
	if err != nil {
		t.Fatal(err)
	}
	onlyV1, err := proto.Marshal(&v1.Model{DisplayName: "of v1", PipelineJob: "projects/p/locations/l/pipelineJobs/j"})
	if err != nil {
		t.Fatal(err)
	}
	fromV1 := &pb.Model{}
	if err := proto.Unmarshal(onlyV1, fromV1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		model     *pb.Model
		converted bool
		want      string
	}{
		{"the same in both", &pb.Model{DisplayName: "m", ContainerSpec: &pb.ModelContainerSpec{Env: []*pb.EnvVar{{Name: "A"}}}, Labels: map[string]string{"a": "b"}}, false, `"displayName":"m"`},
		{"of v1 alone", fromV1, true, `"pipelineJob":"projects/p/locations/l/pipelineJobs/j"`},
	} {
		in := &pb.ListModelsResponse{Models: []*pb.Model{tt.model}}
		out, err := answerAs(in, model)
		if err != nil {
			t.Fatal(err)
		}
		if converted := out != proto.Message(in); converted != tt.converted {
			t.Errorf("%s: converted %v, want %v", tt.name, converted, tt.converted)
		}
		data, err := alt{}.marshal(out, types)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.ReplaceAll(string(data), " ", ""), tt.want) {
			t.Errorf("%s: %s, want %s in it", tt.name, data, tt.want)
		}
	}
	deployed := &pb.Endpoint{DisplayName: "e", DeployedModels: []*pb.DeployedModel{{Id: "1", RolloutOptions: &pb.RolloutOptions{RevisionNumber: 1}}}}
	endpoint, err := types.FindMessageByName(apiv1.Package + ".Endpoint")
	if err != nil {
		t.Fatal(err)
	}
	out, err := answerAs(deployed, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	data, err := alt{}.marshal(out, types)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "rollout") || !strings.Contains(string(data), `"1"`) {
		t.Errorf("a field of v1beta1 alone: %s", data)
	}
}

// TestDirect: JSON of v1 is read into messages of v1beta1 where these have all that v1
// has, and what v1 does not know is left out either way.
func TestDirect(t *testing.T) {
	t.Parallel()
	ms, err := newMethods(everything(t))
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for name, m := range ms.byName {
		if m.version == resource.V1 && m.listed && m.direct {
			direct++
			if !strings.HasPrefix(string(m.request.Descriptor().FullName()), packageV1beta1) && strings.HasPrefix(string(m.in.Descriptor().FullName()), packageV1) {
				t.Errorf("%s is read into %s", name, m.request.Descriptor().FullName())
			}
		}
	}
	if direct < 300 {
		t.Errorf("%d methods of v1 are read directly", direct)
	}
	for name, want := range map[string]bool{
		"PipelineService/CreatePipelineJob": true,
		"EndpointService/DeployModel":       true,
		"ModelService/UploadModel":          false, // Model.pipeline_job is of v1 alone
	} {
		m := ms.byName[packageV1+"."+name]
		if m.direct != want {
			t.Errorf("%s direct: %v", name, m.direct)
		}
		x := &exchange{route: &route{method: m, body: "*"}, types: ms.types}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", strings.NewReader(
			`{"deployedModel":{"id":"1","rolloutOptions":{"revisionNumber":3}},"trafficSplit":{"0":100},"model":{"displayName":"m","pipelineJob":"j"},"parent":"p","pipelineJob":{"displayName":"m"}}`))
		if err != nil {
			t.Fatal(err)
		}
		got, err := x.decode(req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := alt{}.marshal(got, ms.types)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), " ", "")
		if strings.Contains(text, "rollout") || len(text) < 10 || !want && !strings.Contains(text, `"pipelineJob":"j"`) {
			t.Errorf("%s reads %s", name, text)
		}
		req.Body = io.NopCloser(strings.NewReader(`7`))
		if _, err := x.decode(req); err == nil || !strings.Contains(err.Error(), packageV1+".") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
