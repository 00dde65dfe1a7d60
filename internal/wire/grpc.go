package wire

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients may send compressed messages
	grpcproto "google.golang.org/grpc/encoding/proto"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tategu/internal/api"
	"tategu/internal/resource"
)

// newGRPC serves every method of the table through one handler; no generated
// server code is registered.
func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.UnknownServiceHandler(s.serveGRPC),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)}),
		grpc.MaxRecvMsgSize(s.cfg.MaxMessage),
		grpc.MaxSendMsgSize(s.cfg.MaxMessage),
		grpc.StreamInterceptor(s.guardStream),
	)
	g.RegisterService(healthService(), &health{ready: s.cfg.Ready})
	reflectionpb.RegisterServerReflectionServer(g, reflection.NewServerV1(reflection.ServerOptions{
		Services: listedServices{s.methods}, DescriptorResolver: s.methods.types,
	}))
	return g
}

// serveGRPC answers a method of either API version. A v1 request is read
// straight into the v1beta1 message: the bytes are the same.
func (s *Server) serveGRPC(_ any, ss grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(ss)
	m := s.methods.byName[strings.TrimPrefix(full, "/")]
	label := "unknown"
	if m != nil {
		label = m.name
	}
	c := s.calls.newCall(ss.Context(), label, "grpc", incoming(ss.Context()))
	if err := ss.SetHeader(metadata.Pairs("x-request-id", c.id)); err != nil {
		return err
	}
	var answer proto.Message
	err := s.calls.run(ss.Context(), c, func(ctx context.Context) error {
		switch {
		case m == nil:
			return resource.Unimplemented(strings.TrimPrefix(full, "/"))
		case !m.listed:
			return resource.Unimplemented(m.name)
		}
		c.frequent = m.api.HTTP != nil
		req := m.request.New().Interface()
		if err := receive(ss, req, m.api.Limits); err != nil {
			return err
		}
		var err error
		answer, err = s.calls.invoke(ctx, c, m, req, func(out proto.Message) error { return ss.SendMsg(out) })
		return err
	})
	if err != nil || answer == nil {
		return err
	}
	return ss.SendMsg(answer)
}

// received takes a request whatever its bytes are. grpc-go itself answers
// INTERNAL for bytes that are no message, and they are the caller's fault.
type received struct {
	message proto.Message
	limits  api.Limits
	err     error
}

// codec is protobuf, but keeps the errors of requests for us.
type codec struct{ encoding.CodecV2 }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*received)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	if r.err = checkWire(b.ReadOnlyData(), r.message.ProtoReflect().Descriptor(), r.limits); r.err == nil {
		r.err = proto.UnmarshalOptions{RecursionLimit: maxNesting}.Unmarshal(b.ReadOnlyData(), r.message)
	}
	return nil
}

// receive reads the one request.
func receive(ss grpc.ServerStream, req proto.Message, limits api.Limits) error {
	r := &received{message: req, limits: limits}
	err := ss.RecvMsg(r)
	switch {
	case errors.Is(err, io.EOF):
		return resource.Invalid("request", "the call ended without a request")
	case status.Code(err) == codes.Internal:
		// A frame that is none: grpc-go has answered already, and log and metrics
		// must not call it a fault of ours.
		return resource.Invalid("request", "the frame cannot be read: %w", err)
	case err != nil:
		return err
	}
	return r.check()
}

func (r *received) check() error {
	if _, ours := errors.AsType[*resource.Error](r.err); ours {
		return r.err
	}
	if r.err != nil {
		if deep := tooDeep(r.err); deep != nil {
			return deep
		}
		return resource.Invalid("request", "the request is no %s", r.message.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// checkedStream is how grpc-go's own services get their requests.
type checkedStream struct{ grpc.ServerStream }

// RecvMsg implements grpc.ServerStream.
func (s checkedStream) RecvMsg(v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return s.ServerStream.RecvMsg(v)
	}
	r := &received{message: m}
	if err := s.ServerStream.RecvMsg(r); err != nil {
		return err
	}
	return r.check()
}

func incoming(ctx context.Context) func(string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return func(name string) string {
		if values := md.Get(name); len(values) > 0 {
			return values[0]
		}
		return ""
	}
}

// guardStream asks for a caller's identity where reflection answers; serveGRPC
// does it for all others.
func (s *Server) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !strings.HasPrefix(info.FullMethod, "/grpc.reflection.") {
		return next(srv, ss)
	}
	ss = checkedStream{ss}
	c := s.calls.newCall(ss.Context(), strings.TrimPrefix(info.FullMethod, "/"), "grpc", incoming(ss.Context()))
	return s.calls.run(ss.Context(), c, func(context.Context) error { return next(srv, ss) })
}

// listedServices tells reflection which services have a method in the table.
type listedServices struct{ methods *methods }

// GetServiceInfo implements reflection.ServiceInfoProvider.
func (l listedServices) GetServiceInfo() map[string]grpc.ServiceInfo {
	info := map[string]grpc.ServiceInfo{"grpc.health.v1.Health": {}, "grpc.reflection.v1.ServerReflection": {}}
	for name, m := range l.methods.byName {
		if service, _, _ := strings.Cut(name, "/"); m.listed {
			info[service] = grpc.ServiceInfo{}
		}
	}
	return info
}

// health answers for the server as a whole.
type health struct{ ready func() error }

// healthService has the one method that probes call; the others are refused by
// name as every unknown method is.
func healthService() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: healthpb.Health_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Check", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			req := &healthpb.HealthCheckRequest{}
			r := &received{message: req}
			if err := errors.Join(decode(r), r.check()); err != nil {
				return nil, err
			}
			h, _ := srv.(*health) // registered above
			return h.Check(ctx, req)
		}}},
		Metadata: healthpb.Health_ServiceDesc.Metadata,
	}
}

// Check implements the health service.
func (h *health) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	answer := healthpb.HealthCheckResponse_SERVING
	if h.ready != nil && h.ready() != nil {
		answer = healthpb.HealthCheckResponse_NOT_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: answer}, nil
}
