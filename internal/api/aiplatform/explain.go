package aiplatform

import (
	"context"
	"encoding/json"
	"errors"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

const explainPermission = "aiplatform.endpoints.explain"

// explanationsAnswer is what a model's server says. TorchServe's envelope calls
// everything that a handler gives predictions.
type explanationsAnswer struct {
	Explanations []json.RawMessage `json:"explanations"`
	Predictions  []json.RawMessage `json:"predictions"`
}

// explain asks the model's own server, as predictions do: nothing is computed here. The
// predictions that are explained come from the same deployed model, by a second request
// where the server does not give both.
func (p *Prediction) explain(ctx context.Context, req *pb.ExplainRequest) (*pb.ExplainResponse, error) {
	switch {
	case req.GetExplanationSpecOverride() != nil:
		return nil, resource.Unimplemented("explanation_spec_override").WithHint("the model's own server decides how it explains; parameters are passed to it")
	case len(req.GetConcurrentExplanationSpecOverride()) > 0:
		return nil, resource.Unimplemented("concurrent_explanation_spec_override")
	}
	asked := &pb.PredictRequest{Instances: req.GetInstances(), Parameters: req.GetParameters()}
	body, err := predictJSON(asked)
	if err != nil {
		return nil, err
	}
	whole := &serving.Explaining{}
	defer whole.Done(ctx)
	answer, err := p.predictor.Predict(ctx, req.GetEndpoint(), serving.Request{Body: body, Again: true, Explain: true, Part: whole, DeployedModel: req.GetDeployedModelId()})
	if err != nil {
		return nil, err
	}
	data, err := readAnswer(answer)
	if err != nil {
		if e, ok := errors.AsType[*resource.Error](err); ok && e.Reason == routeMissing {
			err = e.WithHint("explanations are asked of the route that %s names, a variable of the model's container", modelformat.ExplainVariable)
		}
		return nil, err
	}
	var said explanationsAnswer
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, notExplanations(answer, "%w", err)
	}
	resp := &pb.ExplainResponse{DeployedModelId: answer.DeployedModel}
	if said.Explanations == nil {
		said.Explanations, said.Predictions = said.Predictions, nil
	}
	if len(said.Explanations) != len(req.GetInstances()) {
		return nil, notExplanations(answer, "it has %d for %d instances", len(said.Explanations), len(req.GetInstances()))
	}
	for i, text := range said.Explanations {
		e, err := explanationOf(text)
		if err != nil {
			return nil, notExplanations(answer, "number %d: %w", i+1, err)
		}
		resp.Explanations = append(resp.Explanations, e)
	}
	if said.Predictions == nil {
		resp.Predictions, err = p.explained(ctx, req.GetEndpoint(), serving.Request{Body: body, Again: true, Part: whole, DeployedModel: answer.DeployedModel})
		return resp, err
	}
	for i, text := range said.Predictions {
		v := &structpb.Value{}
		if err := protojson.Unmarshal(text, v); err != nil {
			return nil, notExplanations(answer, "prediction %d: %w", i+1, err)
		}
		resp.Predictions = append(resp.Predictions, v)
	}
	return resp, nil
}

// explained gives the predictions of a deployed model.
func (p *Prediction) explained(ctx context.Context, endpoint string, r serving.Request) ([]*structpb.Value, error) {
	resp, _, err := p.predictions(ctx, endpoint, r)
	return resp.GetPredictions(), err
}

// explanationOf reads what a server says of one instance: an Explanation in its JSON
// form, which has attributions or neighbors, or else anything, which becomes the
// featureAttributions of its only attribution.
func explanationOf(text json.RawMessage) (*pb.Explanation, error) {
	var form struct {
		Attributions json.RawMessage `json:"attributions"`
		Neighbors    json.RawMessage `json:"neighbors"`
	}
	e := &pb.Explanation{}
	if json.Unmarshal(text, &form) == nil && (form.Attributions != nil || form.Neighbors != nil) {
		return e, protojson.Unmarshal(text, e)
	}
	features := &structpb.Value{}
	if err := protojson.Unmarshal(text, features); err != nil {
		return nil, err
	}
	e.Attributions = []*pb.Attribution{{FeatureAttributions: features}}
	return e, nil
}

func notExplanations(a *serving.Response, format string, args ...any) error {
	return resource.Errorf(codes.FailedPrecondition, "the answer of deployed model %s to %s is not of the form {\"explanations\": [...]}, one for each instance: "+format,
		append([]any{a.DeployedModel, a.Route}, args...)...).WithCause(resource.CauseUserCode).WithHint("invoke takes any answer of any route")
}
