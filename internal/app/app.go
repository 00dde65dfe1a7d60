// Package app is the only wiring: it turns a Config into every part of the
// platform, by explicit lists, and runs them until the context ends.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tategu/internal/access"
	"tategu/internal/api/aiplatform"
	"tategu/internal/api/console"
	"tategu/internal/blob"
	"tategu/internal/blob/bucket"
	"tategu/internal/identity"
	"tategu/internal/identity/metadata"
	"tategu/internal/image"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/router"
	"tategu/internal/runtime/scheduler"
	"tategu/internal/store/sqlite"
	"tategu/internal/telemetry"
	"tategu/internal/volume"
	"tategu/internal/warehouse"
	"tategu/internal/wire"
)

// Main is the whole platform in one process. New builds it, Run serves until its
// context ends, Close releases what New opened.
type Main struct {
	cfg      Config
	version  string
	log      *slog.Logger
	registry *prometheus.Registry
	push     *telemetry.Push // nil where nobody collects
	now      func() time.Time

	lock       *os.File
	volume     *volume.Volume
	cacheRoom  *volume.Volume
	store      *sqlite.Store
	blobs      *blob.Store
	objects    *access.Objects // blobs for what is done on behalf of workloads
	content    *bucket.Content // nil when objects are on disk
	registered *image.Store
	pages      *console.Console
	authority  *identity.Authority
	ca         *wire.CA
	metadata   *metadata.Server
	schedule   *scheduler.Scheduler
	runtime    router.Machine
	images     *image.Images
	jobs       *aiplatform.PipelineJobs
	schedules  *aiplatform.Schedules
	engines    engines
	warehouses map[string]warehouse.Warehouse
	vectors    io.Closer // the database of indexes; nil = there is none
	wire       *wire.Server
	listener   net.Listener
	match      net.Listener // nil = private index endpoints have no address of their own
	state      State
	ready      atomic.Bool
}

// Run builds a server, calls ready once it answers, and serves until ctx ends.
func Run(ctx context.Context, cfg Config, version string, logs io.Writer, ready func(State)) error {
	m, err := New(ctx, cfg, version, logs)
	if err != nil {
		return err
	}
	return errors.Join(m.Run(ctx, ready), m.Close())
}

// New opens the data directory and builds every part. Nothing runs before Run,
// but the port is bound, so that State is known.
func New(ctx context.Context, cfg Config, version string, logs io.Writer) (*Main, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	// Children run in directories of their own, so no path may be relative.
	if err := cfg.absolute(); err != nil {
		return nil, err
	}
	format := telemetry.Text
	if cfg.LogJSON {
		format = telemetry.JSON
	}
	log, err := telemetry.NewLogger(logs, format, cfg.LogLevel)
	if err != nil {
		return nil, err
	}
	m := &Main{cfg: cfg, version: version, log: log, registry: telemetry.NewRegistry(version), now: time.Now}
	for _, open := range []func(context.Context) error{m.openData, m.openVolume, m.openState, m.openIdentity, m.listen, m.listenMatch, m.openRuntime, m.openEngines, m.openWire, m.openPush} {
		if err := open(ctx); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// openData makes the directories and takes the lock: one server a directory.
func (m *Main) openData(ctx context.Context) error {
	for _, dir := range []string{m.cfg.Data, runDir(m.cfg.Data), filepath.Join(m.cfg.Data, "ca"), filepath.Join(m.cfg.Data, "identity"), m.cfg.Cache} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return resource.Errorf(9, "make the data directory: %w", err).WithHint("name one you can write to with --data and --cache")
		}
	}
	lock, err := lockFile(ctx, filepath.Join(m.cfg.Data, "lock"))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return resource.Errorf(9, "the data directory %s is in use by another server", m.cfg.Data).
			WithHint("stop it, or name another directory with --data")
	}
	if err != nil {
		return resource.Errorf(9, "lock the data directory: %w", err).WithHint("name one on a file system with locks with --data")
	}
	m.lock = lock
	return nil
}

func (m *Main) openState(ctx context.Context) (err error) {
	if m.store, err = sqlite.Open(ctx, filepath.Join(m.cfg.Data, "state.db"), sqlite.OnVolume(m.volume)); err != nil {
		return err
	}
	content, err := m.openContent(ctx)
	if err != nil {
		return err
	}
	m.blobs = blob.New(m.store, content, m.now)
	m.registered = image.New(m.store, m.blobs, m.now)
	m.images = image.NewImages(m.registered, m.isOwn)
	for _, bucket := range m.cfg.Buckets {
		if err := m.blobs.EnsureBucket(ctx, m.cfg.Project, bucket); err != nil {
			return fmt.Errorf("make bucket %s: %w", bucket, err)
		}
	}
	return nil
}

func (m *Main) openIdentity(context.Context) (err error) {
	if m.authority, err = identity.NewAuthority(m.store, filepath.Join(m.cfg.Data, "identity"), m.now); err != nil {
		return err
	}
	m.objects = access.New(m.blobs, m.authority)
	hosts := m.cfg.Hosts
	if m.cfg.Public != "" {
		hosts = append([]string{m.cfg.Public}, hosts...)
	}
	if host, _, err := net.SplitHostPort(m.cfg.Listen); err == nil {
		if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() && !ip.IsLoopback() {
			hosts = append(hosts, host)
		}
	}
	if m.ca, err = wire.OpenCA(filepath.Join(m.cfg.Data, "ca"), m.now, hosts...); err != nil {
		return err
	}
	m.metadata = metadata.New(m.authority, m.log, m.now)
	return nil
}

// listen binds the port and writes what clients need to trust and name us.
func (m *Main) listen(ctx context.Context) (err error) {
	if m.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", m.cfg.Listen); err != nil {
		return resource.Errorf(9, "listen on %s: %w", m.cfg.Listen, err).WithHint("choose a free port with --listen HOST:PORT")
	}
	address := local(m.listener.Addr().String())
	public := m.cfg.Public
	if public == "" {
		public = address
	}
	run := runDir(m.cfg.Data)
	m.state = State{
		PID: os.Getpid(), Address: address, Public: public, Project: m.cfg.Project, Location: m.cfg.Location,
		CA: m.ca.CertFile(), Bundle: filepath.Join(run, "bundle.pem"),
		Credentials: filepath.Join(run, "credentials.json"), Intercept: filepath.Join(run, "intercept.json"),
	}
	others, err := m.ca.WriteBundle(m.state.Bundle, nil)
	if err != nil {
		return err
	}
	if others == 0 {
		m.log.WarnContext(ctx, "this machine has no certificate bundle: clients in the intercept mode will not reach outside hosts")
	}
	return m.writeCredentials(ctx)
}

// local gives the address by which programs of this machine reach a listener:
// one on all addresses is reached over loopback.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return address
	}
	return net.JoinHostPort("127.0.0.1", port)
}

func (m *Main) writeCredentials(ctx context.Context) error {
	token, err := m.authority.OperatorRefreshToken(ctx)
	if err != nil {
		return err
	}
	login, err := identity.LoginFile("https://"+m.state.Public, token)
	if err != nil {
		return err
	}
	intercept, err := identity.InterceptFile(token)
	if err != nil {
		return err
	}
	return errors.Join(writeFile(m.state.Credentials, login), writeFile(m.state.Intercept, intercept))
}

func (m *Main) openRuntime(ctx context.Context) error {
	uv, install, err := lookForUV(m.cfg.UV, m.cfg.Cache)
	if err != nil {
		// Not fatal: models served natively and plain commands need no Python.
		m.log.WarnContext(ctx, "Python tasks will fail", slog.Any("error", err))
	}
	if err := m.openSchedule(ctx); err != nil {
		return err
	}
	m.schedule.Hold()
	defer m.schedule.Open() // both adapters have counted what they found
	logs := &logSink{blobs: m.blobs, rows: m.store}
	programs, err := process.New(process.Config{
		Dir: filepath.Join(m.cfg.Data, "workloads"), Volumes: filepath.Join(m.cfg.Data, "volumes"), CacheDir: m.cfg.Cache, Images: m.cfg.Images,
		Schedule: m.schedule, ImageStore: m.images, ImageBytes: m.cfg.Limits.ImageBytes, Processes: m.cfg.Limits.Processes,
		Files: m.objects, Credentials: m.metadata, Logs: logs, Log: m.log, Now: m.now, UV: uv, InstallUV: install, ExtraEnv: m.state.taskEnv(),
		Wrapper: process.Packed(), Zygotes: m.cfg.zygotes(), Idle: m.cfg.Python.Idle,
	})
	if err != nil {
		return err
	}
	m.runtime = programs
	if err := m.openEngine(ctx, programs, logs); err != nil {
		return err
	}
	adopted := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tategu_workloads_adopted_total",
		Help: "Programs of an earlier server that this one took over at its start and did not start again.",
	}, func() float64 { return float64(m.runtime.Adopted()) })
	if err := errors.Join(m.registry.Register(adopted), m.registry.Register(startMetrics{programs})); err != nil {
		return fmt.Errorf("runtime metrics: %w", err)
	}
	return m.retainCredentials(ctx)
}

// retainCredentials drops the identities of tasks that ended while no server ran.
func (m *Main) retainCredentials(ctx context.Context) error {
	instances, err := m.runtime.List(ctx)
	if err != nil {
		return err
	}
	var ids []string
	for _, in := range instances {
		if in.Status().Phase != runtime.Ended {
			ids = append(ids, in.ID())
		}
	}
	return m.metadata.Retain(ctx, ids)
}

func (m *Main) openWire(context.Context) error {
	table, err := m.table()
	if err != nil {
		return err
	}
	routes, err := m.routes()
	if err != nil {
		return err
	}
	cfg := wire.Config{
		Table: table, Identity: m.authority, Routes: routes, Log: m.log, Now: m.now, Registry: m.registry, CA: m.ca,
		Hosts: m.cfg.Hosts, Tunnel: m.cfg.Tunnel, MaxBody: m.cfg.Limits.BodyBytes, Ready: m.readiness, Room: m.volume.Room,
		Outsider: process.FromContainer(),
	}
	if m.cfg.Public != "" {
		cfg.Hosts = append([]string{m.cfg.Public}, cfg.Hosts...)
	}
	if m.cfg.TLS.Cert != "" {
		cert, err := tls.LoadX509KeyPair(m.cfg.TLS.Cert, m.cfg.TLS.Key)
		if err != nil {
			return resource.Invalid("tls", "load the certificate: %v", err)
		}
		cfg.Certificate = &cert
	}
	m.wire, err = wire.New(cfg)
	return err
}

// openPush prepares metrics to be sent to a collector, where the standard variables
// name one.
func (m *Main) openPush(ctx context.Context) (err error) {
	if m.push, err = telemetry.NewPush(ctx, m.registry, m.version, os.Getenv, m.log); err != nil {
		return resource.Invalid("OTEL_*", "send metrics by OTLP: %v", err).WithHint("docs/guide/serving.md has the variables, below Metrics")
	}
	return nil
}

func (m *Main) readiness() error {
	if !m.ready.Load() {
		return errors.New("starting")
	}
	return m.volume.Writable()
}

// State says where the server is reached.
func (m *Main) State() State { return m.state }

// Run serves until ctx ends. Programs that were started go on; the next server
// on the data directory finds them.
func (m *Main) Run(ctx context.Context, ready func(State)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.wire.Serve(ctx, m.listener) })
	if m.match != nil {
		g.Go(func() error { return m.wire.Serve(ctx, m.match) })
	}
	g.Go(func() error { return m.pages.Run(ctx) })
	g.Go(func() error { return m.metadata.Run(ctx) })
	g.Go(func() error { return named("runtime", m.runtime.Run(ctx)) })
	for _, e := range m.engines.list() {
		g.Go(func() error { return named(e.name, e.Run(ctx)) })
	}
	g.Go(func() error { return m.announce(ctx, ready) })
	g.Go(func() error { return m.keepHouse(ctx) })
	if m.push != nil {
		g.Go(func() error { return m.push.Run(ctx) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func named(name string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// announce tells the outside once earlier deployments take requests again.
func (m *Main) announce(ctx context.Context, ready func(State)) error {
	if err := m.engines.serving.Ready(ctx); err != nil {
		return named("serving", err)
	}
	m.ready.Store(true)
	if err := writeState(m.cfg.Data, m.state); err != nil {
		return err
	}
	m.log.InfoContext(ctx, "ready", slog.String("address", m.state.Address), slog.String("data", m.cfg.Data))
	ready(m.state)
	// The start needs several times what a server at rest does, and the collector would
	// let the heap grow to twice that before it looks again. What the migrations pooled
	// is free after the second collection.
	goruntime.GC()
	debug.FreeOSMemory()
	return nil
}

// Close releases what New opened, in the opposite order. It is safe on a Main
// that New could not finish.
func (m *Main) Close() error {
	var errs []error
	if m.listener != nil {
		_ = m.listener.Close() // closed already when Run served it
	}
	if m.match != nil {
		_ = m.match.Close() // likewise
	}
	if m.runtime != nil {
		errs = append(errs, m.runtime.Close())
	}
	for _, w := range m.warehouses {
		errs = append(errs, w.Close())
	}
	if m.vectors != nil {
		errs = append(errs, m.vectors.Close())
	}
	if m.metadata != nil {
		errs = append(errs, m.metadata.Close())
	}
	if m.content != nil {
		errs = append(errs, m.content.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	if m.lock != nil {
		errs = append(errs, os.Remove(statePath(m.cfg.Data)), m.lock.Close())
		if os.IsNotExist(errs[len(errs)-2]) {
			errs[len(errs)-2] = nil // it never became ready
		}
	}
	return errors.Join(errs...)
}

// isOwn reports HOST:PORT of this server, as clients name it in references.
func (m *Main) isOwn(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return false
	}
	_, bound, err := net.SplitHostPort(m.state.Address)
	if err != nil || host == m.state.Public || host == m.state.Address {
		return err == nil
	}
	ip := net.ParseIP(name)
	return port == bound && (name == "localhost" || ip != nil && ip.IsLoopback() || slices.Contains(m.cfg.Hosts, name))
}

// hasImage reports whether the configuration says what an image stands for, or it
// is kept here.
func (m *Main) hasImage(image string) bool {
	_, err := runtime.Choose(context.Background(), m.cfg.Images, m.images, image)
	return err == nil
}
