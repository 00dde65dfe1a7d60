// Package wire is the one port: TLS with our own authority, HTTP/1.1, h2c, gRPC
// and an HTTP CONNECT proxy on one listener, and in front of every method the
// same road: log and metrics, identity, permission, field checks, audit. It
// turns REST into protobuf by the google.api.http rules of the descriptors. What
// a method does is in the dispatch table of package api; nothing of it is here.
package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"tategu/internal/api"
	"tategu/internal/identity"
)

// Identity says who calls and whether they may; identity.Authority is one.
type Identity interface {
	// Authenticate proves who holds a bearer token.
	Authenticate(ctx context.Context, bearer string) (identity.Principal, error)
	// Authorize is nil when p has the permission in the project.
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
	// ProjectID gives the id that a project is stored under.
	ProjectID(ctx context.Context, idOrNumber string) (string, error)
	// Audit makes an entry durable.
	Audit(ctx context.Context, e identity.AuditEntry) error
}

// Config is what a Server is made of. Table, Identity, Log, Now, Registry and CA
// are needed; the zero value of the others is a sound default.
type Config struct {
	Table    *api.Table
	Identity Identity
	Routes   []Route // plain HTTP, asked before the REST routes of the table
	Log      *slog.Logger
	Now      func() time.Time
	Registry *prometheus.Registry
	CA       *CA
	// Certificate is served instead of the authority's to clients that ask for a
	// name it covers.
	Certificate *tls.Certificate
	// Hosts are further names and addresses of this server, as given to OpenCA.
	Hosts []string
	// LoopbackTokens demands a token on loopback too; without it a caller on the
	// same machine who shows none is the operator.
	LoopbackTokens bool
	// Outsider reports a connection over loopback of a program that is not to be
	// taken for one of the machine's own, such as one in a container: it is never
	// the operator. It may be nil.
	Outsider func(local, remote *net.TCPAddr) bool
	// Tunnel lets the proxy pass connections to hosts that are not ours through.
	Tunnel bool
	// MaxBody bounds a REST body, MaxMessage a gRPC message; both 64 MiB if zero.
	MaxBody    int64
	MaxMessage int
	// Drain bounds how long running requests may take to end at shutdown; 10 s if zero.
	Drain time.Duration
	// Ready is nil-safe; its error makes /readyz answer 503 and says why.
	Ready func() error
	// Room, when set, gives the error of requests that would add to the state while
	// the disk is nearly full.
	Room func() error
}

// Server answers everything that comes in on the port.
type Server struct {
	cfg     Config
	hosts   hosts
	methods *methods
	routes  *router
	calls   *dispatcher
	grpc    *grpc.Server
	metrics *metrics
	http    http.Handler
}

// New builds the routes and the gRPC services.
func New(cfg Config) (*Server, error) {
	if cfg.Table == nil || cfg.Identity == nil || cfg.Log == nil || cfg.Now == nil || cfg.Registry == nil || cfg.CA == nil {
		return nil, errors.New("wire: Table, Identity, Log, Now, Registry and CA are needed")
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 64 << 20
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = 64 << 20
	}
	if cfg.Drain == 0 {
		cfg.Drain = 10 * time.Second
	}
	s := &Server{cfg: cfg, hosts: newHosts(cfg.Hosts)}
	var err error
	if s.methods, err = newMethods(cfg.Table); err != nil {
		return nil, err
	}
	if s.routes, err = newRouter(s.methods); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(cfg.Registry); err != nil {
		return nil, err
	}
	s.calls = &dispatcher{identity: cfg.Identity, log: cfg.Log, now: cfg.Now, metrics: s.metrics, tokens: cfg.LoopbackTokens, room: cfg.Room}
	s.grpc = s.newGRPC()
	s.http = s.newHandler()
	return s, nil
}

// Handler serves HTTP without the listener's tricks, for tests: every caller
// counts as one from beyond loopback without TLS unless Serve says otherwise.
func (s *Server) Handler() http.Handler { return s.http }

// Serve answers connections of ln until ctx ends, then lets running requests
// finish for a bounded time. It may be called for several listeners.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return newPort(s, ln).run(ctx)
}

// Close ends what outlives the listeners. Call it after every Serve returned.
func (s *Server) Close() { s.grpc.Stop() }

func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: s.certificate,
	}
}

// certificate is the given one where it fits, else one of our authority for the
// asked name. Unknown names get the server's own, which then does not verify.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host := canonicalHost(hello.ServerName)
	if given := s.cfg.Certificate; given != nil && !implemented(host) {
		if host == "" || hello.SupportsCertificate(given) == nil {
			return given, nil
		}
	}
	if !s.hosts.mayMint(host) {
		host = ""
	}
	return s.cfg.CA.leaf(host)
}
