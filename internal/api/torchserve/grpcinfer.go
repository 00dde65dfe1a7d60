package torchserve

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	engine "tategu/internal/torchserve"
)

func protoName(s string) protoreflect.Name { return protoreflect.Name(s) }

func (a *API) grpcServerMetadata(_ context.Context, in *message, send func(proto.Message) error) error {
	out := dynamicpb.NewMessage(in.out)
	set := func(name, v string) { out.Set(in.out.Fields().ByName(protoName(name)), protoreflect.ValueOfString(v)) }
	set("name", "Torchserve")
	set("version", Version)
	list := out.Mutable(in.out.Fields().ByName("extensions")).List()
	list.Append(protoreflect.ValueOfString("kserve"))
	list.Append(protoreflect.ValueOfString("kubeflow"))
	return send(out)
}

// described is the model that a request names.
func (a *API) described(ctx context.Context, in *message) (engine.Model, error) {
	name := in.text("name")
	if name == "" {
		return engine.Model{}, badRequest("Parameter name is required.")
	}
	ms, err := a.Engine.Describe(ctx, name, in.text("version"), false)
	if err == nil && len(ms) == 0 {
		err = failure(http.StatusNotFound, engine.ModelNotFound, "Model not found: %s", name)
	}
	if err != nil {
		return engine.Model{}, err
	}
	return ms[0], nil
}

func (a *API) grpcModelReady(ctx context.Context, in *message, send func(proto.Message) error) error {
	m, err := a.described(ctx, in)
	if err != nil {
		return err
	}
	return send(in.answer(map[string]any{"ready": ready(m)}))
}

func (a *API) grpcModelMetadata(ctx context.Context, in *message, send func(proto.Message) error) error {
	m, err := a.described(ctx, in)
	if err != nil {
		return err
	}
	versions, err := a.versions(ctx, m.Name)
	if err != nil {
		return err
	}
	out := dynamicpb.NewMessage(in.out)
	out.Set(in.out.Fields().ByName("name"), protoreflect.ValueOfString(m.Name))
	list := out.Mutable(in.out.Fields().ByName("versions")).List()
	for _, v := range versions {
		list.Append(protoreflect.ValueOfString(v))
	}
	return send(out)
}

// oipInput is a tensor as handlers with the KServe envelope read it.
type oipInput struct {
	Name     string  `json:"name"`
	Shape    []int64 `json:"shape"`
	Datatype string  `json:"datatype"`
	Data     []any   `json:"data"`
}

// contentsOf says which field of InferTensorContents holds a datatype.
func contentsOf(datatype string) protoreflect.Name {
	switch datatype {
	case "BOOL":
		return "bool_contents"
	case "INT8", "INT16", "INT32":
		return "int_contents"
	case "INT64":
		return "int64_contents"
	case "UINT8", "UINT16", "UINT32":
		return "uint_contents"
	case "UINT64":
		return "uint64_contents"
	case "FP32":
		return "fp32_contents"
	case "FP64":
		return "fp64_contents"
	case "BYTES":
		return "bytes_contents"
	}
	return ""
}

// grpcInfer gives the handler the request as the JSON of KServe's protocol v2, and reads
// its answer in that form.
func (a *API) grpcInfer(ctx context.Context, in *message, send func(proto.Message) error) error {
	model, version := in.text("model_name"), in.text("model_version")
	if model == "" {
		return badRequest("Parameter model_name is required.")
	}
	if in.field("raw_input_contents").List().Len() > 0 {
		return failure(http.StatusNotImplemented, engine.BadRequest, "raw_input_contents are not read: send contents")
	}
	body := struct {
		ID     string     `json:"id"`
		Model  string     `json:"model_name"`
		Inputs []oipInput `json:"inputs"`
	}{in.text("id"), model, []oipInput{}}
	inputs := in.field("inputs").List()
	for i := range inputs.Len() {
		t, err := readTensor(inputs.Get(i).Message())
		if err != nil {
			return err
		}
		body.Inputs = append(body.Inputs, t)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return badRequest("The tensors are no JSON: %v", err)
	}
	var answer []byte
	r := engine.Request{ID: requestID(), Parts: []engine.Part{{Name: "body", ContentType: jsonType, Value: text}}}
	if err := a.predicted(ctx, model, version, r, func(f engine.Frame) error {
		answer = append(answer, f.Body...)
		return nil
	}); err != nil {
		return err
	}
	out, err := inferAnswer(in.out, answer)
	if err != nil {
		return failure(http.StatusInternalServerError, engine.InternalServer, "The handler's answer has not the form of the Open Inference Protocol: %v", err)
	}
	return send(out)
}

func readTensor(m protoreflect.Message) (oipInput, error) {
	get := func(name protoreflect.Name) protoreflect.Value { return m.Get(m.Descriptor().Fields().ByName(name)) }
	t := oipInput{Name: get("name").String(), Datatype: get("datatype").String(), Shape: []int64{}, Data: []any{}}
	shape := get("shape").List()
	for i := range shape.Len() {
		t.Shape = append(t.Shape, shape.Get(i).Int())
	}
	field := contentsOf(t.Datatype)
	if field == "" {
		return t, badRequest("Tensor %s: datatype %q has no contents", t.Name, t.Datatype)
	}
	contents := get("contents").Message()
	values := contents.Get(contents.Descriptor().Fields().ByName(field)).List()
	for i := range values.Len() {
		v := values.Get(i).Interface()
		if b, ok := v.([]byte); ok {
			v = base64.StdEncoding.EncodeToString(b)
		}
		t.Data = append(t.Data, v)
	}
	return t, nil
}

// inferAnswer makes a message of an answer in JSON: data become contents of the datatype.
func inferAnswer(d protoreflect.MessageDescriptor, text []byte) (proto.Message, error) {
	var a struct {
		Model   string `json:"model_name"`
		Version string `json:"model_version"`
		ID      string `json:"id"`
		Outputs []struct {
			Name     string          `json:"name"`
			Shape    []int64         `json:"shape"`
			Datatype string          `json:"datatype"`
			Data     json.RawMessage `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, err
	}
	outputs := []any{}
	for _, o := range a.Outputs {
		field := contentsOf(o.Datatype)
		if field == "" {
			return nil, badRequest("output %s has the datatype %q", o.Name, o.Datatype)
		}
		tensor := map[string]any{"name": o.Name, "datatype": o.Datatype, "shape": o.Shape}
		if len(o.Data) > 0 {
			tensor["contents"] = map[string]any{string(field): o.Data}
		}
		outputs = append(outputs, tensor)
	}
	whole, err := json.Marshal(map[string]any{"model_name": a.Model, "model_version": a.Version, "id": a.ID, "outputs": outputs})
	if err != nil {
		return nil, err
	}
	out := dynamicpb.NewMessage(d)
	return out, protojson.Unmarshal(whole, out)
}
