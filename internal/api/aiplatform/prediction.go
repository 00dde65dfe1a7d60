package aiplatform

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/api"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// Predictor is the data plane that predictions go to; serving.Engine is one.
type Predictor interface {
	Predict(ctx context.Context, endpoint string, r serving.Request) (*serving.Response, error)
}

// Prediction is the PredictionService. Over REST the bytes of a request go to
// the model's server and its answer comes back without being read as a message;
// over gRPC they are turned into JSON and back.
type Prediction struct {
	predictor Predictor
	bodies    api.Bodies
	readers   sync.Pool // of *splicer, for answers
}

// NewPrediction makes the service.
func NewPrediction(p Predictor) *Prediction { return &Prediction{predictor: p} }

// maxAnswer bounds an answer that has to be held in memory.
const maxAnswer = 256 << 20

const predictPermission = "aiplatform.endpoints.predict"

// Methods gives the rows of the dispatch table.
func (p *Prediction) Methods() ([]api.Method, error) {
	const service = "PredictionService"
	predict := api.Unary(MethodName(service, "Predict"), predictPermission, p.predict)
	predict.HTTP = p.predictHTTP
	raw := api.Unary(MethodName(service, "RawPredict"), predictPermission, p.rawPredict)
	raw.HTTP = p.rawPredictHTTP
	stream := api.Stream(MethodName(service, "StreamRawPredict"), predictPermission, p.streamRawPredict)
	stream.HTTP = p.streamRawPredictHTTP
	explain := api.Unary(MethodName(service, "Explain"), explainPermission, p.explain)
	return []api.Method{predict, raw, stream, explain}, nil
}

// predictions asks a model and reads what it answers; who answered is beside it.
func (p *Prediction) predictions(ctx context.Context, endpoint string, ask serving.Request) (*pb.PredictResponse, *serving.Response, error) {
	answer, err := p.predictor.Predict(ctx, endpoint, ask)
	if err != nil {
		return nil, nil, err
	}
	data, err := readAnswer(answer)
	if err != nil {
		return nil, nil, err
	}
	resp := &pb.PredictResponse{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, resp); err != nil {
		return nil, nil, notPredictions(answer, err)
	}
	return resp, answer, nil
}

func (p *Prediction) predict(ctx context.Context, req *pb.PredictRequest) (*pb.PredictResponse, error) {
	body, err := predictJSON(req)
	if err != nil {
		return nil, err
	}
	resp, answer, err := p.predictions(ctx, req.GetEndpoint(), serving.Request{Body: body, Again: true})
	if err != nil {
		return nil, err
	}
	resp.DeployedModelId, resp.Model = answer.DeployedModel, answer.Model
	resp.ModelVersionId, resp.ModelDisplayName = answer.ModelVersion, answer.ModelDisplay
	return resp, nil
}

func (p *Prediction) rawPredict(ctx context.Context, req *pb.RawPredictRequest) (*httpbody.HttpBody, error) {
	answer, err := p.predictor.Predict(ctx, req.GetEndpoint(), rawRequest(req.GetHttpBody(), false))
	if err != nil {
		return nil, err
	}
	// Fails only where no gRPC stream is below: nobody misses the headers there.
	_ = grpc.SetHeader(ctx, metadata.New(modelHeaders(answer)))
	data, err := readAnswer(answer)
	if err != nil {
		return nil, err
	}
	return &httpbody.HttpBody{ContentType: answer.Header.Get("Content-Type"), Data: data}, nil
}

func (p *Prediction) streamRawPredict(ctx context.Context, req *pb.StreamRawPredictRequest, send func(*httpbody.HttpBody) error) (err error) {
	answer, err := p.predictor.Predict(ctx, req.GetEndpoint(), rawRequest(req.GetHttpBody(), true))
	if err != nil {
		return err
	}
	if answer.Status >= http.StatusMultipleChoices {
		_, err := readAnswer(answer)
		return err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	_ = grpc.SetHeader(ctx, metadata.New(modelHeaders(answer))) // see rawPredict
	buf := make([]byte, 32<<10)
	for {
		n, err := answer.Body.Read(buf)
		if n > 0 {
			part := &httpbody.HttpBody{ContentType: answer.Header.Get("Content-Type"), Data: append([]byte(nil), buf[:n]...)}
			if err := send(part); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return brokenAnswer(answer, err)
		}
	}
}

func rawRequest(body *httpbody.HttpBody, stream bool) serving.Request {
	h := http.Header{}
	if t := body.GetContentType(); t != "" {
		h.Set("Content-Type", t)
	}
	return serving.Request{Header: h, Body: body.GetData(), Stream: stream}
}

// modelHeaders say who answered, as the service does for raw predictions.
func modelHeaders(a *serving.Response) map[string]string {
	return map[string]string{
		"X-Vertex-AI-Endpoint-Id": a.Endpoint, "X-Vertex-AI-Deployed-Model-Id": a.DeployedModel,
		"X-Vertex-AI-Model": a.Model, "X-Vertex-AI-Model-Version-Id": a.ModelVersion,
	}
}

// readAnswer reads a whole answer; one that is not 2xx becomes an error.
func readAnswer(a *serving.Response) (data []byte, err error) {
	defer func() { err = errors.Join(err, a.Body.Close()) }()
	data, err = io.ReadAll(io.LimitReader(a.Body, maxAnswer+1))
	if err != nil {
		return nil, brokenAnswer(a, err)
	}
	if len(data) > maxAnswer {
		return nil, resource.Errorf(codes.FailedPrecondition, "the answer of deployed model %s is larger than %d bytes", a.DeployedModel, maxAnswer).
			WithCause(resource.CauseUserCode).WithHint("use streamRawPredict")
	}
	if a.Status >= http.StatusMultipleChoices {
		return nil, modelError(a, data)
	}
	return data, nil
}

// routeMissing is the reason of an error about the route of a model's server.
const routeMissing = "PREDICT_ROUTE"

// modelError is a bad answer of the user's server. What the caller can cause is
// told as such; a server error of the model is never one of ours.
func modelError(a *serving.Response, body []byte) error {
	code := codes.FailedPrecondition
	switch a.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		code = codes.InvalidArgument
	case http.StatusUnauthorized, http.StatusForbidden:
		code = codes.PermissionDenied
	case http.StatusNotFound:
		code = codes.NotFound
	case http.StatusConflict:
		code = codes.Aborted
	case http.StatusTooManyRequests:
		code = codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		code = codes.Unavailable
	}
	const most = 2000
	text := strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), most)]), "?"))
	e := resource.Errorf(code, "the server of deployed model %s answered %d to POST %s: %s", a.DeployedModel, a.Status, a.Route, text).
		WithCause(resource.CauseUserCode)
	switch {
	case a.Status == http.StatusNotFound || a.Status == http.StatusMethodNotAllowed:
		e.Reason = routeMissing
		return e.WithHint("containerSpec.predictRoute of the model names the route that takes predictions")
	case a.Status >= http.StatusInternalServerError:
		return e.WithHint("`tategu logs %s` shows what the server said", a.Endpoint)
	}
	return e
}

func notPredictions(a *serving.Response, err error) error {
	return resource.Errorf(codes.FailedPrecondition, "the answer of deployed model %s is not of the form {\"predictions\": [...]}: %w", a.DeployedModel, err).
		WithCause(resource.CauseUserCode).WithHint("rawPredict takes any answer")
}

func brokenAnswer(a *serving.Response, err error) error {
	return resource.Errorf(codes.Unavailable, "the answer of deployed model %s broke off: %w", a.DeployedModel, err).
		WithCause(resource.CauseUserCode)
}

// appendIdentity writes the fields that are added to an answer, as JSON members.
func appendIdentity(b []byte, a *serving.Response) []byte {
	for i, f := range [...][2]string{
		{"deployedModelId", a.DeployedModel}, {"model", a.Model}, {"modelVersionId", a.ModelVersion}, {"modelDisplayName", a.ModelDisplay},
	} {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, f[0]...)
		b = append(b, `":`...)
		b = appendJSONString(b, f[1])
	}
	return b
}

// retryHint tells clients of a busy or starting model when to come back.
func retryHint(w http.ResponseWriter, err error) error {
	switch resource.CodeOf(err) {
	case codes.Unavailable, codes.ResourceExhausted:
		w.Header().Set("Retry-After", strconv.Itoa(1))
	default:
	}
	return err
}

// tooLarge says how large the body of a REST request may be, if err is about that.
func tooLarge(err error) error {
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return resource.Invalid("", "the request is larger than %d bytes", tooBig.Limit).WithHint("limits.bodyBytes in tategu.yaml allows more")
	}
	return err
}
