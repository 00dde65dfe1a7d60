package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"tategu/internal/oip"
	"tategu/internal/scan"
)

// Config of a server.
type Config struct {
	Load    Loader
	Samples []byte // {"instances": [...]} to warm up with; nil = made-up ones
	Log     *slog.Logger
	Version string   // of the program, for GET /v2
	Names   []string // of the model in the protocol's routes; the first is told
	Health  string   // route of the container contract
	Predict string   // likewise
	Cores   int
	Threads int           // of each run; 0 = by measurement
	Batch   int           // rows of a batch at most
	Delay   time.Duration // that a batch waits for more rows
	Body    int64         // bytes of a request at most
}

// drain is how long requests may take after the end was asked for.
const drain = 30 * time.Second

// Server answers requests once the model is loaded.
type Server struct {
	cfg     Config
	stats   stats
	bodies  sync.Pool // of *[]byte
	readers sync.Pool // of *instances

	loaded atomic.Pointer[loaded] // nil until the model is there
	opened chan struct{}          // closed then
}

type loaded struct {
	model *Model
	batch *batcher
}

// New makes a server; nothing happens before Run.
func New(cfg Config) *Server { return &Server{cfg: cfg, opened: make(chan struct{})} }

// Run answers on the listener until ctx ends, and loads the model meanwhile, on the calling
// goroutine: until it is there and warm, the health routes answer 503, that of the container
// contract after a moment, so that whoever waits for the model hears of it at once. An error of loading ends it.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var frames sync.WaitGroup
	srv := &http.Server{Handler: s.framing(ctx, &frames, s.routes()), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() {
		served <- srv.Serve(l)
		cancel() // also when the listener broke
	}()
	err := s.work(ctx, srv, &frames)
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

// work loads the model and runs batches until the server has ended.
func (s *Server) work(ctx context.Context, srv *http.Server, frames *sync.WaitGroup) error {
	begin := time.Now()
	model, runs, err := open(s.cfg.Load, s.cfg.Samples, s.cfg.Threads, s.cfg.Cores)
	if err != nil {
		return errors.Join(err, srv.Close())
	}
	s.cfg.Log.InfoContext(ctx, "the model is loaded", slog.String("engine", model.Describe()), slog.Int("runs at a time", runs), slog.Duration("took", time.Since(begin)))
	batch := newBatcher(model, s.cfg.Batch, s.cfg.Delay, &s.stats)
	s.readers.New = func() any { return newInstances(model) }
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { batch.run(working, runs) })
	s.loaded.Store(&loaded{model, batch})
	close(s.opened)
	<-ctx.Done()
	// Requests under way are answered first, by the workers that end after them.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err = errors.Join(srv.Shutdown(ending), drained(ending, frames))
	stop()
	wg.Wait()
	return errors.Join(err, closeEngine(model.engine))
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	health := func(w http.ResponseWriter, _ *http.Request) { s.ready(w, "") }
	exact := map[string]map[string]http.HandlerFunc{
		s.cfg.Health: {http.MethodGet: s.awaited}, s.cfg.Predict: {http.MethodPost: s.predict},
	}
	mux.HandleFunc("GET /v2", s.serverMetadata)
	mux.HandleFunc("GET /v2/health/live", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, oip.ContentJSON, []byte(`{"live":true}`))
	})
	mux.HandleFunc("GET /v2/health/ready", health)
	for _, at := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		mux.HandleFunc("GET "+at, s.named(s.modelMetadata))
		mux.HandleFunc("GET "+at+"/ready", s.named(func(w http.ResponseWriter, r *http.Request, name string) { s.ready(w, name) }))
		mux.HandleFunc("POST "+at+"/infer", s.named(s.infer))
	}
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "application/openmetrics-text; version=1.0.0; charset=utf-8", s.stats.appendText(nil))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The contract's routes are as the server names them, colons and all.
		if methods, ok := exact[r.URL.Path]; ok {
			if h, ok := methods[r.Method]; ok {
				h(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// named checks the model's name, and the version, of which there is one.
func (s *Server) named(h func(w http.ResponseWriter, r *http.Request, name string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, version := r.PathValue("model"), r.PathValue("version")
		if !slices.Contains(s.cfg.Names, name) || version != "" && version != "1" {
			fail(w, http.StatusNotFound, fmt.Sprintf("there is no model %q of version %q here, but %q", name, cmp.Or(version, "1"), s.cfg.Names[0]))
			return
		}
		h(w, r, name)
	}
}

func answer(w http.ResponseWriter, status int, content string, body []byte) {
	w.Header().Set("Content-Type", content)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // never HTML; a client that is gone misses nothing
}

func fail(w http.ResponseWriter, status int, text string) {
	answer(w, status, oip.ContentJSON, oip.ErrorBody(text))
}

// ready is 503 until the model can be used; name is that of a model, "" = the server.
func (s *Server) ready(w http.ResponseWriter, name string) {
	status := http.StatusOK
	if s.loaded.Load() == nil {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, oip.ContentJSON, oip.ReadyBody(name, status == http.StatusOK))
}

// patience is how long the health route waits for the model to be loaded.
const patience = time.Second

// awaited is the health route of the container contract.
func (s *Server) awaited(w http.ResponseWriter, r *http.Request) {
	if s.loaded.Load() == nil {
		limit := time.NewTimer(patience)
		defer limit.Stop()
		select {
		case <-s.opened:
		case <-limit.C:
		case <-r.Context().Done():
			return
		}
	}
	s.ready(w, "")
}

// errLoading answers what comes before the model is there.
var errLoading = errors.New("the model is being loaded")

// model gives what is loaded, or answers that nothing is yet.
func (s *Server) model(w http.ResponseWriter) *loaded {
	l := s.loaded.Load()
	if l == nil {
		failed(w, errLoading)
	}
	return l
}

// failed answers with what went wrong.
func failed(w http.ResponseWriter, err error) { fail(w, statusOf(err), err.Error()) }

func statusOf(err error) int {
	status := http.StatusInternalServerError
	_, request := errors.AsType[*requestError](err)
	_, syntax := errors.AsType[*scan.SyntaxError](err)
	_, protocol := errors.AsType[*oip.Error](err)
	_, input := errors.AsType[*InputError](err)
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case request, syntax, protocol, input:
		status = http.StatusBadRequest
	case large:
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, errLoading), errors.Is(err, errClosed):
		status = http.StatusServiceUnavailable
	}
	return status
}

// body reads a request's. The memory goes back with put, if nothing uses it any more.
func (s *Server) body(w http.ResponseWriter, r *http.Request) (*[]byte, error) {
	b := s.memory()
	in := http.MaxBytesReader(w, r.Body, s.cfg.Body)
	var err error
	if n := r.ContentLength; n >= 0 && n <= s.cfg.Body {
		*b = slices.Grow((*b)[:0], int(n))[:n]
		_, err = io.ReadFull(in, *b)
	} else {
		*b, err = io.ReadAll(in)
	}
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	return b, nil
}

func (s *Server) memory() *[]byte {
	if b, ok := s.bodies.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

// mostKept bounds the memory of a request that is kept for the next.
const mostKept = 1 << 20

func (s *Server) put(b *[]byte) {
	if cap(*b) <= mostKept {
		s.bodies.Put(b)
	}
}

// predict is the route of the container contract.
func (s *Server) predict(w http.ResponseWriter, r *http.Request) {
	l := s.model(w)
	if l == nil {
		return
	}
	s.stats.requests.Add(1)
	body, err := s.body(w, r)
	var out []byte
	if err == nil {
		out, err = s.predictions(r.Context(), body, l)
	}
	if err != nil {
		s.stats.failed.Add(1)
		failed(w, err)
		return
	}
	answer(w, http.StatusOK, oip.ContentJSON, out)
}

// predictions takes the memory of the request over.
func (s *Server) predictions(ctx context.Context, body *[]byte, l *loaded) ([]byte, error) {
	in, ok := s.readers.Get().(*instances)
	if !ok {
		in = newInstances(l.model)
	}
	if err := in.read(*body); err != nil {
		s.put(body)
		s.readers.Put(in)
		return nil, err
	}
	answers, err := l.batch.all(ctx, in.parts)
	if ctx.Err() != nil {
		return nil, ctx.Err() // a run may still read the memory
	}
	var out []byte
	if err == nil {
		out = l.model.predictions(make([]byte, 0, 64+in.count*32), in.parts, answers)
	}
	if cap(*body) <= mostKept {
		s.readers.Put(in)
	}
	s.put(body)
	return out, err
}
