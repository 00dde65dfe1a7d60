package aiplatform

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// explainer is a data plane with an answer of each kind; it notes what it was asked.
type explainer struct {
	status               int
	explains, predicts   string
	asked                []serving.Request
	deployed             string
	explainErr, otherErr error
}

func (x *explainer) Predict(_ context.Context, endpoint string, r serving.Request) (*serving.Response, error) {
	x.asked = append(x.asked, r)
	answer, err := x.predicts, x.otherErr
	if r.Explain {
		answer, err = x.explains, x.explainErr
	}
	if err != nil {
		return nil, err
	}
	return &serving.Response{Endpoint: endpoint, DeployedModel: x.deployed, Route: "/explain", Status: x.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer))}, nil
}

func TestExplain(t *testing.T) {
	t.Parallel()
	const both = `{"explanations":[{"attributions":[{"baselineOutputValue":0.5,"featureAttributions":{"age":1}}]},{"neighbors":[{"neighborId":"7"}]}],"predictions":[1,{"a":[null]}]}`
	for _, c := range []struct {
		name, explains, predicts, want string
		asks                           int
	}{
		{"a container that gives both", both, "", `{"explanations":[{"attributions":[{"baselineOutputValue":0.5,"featureAttributions":{"age":1}}]},{"neighbors":[{"neighborId":"7"}]}],"predictions":[1,{"a":[null]}],"deployedModelId":"9"}`, 1},
		{"TorchServe", `{"predictions":[[0.5,1],"x"]}`, `{"predictions":[3,4],"more":1}`, `{"explanations":[{"attributions":[{"featureAttributions":[0.5,1]}]},{"attributions":[{"featureAttributions":"x"}]}],"predictions":[3,4],"deployedModelId":"9"}`, 2},
		{"explanations alone", `{"explanations":[{"pixels":[1]},null]}`, `{"predictions":[3,4]}`, `{"explanations":[{"attributions":[{"featureAttributions":{"pixels":[1]}}]},{"attributions":[{"featureAttributions":null}]}],"predictions":[3,4],"deployedModelId":"9"}`, 2},
	} {
		x := &explainer{status: 200, explains: c.explains, predicts: c.predicts, deployed: "9"}
		req := &pb.ExplainRequest{Endpoint: "e", Instances: []*structpb.Value{structpb.NewNumberValue(1), structpb.NewStringValue("b")}, Parameters: structpb.NewBoolValue(true), DeployedModelId: "8"}
		got, err := NewPrediction(x).explain(t.Context(), req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := &pb.ExplainResponse{}
		if err := protojson.Unmarshal([]byte(c.want), want); err != nil {
			t.Fatal(err)
		}
		if protojson.Format(got) != protojson.Format(want) {
			t.Errorf("%s: %s, want %s", c.name, protojson.Format(got), protojson.Format(want))
		}
		if len(x.asked) != c.asks || string(x.asked[0].Body) != `{"instances":[1,"b"],"parameters":true}` || !x.asked[0].Explain || x.asked[0].DeployedModel != "8" {
			t.Errorf("%s: asked %+v", c.name, x.asked)
		}
		if c.asks == 2 && (x.asked[1].Explain || x.asked[1].DeployedModel != "9" || x.asked[1].Part != x.asked[0].Part || x.asked[0].Part == nil) {
			t.Errorf("%s: the predictions are asked of %+v", c.name, x.asked[1])
		}
	}
}

func TestExplainRefuses(t *testing.T) {
	t.Parallel()
	one := []*structpb.Value{structpb.NewNumberValue(1)}
	for _, c := range []struct {
		name   string
		plane  explainer
		req    *pb.ExplainRequest
		code   codes.Code
		phrase string
	}{
		{"an override", explainer{}, &pb.ExplainRequest{ExplanationSpecOverride: &pb.ExplanationSpecOverride{}}, codes.Unimplemented, "explanation_spec_override"},
		{"concurrent overrides", explainer{}, &pb.ExplainRequest{ConcurrentExplanationSpecOverride: map[string]*pb.ExplanationSpecOverride{"a": {}}}, codes.Unimplemented, "concurrent_explanation_spec_override"},
		{"no list", explainer{status: 200, explains: `[1]`}, &pb.ExplainRequest{Instances: one}, codes.FailedPrecondition, "explanations"},
		{"too few", explainer{status: 200, explains: `{"explanations":[]}`}, &pb.ExplainRequest{Instances: one}, codes.FailedPrecondition, "it has 0 for 1 instances"},
		{"no Explanation", explainer{status: 200, explains: `{"explanations":[{"attributions":3}]}`}, &pb.ExplainRequest{Instances: one}, codes.FailedPrecondition, "number 1"},
		{"predictions that are none", explainer{status: 200, explains: `{"explanations":[1]}`, predicts: `x`}, &pb.ExplainRequest{Instances: one}, codes.FailedPrecondition, "predictions"},
		{"no such route", explainer{status: 404, explains: `what?`}, &pb.ExplainRequest{Instances: one}, codes.NotFound, "what?"},
		{"of the data plane", explainer{explainErr: resource.Errorf(codes.FailedPrecondition, "it gives none")}, &pb.ExplainRequest{Instances: one}, codes.FailedPrecondition, "it gives none"},
	} {
		_, err := NewPrediction(&c.plane).explain(t.Context(), c.req)
		if resource.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.phrase) {
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.code, c.phrase)
		}
	}
}
