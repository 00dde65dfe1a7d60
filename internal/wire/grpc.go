package wire

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients may send compressed messages
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tategu/internal/resource"
)

// newGRPC serves every method of the table through one handler; no generated
// server code is registered.
func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.UnknownServiceHandler(s.serveGRPC),
		grpc.MaxRecvMsgSize(s.cfg.MaxMessage),
		grpc.MaxSendMsgSize(s.cfg.MaxMessage),
		grpc.StreamInterceptor(s.guardReflection),
	)
	healthpb.RegisterHealthServer(g, &health{ready: s.cfg.Ready})
	reflectionpb.RegisterServerReflectionServer(g, reflection.NewServerV1(reflection.ServerOptions{Services: listedServices{s.methods}}))
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
		req := m.request.New().Interface()
		if err := receive(ss, req); err != nil {
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

// receive reads the one request. Bytes that are no message are the caller's
// fault, for which grpc-go would answer INTERNAL.
func receive(ss grpc.ServerStream, req proto.Message) error {
	err := ss.RecvMsg(req)
	if status.Code(err) == codes.Internal {
		return resource.Invalid("request", "the request is no %s", req.ProtoReflect().Descriptor().FullName())
	}
	return err
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

// guardReflection asks for a caller's identity where grpc-go's own services
// answer; serveGRPC does it for all others.
func (s *Server) guardReflection(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !strings.HasPrefix(info.FullMethod, "/grpc.reflection.") {
		return next(srv, ss)
	}
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
type health struct {
	healthpb.UnimplementedHealthServer
	ready func() error
}

// Check implements the health service.
func (h *health) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	answer := healthpb.HealthCheckResponse_SERVING
	if h.ready != nil && h.ready() != nil {
		answer = healthpb.HealthCheckResponse_NOT_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: answer}, nil
}
