package torchserve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"tategu/internal/resource"
	engine "tategu/internal/torchserve"
)

// call answers one method: it reads what it wants from the stream.
type call func(ctx context.Context, in *message, send func(proto.Message) error) error

// message is one by the names of its fields.
type message struct {
	protoreflect.Message
	out protoreflect.MessageDescriptor // of the method's answers
}

func (m *message) field(name string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

func (m *message) text(name string) string { return m.field(name).String() }
func (m *message) int(name string) int     { return int(m.field(name).Int()) }
func (m *message) bool(name string) bool   { return m.field(name).Bool() }

// answer makes one with fields set.
func (m *message) answer(fields map[string]any) proto.Message {
	out := dynamicpb.NewMessage(m.out)
	for name, v := range fields {
		out.Set(m.out.Fields().ByName(protoreflect.Name(name)), protoreflect.ValueOf(v))
	}
	return out
}

// GRPCInference serves the inference service and the Open Inference Protocol.
func (a *API) GRPCInference(opts ...grpc.ServerOption) (*grpc.Server, error) {
	calls := map[string]call{
		inferenceService + "Ping":               a.grpcPing,
		inferenceService + "Predictions":        a.grpcPredict,
		inferenceService + "StreamPredictions":  a.grpcPredictStream,
		inferenceService + "StreamPredictions2": nil, // reads a stream itself
		oipService + "ServerLive": func(_ context.Context, in *message, send func(proto.Message) error) error {
			return send(in.answer(map[string]any{"live": true}))
		},
		oipService + "ServerReady": func(_ context.Context, in *message, send func(proto.Message) error) error {
			return send(in.answer(map[string]any{"ready": true}))
		},
		oipService + "ServerMetadata": a.grpcServerMetadata,
		oipService + "ModelReady":     a.grpcModelReady,
		oipService + "ModelMetadata":  a.grpcModelMetadata,
		oipService + "ModelInfer":     a.grpcInfer,
	}
	return a.grpcServer([]protoFile{inferenceProto(), oipProto()}, calls, KindInference, opts)
}

// GRPCManagement serves the management service.
func (a *API) GRPCManagement(opts ...grpc.ServerOption) (*grpc.Server, error) {
	return a.grpcServer([]protoFile{managementProto()}, map[string]call{
		managementService + "DescribeModel":   a.grpcDescribe,
		managementService + "ListModels":      a.grpcList,
		managementService + "RegisterModel":   a.grpcRegister,
		managementService + "ScaleWorker":     a.grpcScale,
		managementService + "SetDefault":      a.grpcSetDefault,
		managementService + "UnregisterModel": a.grpcUnregister,
	}, KindManagement, opts)
}

func (a *API) grpcServer(files []protoFile, calls map[string]call, kind Kind, opts []grpc.ServerOption) (*grpc.Server, error) {
	reg, err := buildFiles(files)
	if err != nil {
		return nil, err
	}
	methods := methodsOf(reg)
	s := &grpcServices{a, calls, methods, kind}
	opts = append([]grpc.ServerOption{
		grpc.UnknownServiceHandler(s.serve), grpc.MaxRecvMsgSize(int(a.cfg.MaxRequest)), grpc.MaxSendMsgSize(1<<31 - 1),
	}, opts...)
	g := grpc.NewServer(opts...)
	reflectionpb.RegisterServerReflectionServer(g, reflection.NewServerV1(reflection.ServerOptions{Services: named{reg}, DescriptorResolver: resolver{reg}}))
	return g, nil
}

// resolver finds our files, and those that they import.
type resolver struct{ files *protoregistry.Files }

var _ protodesc.Resolver = resolver{}

func (r resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if f, err := r.files.FindFileByPath(path); err == nil {
		return f, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (r resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := r.files.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// named lists services for reflection.
type named struct{ files *protoregistry.Files }

func (n named) GetServiceInfo() map[string]grpc.ServiceInfo {
	out := map[string]grpc.ServiceInfo{}
	n.files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			out[string(f.Services().Get(i).FullName())] = grpc.ServiceInfo{Metadata: f.Path()}
		}
		return true
	})
	return out
}

type grpcServices struct {
	api     *API
	calls   map[string]call
	methods map[string]protoreflect.MethodDescriptor
	kind    Kind
}

func (s *grpcServices) serve(_ any, ss grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(ss)
	m, ok := s.methods[name]
	if !ok {
		return status.Errorf(codes.Unimplemented, "%s is no method of TorchServe", strings.TrimPrefix(name, "/"))
	}
	if err := s.authorize(ss.Context()); err != nil {
		return err
	}
	read := func() (*message, error) {
		in := dynamicpb.NewMessage(m.Input())
		if err := ss.RecvMsg(in); err != nil {
			return nil, err
		}
		return &message{in, m.Output()}, nil
	}
	send := func(out proto.Message) error { return ss.SendMsg(out) }
	if m.IsStreamingClient() {
		return grpcError(s.api.grpcPredictMany(ss.Context(), read, send))
	}
	in, err := read()
	if err != nil {
		return err
	}
	return grpcError(s.calls[name](ss.Context(), in, send))
}

func (s *grpcServices) authorize(ctx context.Context) error {
	if s.api.Tokens == nil {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		if s.api.Tokens.Allows(s.kind, v) {
			return nil
		}
	}
	return status.Error(codes.PermissionDenied, "Token Authorization failed. Token either incorrect, expired, or not provided correctly")
}

// grpcError is an error as TorchServe's clients know it: its words, then its type.
func grpcError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, "call already cancelled")
	}
	e := told(err)
	return status.Error(codeOf(e.Code), e.Message+"\n"+e.Type)
}

// codeOf is an HTTP status as a code of gRPC.
func codeOf(status int) codes.Code {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden, http.StatusMethodNotAllowed:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusRequestedRangeNotSatisfiable:
		return codes.OutOfRange
	case resource.StatusClientClosed:
		return codes.Canceled
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusInsufficientStorage:
		return codes.ResourceExhausted
	}
	return codes.Internal
}

func (a *API) grpcPing(_ context.Context, in *message, send func(proto.Message) error) error {
	return send(in.answer(map[string]any{"health": strings.TrimSuffix(string(pretty(statusAnswer{string(a.Engine.Health())})), "\n")}))
}

// grpcRequest is a request for a prediction as handlers see it.
func (a *API) grpcRequest(in *message) (model, version string, r engine.Request, err error) {
	model, version = in.text("model_name"), in.text("model_version")
	if model == "" {
		return "", "", r, badRequest("Parameter model_name is required.")
	}
	r.ID = requestID()
	in.field("input").Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		r.Parts = append(r.Parts, engine.Part{Name: k.String(), Value: v.Bytes()})
		return true
	})
	sortParts(r.Parts)
	return model, version, r, nil
}

// predicted runs a request; a handler's own status of an error is one.
func (a *API) predicted(ctx context.Context, model, version string, r engine.Request, emit func(engine.Frame) error) error {
	return a.Engine.Predict(ctx, model, version, r, func(f engine.Frame) error {
		if f.Status >= 400 {
			return failure(f.Status, engine.InternalServer, "%s", f.Body)
		}
		return emit(f)
	})
}

func (a *API) grpcPredict(ctx context.Context, in *message, send func(proto.Message) error) error {
	model, version, r, err := a.grpcRequest(in)
	if err != nil {
		return err
	}
	var body []byte
	if err := a.predicted(ctx, model, version, r, func(f engine.Frame) error {
		body = append(body, f.Body...)
		return nil
	}); err != nil {
		return err
	}
	return send(in.answer(map[string]any{"prediction": body}))
}

func (a *API) grpcPredictStream(ctx context.Context, in *message, send func(proto.Message) error) error {
	model, version, r, err := a.grpcRequest(in)
	if err != nil {
		return err
	}
	return a.predicted(ctx, model, version, r, func(f engine.Frame) error {
		return send(in.answer(map[string]any{"prediction": f.Body}))
	})
}

// grpcPredictMany answers the requests of a stream in their order. An error is an answer
// with a status; the stream goes on.
func (a *API) grpcPredictMany(ctx context.Context, read func() (*message, error), send func(proto.Message) error) error {
	for {
		in, err := read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		id := in.text("sequence_id")
		model, version, r, err := a.grpcRequest(in)
		if err == nil && id == "" {
			err = badRequest("Parameter sequenceId is required.")
		}
		if err == nil {
			r.Headers = append(r.Headers, engine.Pair{Name: a.cfg.SequenceIDHeader, Value: id})
			err = a.predicted(ctx, model, version, r, func(f engine.Frame) error {
				return send(in.answer(map[string]any{"prediction": f.Body, "sequence_id": id}))
			})
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := send(failedAnswer(in, id, err)); err != nil {
				return err
			}
		}
	}
}

// failedAnswer is one with a status in the place of a prediction.
func failedAnswer(in *message, id string, err error) proto.Message {
	e := told(err)
	fd := in.out.Fields().ByName("status")
	st := dynamicpb.NewMessage(fd.Message())
	st.Set(fd.Message().Fields().ByName("code"), protoreflect.ValueOfInt32(int32(codeOf(e.Code))))
	st.Set(fd.Message().Fields().ByName("message"), protoreflect.ValueOfString(e.Message))
	return in.answer(map[string]any{"sequence_id": id, "status": st})
}
