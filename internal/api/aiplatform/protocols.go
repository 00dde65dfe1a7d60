package aiplatform

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/api"
	"tategu/internal/resource"
	"tategu/internal/scoring"
	"tategu/internal/serving"
)

// Served is the data plane with a look at what it serves; serving.Engine is one.
type Served interface {
	Predictor
	Deployed(ctx context.Context, endpoint string) ([]serving.Deployed, error)
}

// Protocols answers other prediction protocols at an endpoint, whatever its models
// are: below ENDPOINT, /invocations and /ping (MLflow, SageMaker), and /v2 (the Open
// Inference Protocol over REST). Their requests become those of Predict and go its way.
type Protocols struct {
	served  Served
	rights  Rights
	version string
}

// NewProtocols makes the handler; version is what the server says of itself.
func NewProtocols(served Served, rights Rights, version string) *Protocols {
	return &Protocols{served, rights, version}
}

// protocolPath is the path of a request: an endpoint and what follows its name.
type protocolPath struct {
	project, location, endpoint string
	rest                        []string // unescaped
}

func parseProtocol(path string) (v protocolPath, ok bool) {
	const known = 8 // "", version, projects, P, locations, L, endpoints, E
	seg := strings.Split(path, "/")
	if len(seg) <= known || len(seg) > known+6 || seg[0] != "" || seg[1] != resource.V1 && seg[1] != resource.V1beta1 ||
		seg[2] != "projects" || seg[4] != "locations" || seg[6] != "endpoints" || seg[3] == "" || seg[5] == "" || seg[7] == "" {
		return v, false
	}
	v.project, v.location, v.endpoint = seg[3], seg[5], seg[7]
	for _, s := range seg[known:] {
		text, err := url.PathUnescape(s)
		if err != nil {
			return v, false
		}
		v.rest = append(v.rest, text)
	}
	switch v.rest[0] {
	case "ping", "invocations":
		return v, len(v.rest) == 1
	case "v2":
		return v, true
	}
	return v, false
}

// Owns reports a request that is for this handler.
func (*Protocols) Owns(r *http.Request) bool {
	_, ok := parseProtocol(r.URL.EscapedPath())
	return ok
}

// Serve answers a request that Owns has seen, errors in the protocol's own form.
func (p *Protocols) Serve(w http.ResponseWriter, r *http.Request) error {
	v, ok := parseProtocol(r.URL.EscapedPath())
	if !ok {
		return resource.NotFound(r.URL.Path)
	}
	name, err := mayUse(r, p.rights, predictPermission, v.project, v.location, v.endpoint)
	if err != nil {
		return err
	}
	switch v.rest[0] {
	case "ping":
		p.ping(w, r, name)
	case "invocations":
		if err := p.invocations(w, r, name); err != nil {
			scoringError(w, err)
		}
	default:
		if err := p.inference(w, r, name, v.endpoint, v.rest[1:]); err != nil {
			inferenceError(w, err)
		}
	}
	return nil
}

// ping answers 200 when the endpoint takes requests.
func (p *Protocols) ping(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		scoringError(w, methodNotAllowed(r))
		return
	}
	if err := p.ready(r.Context(), name); err != nil {
		scoringError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// ready says what keeps an endpoint from taking requests.
func (p *Protocols) ready(ctx context.Context, name string) error {
	deployed, err := p.served.Deployed(ctx, name)
	if err != nil {
		return err
	}
	if len(deployed) == 0 {
		return resource.Errorf(codes.Unavailable, "endpoint %s has no deployed model", name).WithHint("deploy a model to it first")
	}
	for _, d := range deployed {
		if !d.Ready {
			return resource.Errorf(codes.Unavailable, "the deployed model %s is not running yet", d.ID)
		}
	}
	return nil
}

// invocations answers a scoring request.
func (p *Protocols) invocations(w http.ResponseWriter, r *http.Request, name string) error {
	if r.Method != http.MethodPost {
		return methodNotAllowed(r)
	}
	body, err := readRequest(r)
	if err != nil {
		return err
	}
	if body, err = scoring.Request(r.Header.Get("Content-Type"), body); err != nil {
		return err
	}
	answer, data, err := p.predict(w, r, name, serving.Request{Body: body, Again: true})
	if err != nil {
		return err
	}
	kind := "application/json"
	if strings.HasPrefix(strings.TrimSpace(r.Header.Get("Accept")), "text/csv") {
		list, err := scoring.Predictions(data)
		if err == nil {
			data, err = scoring.CSV(list)
		}
		if err != nil {
			return notPredictions(answer, err)
		}
		kind = "text/csv; charset=utf-8"
	}
	write(w, http.StatusOK, kind, data)
	return nil
}

// predict asks and reads the whole answer; the headers of w then say who gave it.
func (p *Protocols) predict(w http.ResponseWriter, r *http.Request, name string, ask serving.Request) (*serving.Response, []byte, error) {
	ctx, cancel, err := within(r.Context(), r)
	if err != nil {
		return nil, nil, err
	}
	defer cancel()
	answer, err := p.served.Predict(ctx, name, ask)
	if err != nil {
		return nil, nil, retryHint(w, err)
	}
	data, err := readAnswer(answer)
	if err != nil {
		return nil, nil, retryHint(w, err)
	}
	setModelHeaders(w, answer)
	return answer, data, nil
}

func write(w http.ResponseWriter, status int, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever asked may have left
}

// scoringError answers as MLflow's server does.
func scoringError(w http.ResponseWriter, err error) {
	e := resource.Outcome(err)
	body, bad := json.Marshal(map[string]string{"error_code": scoringCode(e), "message": errorText(e)})
	if bad != nil {
		body = []byte(`{"error_code":"INTERNAL_ERROR"}`)
	}
	write(w, statusOf(e), "application/json", body)
}

// scoringCode names an error as MLflow does, where it has a name.
func scoringCode(e *resource.Error) string {
	switch e.Code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return "BAD_REQUEST"
	case codes.NotFound:
		return "RESOURCE_DOES_NOT_EXIST"
	case codes.Unimplemented:
		return "NOT_IMPLEMENTED"
	case codes.ResourceExhausted:
		return "REQUEST_LIMIT_EXCEEDED"
	case codes.Unavailable, codes.DeadlineExceeded:
		return "TEMPORARILY_UNAVAILABLE"
	default:
		return "INTERNAL_ERROR"
	}
}

// errorText is the message with its next step.
func errorText(e *resource.Error) string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// statusOf is the HTTP status of an error.
func statusOf(e *resource.Error) int {
	if e.Reason == reasonMethod {
		return http.StatusMethodNotAllowed
	}
	return resource.HTTPStatus(e.Code)
}

const reasonMethod = "METHOD_NOT_ALLOWED"

func methodNotAllowed(r *http.Request) error {
	e := resource.Invalid("", "%s is not a method of %s", r.Method, r.URL.Path)
	e.Reason = reasonMethod
	return e
}

// readRequest reads a body that is translated: what goes on is another one.
func readRequest(r *http.Request) ([]byte, error) {
	body, err := api.ReadBody(r)
	return body, tooLarge(err)
}
