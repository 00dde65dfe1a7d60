package wire

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"tategu/internal/api"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/volume"
)

// dispatcher is the road that every call takes: recover, log and metrics, then
// identity, project aliases, permission, field checks, handler, audit, answer.
type dispatcher struct {
	identity Identity
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	tokens   bool         // loopback callers need tokens too
	room     func() error // of Config.Room
}

// call is one request on that road.
type call struct {
	id        string
	method    string // bounded: it is a metric label
	transport string // "grpc", "rest", or the name of a plain route
	conn      connInfo
	bearer    string
	chosen    string // IDHeader
	forwarded bool   // a reverse proxy stands between us and the caller
	start     time.Time
	probe     bool         // of a monitor: logged when debugging only
	frequent  bool         // a prediction: logged when debugging or not OK; enable_access_logging is for the rest
	well      *wellMetrics // those of its method where they are kept; nil = they are looked up
	open      bool         // no credential is asked for
	anonymous bool         // without a credential the handler decides
	page      bool         // a page of another origin asks
	prove     func(ctx context.Context) (p identity.Principal, claimed bool, err error)
	code      codes.Code // of an answer that a plain handler wrote itself
	principal identity.Principal
	project   string
	resource  string
	audited   bool // write an entry before the answer
}

func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails since Go 1.24
	var text [2 * len(b)]byte
	hex.Encode(text[:], b[:])
	return string(text[:])
}

// newCall reads what the headers say of the caller.
func (d *dispatcher) newCall(ctx context.Context, method, transport string, header func(string) string) *call {
	scheme, bearer, _ := strings.Cut(header("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		bearer = scheme + bearer // some other scheme: no token of ours, and not nothing either
	}
	return &call{
		id: requestID(), method: method, transport: transport, conn: connOf(ctx), start: d.now(),
		bearer:    strings.TrimSpace(bearer),
		chosen:    header(resource.IDHeader),
		forwarded: header("X-Forwarded-For") != "" || header("Forwarded") != "",
	}
}

// run takes one call along the road. serve runs once the caller is known; what
// run returns is what the caller may see. The answer is written after it.
func (d *dispatcher) run(ctx context.Context, c *call, serve func(ctx context.Context) error) (err error) {
	d.metrics.inFlight.Inc()
	defer func() { d.finish(ctx, c, err) }()
	if !c.open {
		c.principal, err = d.authenticate(ctx, c)
	}
	if err == nil {
		err = d.guard(identity.NewContext(ctx, c.principal), c, serve)
	}
	if err != nil {
		err = d.visible(ctx, c, err)
	}
	if c.audited && !volume.Blocked(err) {
		if auditErr := d.audit(ctx, c, resource.CodeOf(err)); auditErr != nil {
			d.log.ErrorContext(ctx, "audit", slog.String("id", c.id), slog.Any("error", auditErr))
			return d.auditError(ctx, c, auditErr)
		}
	}
	return err
}

// guard turns a panic into an error that names the request.
func (d *dispatcher) guard(ctx context.Context, c *call, serve func(ctx context.Context) error) (err error) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if r == http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
			panic(r)
		}
		d.log.ErrorContext(ctx, "panic", slog.String("id", c.id), slog.String("method", c.method),
			slog.String("panic", fmt.Sprint(r)), slog.String("stack", string(debug.Stack())))
		err = internalError(c.id)
	}()
	return serve(ctx)
}

// finish counts and logs one call. Nothing of bodies or tokens is in it.
func (d *dispatcher) finish(ctx context.Context, c *call, err error) {
	took := d.now().Sub(c.start)
	code := c.code
	if err != nil {
		code = resource.CodeOf(err)
	}
	d.metrics.inFlight.Dec()
	if c.well != nil && code == codes.OK {
		c.well.count(d.metrics, c, took)
	} else {
		d.metrics.requests.WithLabelValues(c.method, c.transport, codeName(code)).Inc()
		d.metrics.seconds.WithLabelValues(c.method).Observe(took.Seconds())
	}
	level := slog.LevelInfo
	switch {
	case code == codes.Internal || code == codes.Unknown || code == codes.DataLoss:
		level = slog.LevelError
	case c.probe, c.frequent && code == codes.OK:
		level = slog.LevelDebug
	}
	if !d.log.Enabled(ctx, level) {
		return
	}
	d.log.LogAttrs(ctx, level, "request", slog.String("id", c.id), slog.String("method", c.method), slog.String("transport", c.transport),
		slog.String("principal", c.principal.Email), slog.String("project", c.project), slog.String("code", codeName(code)),
		slog.Float64("ms", float64(took.Microseconds())/1000))
}

// authenticate: a proof in the request itself decides alone; a token is always
// checked; without one, a caller on this very machine is the operator. A reverse
// proxy on this machine is not the operator.
func (d *dispatcher) authenticate(ctx context.Context, c *call) (identity.Principal, error) {
	if !c.conn.loopback && !c.conn.tls {
		return identity.Principal{}, resource.Errorf(codes.PermissionDenied, "beyond loopback this server speaks TLS only").
			WithHint("use https and the CA file that `tategu env` names")
	}
	if c.prove != nil {
		if p, claimed, err := c.prove(ctx); claimed || err != nil {
			return p, err
		}
	}
	if c.bearer != "" {
		return d.identity.Authenticate(ctx, c.bearer)
	}
	if c.conn.loopback && !c.conn.outsider && !c.forwarded && !c.page && !d.tokens {
		return identity.OperatorPrincipal(), nil
	}
	if c.anonymous {
		return identity.Principal{}, nil
	}
	return identity.Principal{}, resource.Errorf(codes.Unauthenticated, "the request has no token").
		WithHint("run `tategu login` and set GOOGLE_APPLICATION_CREDENTIALS to the file that it names")
}

// invoke runs a method of the table: permission and checks around its handler.
// Messages are the handler's own (v1beta1); send gets those of a stream.
func (d *dispatcher) invoke(ctx context.Context, c *call, m *method, req proto.Message, send func(proto.Message) error) (proto.Message, error) {
	ctx, err := resource.WithID(inCallersVersion(ctx, m), c.chosen)
	if err != nil {
		return nil, err
	}
	c.audited = m.api.Mutates()
	if err := d.permit(ctx, c, m, req); err != nil {
		return nil, err
	}
	if err := d.roomFor(m); err != nil {
		return nil, err
	}
	if err := m.fields.check(req.ProtoReflect()); err != nil {
		return nil, err
	}
	if m.api.Stream != nil {
		d.metrics.streams.Inc()
		defer d.metrics.streams.Dec()
		return nil, m.api.Stream(ctx, req, func(out proto.Message) error { return send(inVersion(out, m.version)) })
	}
	out, err := m.api.Unary(ctx, req)
	if err != nil {
		return nil, err
	}
	return inVersion(out, m.version), nil
}

func inCallersVersion(ctx context.Context, m *method) context.Context {
	if m.version == "" {
		return ctx
	}
	return resource.WithVersion(ctx, m.version)
}

// inVersion answers operations in the version of the method that was called; one
// read back through the unversioned Operations service is as it was stored, in
// the version of the call that made it.
func inVersion(m proto.Message, version string) proto.Message {
	if version == "" {
		return m
	}
	switch m := m.(type) {
	case *longrunningpb.Operation:
		return operationIn(m, version)
	case *longrunningpb.ListOperationsResponse:
		out := &longrunningpb.ListOperationsResponse{NextPageToken: m.NextPageToken, Unreachable: m.Unreachable}
		for _, op := range m.Operations {
			out.Operations = append(out.Operations, operationIn(op, version))
		}
		return out
	default:
		return m
	}
}

func operationIn(op *longrunningpb.Operation, version string) *longrunningpb.Operation {
	retype := func(a *anypb.Any) *anypb.Any {
		if a == nil {
			return nil
		}
		return &anypb.Any{TypeUrl: resource.TypeURLIn(a.TypeUrl, version), Value: a.Value}
	}
	out := &longrunningpb.Operation{Name: op.Name, Metadata: retype(op.Metadata), Done: op.Done, Result: op.Result}
	if r, ok := op.Result.(*longrunningpb.Operation_Response); ok {
		out.Result = &longrunningpb.Operation_Response{Response: retype(r.Response)}
	}
	return out
}

// permit resolves project numbers in every resource name of the request and
// asks for the method's permission in each project named.
func (d *dispatcher) permit(ctx context.Context, c *call, m *method, req proto.Message) error {
	msg := req.ProtoReflect()
	var projects []string
	err := m.fields.eachName(msg, func(name string) (string, error) {
		name, project, err := d.resolve(ctx, c.principal, name)
		if err == nil && project != "" && !slices.Contains(projects, project) {
			projects = append(projects, project)
		}
		return name, err
	})
	if err != nil {
		return err
	}
	c.resource = m.fields.resource(msg)
	c.project = projectOf(c.resource)
	if !slices.Contains(projects, c.project) {
		projects = append(projects, c.project)
	}
	for _, project := range projects {
		if err := d.authorize(ctx, c.principal, project, m.api.Permission); err != nil {
			return err
		}
	}
	return nil
}

// authorize leaves out the question for what every authenticated caller may do.
func (d *dispatcher) authorize(ctx context.Context, p identity.Principal, project, permission string) error {
	if permission == api.Public {
		return nil
	}
	return d.identity.Authorize(ctx, p, project, permission)
}

// resolve puts the id of a project in place of its number.
func (d *dispatcher) resolve(ctx context.Context, p identity.Principal, name string) (resolved, project string, err error) {
	project = projectOf(name)
	if project == "" || strings.Trim(project, "0123456789") != "" {
		return name, project, nil
	}
	id, err := d.identity.ProjectID(ctx, project)
	if resource.IsNotFound(err) && !p.Operator {
		return name, project, nil // Authorize refuses it: a stranger learns no numbers
	}
	if err != nil {
		return "", "", err
	}
	return "projects/" + id + name[len("projects/")+len(project):], id, nil
}

func projectOf(name string) string {
	rest, ok := strings.CutPrefix(name, "projects/")
	if !ok {
		return ""
	}
	project, _, _ := strings.Cut(rest, "/")
	return project
}

func (d *dispatcher) audit(ctx context.Context, c *call, code codes.Code) error {
	if c.principal.Anonymous() && code != codes.OK {
		return nil // refused before anything could happen; it is in the log
	}
	// Written even when the caller has gone away meanwhile.
	return d.identity.Audit(context.WithoutCancel(ctx), d.entry(c, code))
}

func (d *dispatcher) entry(c *call, code codes.Code) identity.AuditEntry {
	who := c.principal.Email
	if c.principal.Anonymous() {
		who = "anonymous" // a policy opened it to everybody
	}
	return identity.AuditEntry{
		Time: d.now().UTC(), Principal: who, TokenID: c.principal.TokenID, Method: c.method, Project: c.project,
		Resource: c.resource, Code: code, RequestID: c.id,
	}
}
