package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	api "tategu/internal/api/torchserve"
	"tategu/internal/blob/bucket"
	"tategu/internal/mar"
	"tategu/internal/torchserve"
)

// TorchServe is a server of TorchServe's APIs alone, without a platform around it.
type TorchServe struct {
	Config  torchserve.Config
	KeyFile string      // key_file.json; "" = requests need no token
	Logs    string      // folder of access_log.log
	Metrics string      // folder of ts_metrics.log and model_metrics.log
	Objects mar.Objects // gs:// and s3://; nil = cloud buckets, with the environment's credentials
	Log     *slog.Logger
	Ready   func() // called once every address is listened on and the models of the start were tried
}

// grace is how long requests may go on once a server is told to end.
const grace = 10 * time.Second

// Run serves until ctx is done.
func (t *TorchServe) Run(ctx context.Context) (err error) {
	if t.Objects == nil {
		t.Objects = cloudObjects{}
	}
	logs, err := t.openLogs()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	listen := t.Config.Listen
	metrics, err := t.metrics(logs)
	if err != nil {
		return err
	}
	deps := api.Deps{Metrics: metrics, Log: t.Log, Access: logs.access, Store: t.Config.ModelStore}
	if t.KeyFile != "" {
		if deps.Tokens, err = api.NewTokens(t.KeyFile, listen.TokenLife, time.Now); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, removeFile(t.KeyFile)) }()
		t.Log.InfoContext(ctx, "requests need a token (--disable-token-auth goes without)", slog.String("keys", t.KeyFile))
	}
	engine, err := torchserve.New(t.Config, torchserve.Deps{Log: t.Log, Metrics: metrics, Objects: t.Objects, HTTP: &http.Client{}})
	if err != nil {
		return err
	}
	deps.Engine = engine
	servers, err := t.listen(api.New(listen, deps))
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// The engine goes last: requests that are answered need its workers.
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var open sync.WaitGroup
	open.Add(len(servers))
	group.Go(func() error { return engine.Run(serving) })
	group.Go(func() error {
		<-ctx.Done()
		open.Wait()
		end()
		return nil
	})
	group.Go(func() error { return metrics.Watch(ctx, listen.MetricsEvery) })
	group.Go(func() error { return logs.Run(ctx) })
	for _, s := range servers {
		group.Go(s.serve)
		group.Go(func() error {
			defer open.Done()
			<-ctx.Done()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			return s.shutdown(last)
		})
	}
	if t.Ready != nil {
		group.Go(func() error {
			select {
			case <-engine.Started():
				t.Ready()
			case <-ctx.Done():
			}
			return nil
		})
	}
	return group.Wait()
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (t *TorchServe) metrics(logs *torchserveLogs) (*api.Metrics, error) {
	cfg := api.MetricsConfig{
		Mode: api.Mode(t.Config.Listen.MetricsMode), Definitions: api.Definitions(), Detect: t.Config.Listen.MetricsDetect, Log: t.Log,
		Server: logs.server, Models: logs.models,
	}
	switch cfg.Mode {
	case api.ModeLog, api.ModePrometheus, api.ModeLegacy:
	default:
		return nil, fmt.Errorf("metrics_mode=%s: want log, prometheus or legacy", cfg.Mode)
	}
	if path := t.Config.MetricsConfig; path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("metrics_config: %w", err)
		}
		if cfg.Definitions, err = api.ReadDefinitions(text); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return api.NewMetrics(cfg), nil
}

// endpoint is one address that is listened on.
type endpoint struct {
	serve    func() error
	shutdown func(context.Context) error
}

// listen opens every address before the first one answers.
func (t *TorchServe) listen(a *api.API) (out []endpoint, err error) {
	var opened []net.Listener
	defer func() {
		if err != nil {
			for _, l := range opened {
				_ = l.Close() // nothing came of it
			}
		}
	}()
	l := t.Config.Listen
	open := func(b binding) (net.Listener, error) {
		ln, err := b.listen(l)
		if err == nil {
			opened = append(opened, ln)
		}
		return ln, err
	}
	https, err := bindings(l)
	if err != nil {
		return nil, err
	}
	for _, b := range https {
		ln, err := open(b)
		if err != nil {
			return nil, err
		}
		out = append(out, serveHTTP(ln, b.handler(a), t.Log))
		t.Log.Info("listening", slog.String("apis", b.names()), slog.String("address", b.String()))
	}
	for _, g := range []struct {
		name, host string
		port       int
		age, grace time.Duration
		make       func(...grpc.ServerOption) (*grpc.Server, error)
	}{
		{"inference", l.GRPCInference, l.GRPCInferencePort, l.GRPCInferenceAge, l.GRPCInferenceGrace, a.GRPCInference},
		{"management", l.GRPCManagement, l.GRPCManagementPort, l.GRPCManagementAge, l.GRPCManagementGrace, a.GRPCManagement},
	} {
		opts := []grpc.ServerOption{grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: g.age, MaxConnectionAgeGrace: g.grace})}
		if l.GRPCTLS {
			config, err := tlsConfig(l)
			if err != nil {
				return nil, err
			}
			opts = append(opts, grpc.Creds(credentials.NewTLS(config)))
		}
		server, err := g.make(opts...)
		if err != nil {
			return nil, err
		}
		b, err := grpcBinding(g.name, g.host, g.port)
		if err != nil {
			return nil, err
		}
		ln, err := open(b)
		if err != nil {
			return nil, err
		}
		out = append(out, serveGRPC(ln, server))
		t.Log.Info("listening", slog.String("apis", "gRPC "+g.name), slog.String("address", ln.Addr().String()))
	}
	return out, nil
}

func serveHTTP(ln net.Listener, h http.Handler, log *slog.Logger) endpoint {
	s := &http.Server{
		Handler: impatient(h, bodyPause), ReadHeaderTimeout: 20 * time.Second, IdleTimeout: 3 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return endpoint{
		serve: func() error {
			if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
		shutdown: func(ctx context.Context) error {
			if err := s.Shutdown(ctx); err != nil {
				return s.Close()
			}
			return nil
		},
	}
}

func serveGRPC(ln net.Listener, s *grpc.Server) endpoint {
	return endpoint{
		serve: func() error { return s.Serve(ln) },
		shutdown: func(ctx context.Context) error {
			done := make(chan struct{})
			go func() { defer close(done); s.GracefulStop() }()
			select {
			case <-done:
			case <-ctx.Done():
				s.Stop()
				<-done
			}
			return nil
		},
	}
}

// cloudObjects reads cloud buckets.
type cloudObjects struct{}

func (cloudObjects) OpenURI(ctx context.Context, uri string) (io.ReadCloser, error) {
	return CloudObject(ctx, uri)
}

// CloudObject opens gs://BUCKET/NAME or s3://BUCKET/NAME in the cloud, with the
// credentials of the environment.
func CloudObject(ctx context.Context, uri string) (io.ReadCloser, error) {
	return bucket.Read(ctx, uri)
}

// openLogs makes the folders of logs and opens them.
func (t *TorchServe) openLogs() (*torchserveLogs, error) {
	logs := &torchserveLogs{}
	for _, f := range []struct {
		into      **rolling
		dir, name string
		wanted    bool
	}{
		{&logs.access, t.Logs, "access_log.log", true},
		{&logs.server, t.Metrics, "ts_metrics.log", t.Config.Listen.MetricsMode != string(api.ModePrometheus)},
		{&logs.models, t.Metrics, "model_metrics.log", t.Config.Listen.MetricsMode != string(api.ModePrometheus)},
	} {
		*f.into = &rolling{path: filepath.Join(f.dir, f.name)}
		if !f.wanted {
			continue
		}
		if err := os.MkdirAll(f.dir, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("make the folder of logs: %w", err), logs.Close())
		}
		if err := (*f.into).open(); err != nil {
			return nil, errors.Join(err, logs.Close())
		}
	}
	return logs, nil
}
