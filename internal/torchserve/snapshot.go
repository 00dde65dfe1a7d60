package torchserve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// snapshotFile is the JSON of the key model_snapshot.
type snapshotFile struct {
	Name    string                           `json:"name"`
	Count   int                              `json:"modelCount"`
	Created int64                            `json:"created"` // milliseconds of the Unix time
	Models  map[string]map[string]savedModel `json:"models"`  // by name and version
	// Workflows are ours: TorchServe's snapshots have none, and it reads over them.
	Workflows map[string]savedWorkflow `json:"workflows,omitempty"`
}

// savedModel is one version in it, and in the key "models" of the configuration.
type savedModel struct {
	Default         bool   `json:"defaultVersion"`
	Archive         string `json:"marName"`
	MinWorkers      *int   `json:"minWorkers,omitempty"`
	MaxWorkers      *int   `json:"maxWorkers,omitempty"`
	BatchSize       *int   `json:"batchSize,omitempty"`
	MaxBatchDelay   *int64 `json:"maxBatchDelay,omitempty"`   // milliseconds
	ResponseTimeout *int64 `json:"responseTimeout,omitempty"` // seconds
	StartupTimeout  *int64 `json:"startupTimeout,omitempty"`  // seconds
	Handler         string `json:"handler,omitempty"`         // that it was registered with
	Runtime         string `json:"runtimeType,omitempty"`
}

func (m *savedModel) delay() *time.Duration    { return times(m.MaxBatchDelay, time.Millisecond) }
func (m *savedModel) response() *time.Duration { return times(m.ResponseTimeout, time.Second) }
func (m *savedModel) start() *time.Duration    { return times(m.StartupTimeout, time.Second) }

func times(n *int64, unit time.Duration) *time.Duration {
	if n == nil {
		return nil
	}
	d := time.Duration(*n) * unit
	return &d
}

// keptSnapshots is how many are there; older ones go.
const keptSnapshots = 20

// written is a snapshot in its folder.
type written struct {
	name string
	at   time.Time
}

// snapshots lists a folder's, the oldest first: by when they were written, as
// LastSnapshot does, since the local time of their names has hours that come twice.
func snapshots(folder string) ([]written, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []written
	for _, e := range entries {
		name := e.Name()
		if len(name) <= 17 || name[0] < '0' || name[0] > '9' || !strings.HasSuffix(name, snapshotSuffix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed just now
		}
		if err != nil {
			return nil, err
		}
		found = append(found, written{name, info.ModTime()})
	}
	slices.SortFunc(found, func(a, b written) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.name, b.name)) })
	return found, nil
}

// snapshot writes what is registered, so that the next start finds it. What cannot be
// written is told in the log: the model is registered all the same.
func (s *Server) snapshot(kind string) {
	if s.cfg.SnapshotFolder == "" {
		return
	}
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	if err := s.writeSnapshot(kind); err != nil {
		s.deps.Log.Error("The snapshot of the registered models was not written", slog.String("folder", s.cfg.SnapshotFolder), slog.Any("error", err))
	}
}

func (s *Server) writeSnapshot(kind string) error {
	now := time.Now()
	name := strings.ReplaceAll(now.Format("20060102150405.000"), ".", "") + "-" + kind + snapshotSuffix
	file := snapshotFile{Name: name, Created: now.UnixMilli(), Models: s.saved(), Workflows: s.savedWorkflows()}
	for _, versions := range file.Models {
		file.Count += len(versions)
	}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	props := maps.Clone(s.cfg.Properties)
	if props == nil {
		props = map[string]string{}
	}
	props["model_snapshot"] = string(data)
	delete(props, "load_models") // the snapshot is in its place
	if err := os.MkdirAll(s.cfg.SnapshotFolder, 0o755); err != nil {
		return err
	}
	old, err := snapshots(s.cfg.SnapshotFolder)
	if err != nil {
		return err
	}
	path := filepath.Join(s.cfg.SnapshotFolder, name)
	if err := writeDurably(path, formatProperties(props)); err != nil {
		return err
	}
	return keepLast(path, old)
}

// keepLast makes a snapshot that was just written the last one, whatever the clock was
// set to meanwhile, and removes those that are too many before it.
func keepLast(path string, old []written) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	old = slices.DeleteFunc(old, func(w written) bool { return w.name == info.Name() })
	if n := len(old); n > 0 && !info.ModTime().After(old[n-1].at) {
		at := old[n-1].at.Add(time.Millisecond)
		err = os.Chtimes(path, at, at)
	}
	for ; len(old) >= keptSnapshots; old = old[1:] {
		err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), old[0].name)))
	}
	return err
}

// writeDurably puts a file in place that is there whole, or not at all.
func writeDurably(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // it is in place; only its survival of a power cut is not sure
	}
	_ = dir.Sync() // likewise
	return dir.Close()
}

// begin brings the models of the start up.
func (s *Server) begin(ctx context.Context) error {
	if len(s.cfg.ModelSnapshot) > 0 {
		if err := s.restore(ctx, s.cfg.ModelSnapshot); err != nil {
			return err
		}
	} else {
		s.loadModels(ctx)
		s.loadWorkflows(ctx)
	}
	s.snapshot("startup")
	return nil
}

func (s *Server) restore(ctx context.Context, raw json.RawMessage) error {
	var file snapshotFile
	if err := json.Unmarshal(raw, &file); err != nil {
		return errorf(http.StatusInternalServerError, InvalidSnapshot, "model_snapshot is not what it should be: %w", err)
	}
	// Before the models: what was made the default version of a node's name stays it.
	for _, name := range slices.Sorted(maps.Keys(file.Workflows)) {
		m := file.Workflows[name]
		_, err := s.registerWorkflow(ctx, m.registration(name), origin{startup: true}, m.Nodes)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the server is stopping, which is no failure
		}
		if err != nil {
			return errorf(http.StatusInternalServerError, InvalidSnapshot, "the workflow %s of the snapshot %s cannot be registered: %w; start with --ncs to begin without the snapshot", name, file.Name, err)
		}
	}
	for name, versions := range file.Models {
		for id, m := range versions {
			r := Registration{URL: m.Archive, ModelName: name, Handler: m.Handler, Synchronous: true}
			out, err := s.register(ctx, r, origin{startup: true, saved: &m})
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the server is stopping, which is no failure
			}
			if out.Model == "" && err != nil {
				return errorf(http.StatusInternalServerError, InvalidSnapshot, "the model %s, version %s, of the snapshot %s cannot be registered: %w; start with --ncs to begin without the snapshot", name, id, file.Name, err)
			}
			if err != nil {
				s.startFailed(err)
				s.deps.Log.ErrorContext(ctx, "A model's workers do not start", slog.String("model", name), slog.String("version", id), slog.Any("error", err))
			}
			if m.Default {
				s.setDefault(name, out.Version)
			}
		}
	}
	return nil
}

func (s *Server) setDefault(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.models[name]; f != nil && f.versions[id] != nil {
		f.byDef = id
	}
}

// loadModels registers what load_models names. One that fails is told and left out.
func (s *Server) loadModels(ctx context.Context) {
	wanted := s.cfg.LoadModels
	if slices.ContainsFunc(wanted, func(w string) bool { return strings.EqualFold(w, "all") }) {
		var err error
		if wanted, err = s.allModels(); err != nil {
			s.deps.Log.ErrorContext(ctx, "The model store cannot be read", slog.Any("error", err))
		}
	}
	for _, w := range wanted {
		if strings.EqualFold(w, "none") {
			continue
		}
		name, url, named := strings.Cut(w, "=")
		if !named || strings.Contains(name, "/") { // an = of a URL
			name, url = "", w
		}
		_, err := s.register(ctx, Registration{URL: url, ModelName: name, Synchronous: true}, s.starting())
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.startFailed(fmt.Errorf("%s: %w", w, err))
			s.deps.Log.ErrorContext(ctx, "A model of the start is not loaded", slog.String("model", w), slog.Any("error", err))
		}
	}
}

// loadWorkflows registers those of the start. One that fails is told and left out.
func (s *Server) loadWorkflows(ctx context.Context) {
	for _, w := range s.cfg.LoadWorkflows {
		name, url, _ := strings.Cut(w, "=")
		_, err := s.registerWorkflow(ctx, WorkflowRegistration{URL: url, Name: name}, origin{startup: true}, nil)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.startFailed(fmt.Errorf("%s: %w", w, err))
			s.deps.Log.ErrorContext(ctx, "A workflow of the start is not loaded", slog.String("workflow", w), slog.Any("error", err))
		}
	}
}

// allModels lists the archives of the model store.
func (s *Server) allModels() ([]string, error) {
	if s.cfg.ModelStore == "" {
		return nil, errors.New("no model store is configured")
	}
	entries, err := os.ReadDir(s.cfg.ModelStore)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, "."):
		case strings.HasSuffix(name, ".mar"), strings.HasSuffix(name, ".model"), strings.HasSuffix(name, ".tgz"), strings.HasSuffix(name, ".tar.gz"):
			names = append(names, name)
		case e.IsDir():
			if _, err := os.Stat(filepath.Join(s.cfg.ModelStore, name, "MAR-INF", "MANIFEST.json")); err == nil {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// starting is how models of the start get their workers, where nobody says how many: one
// for each GPU, or between one and as many as cores, by their load.
func (s *Server) starting() origin {
	o := origin{startup: true}
	switch {
	case s.cfg.DefaultWorkers > 0: // as others
	case s.gpus > 0:
		o.initial, o.most = s.gpus, s.gpus
	default:
		o.initial, o.most = 1, s.cores()
	}
	return o
}

// formatProperties writes the format of java.util.Properties.
func formatProperties(props map[string]string) []byte {
	var b strings.Builder
	names := make([]string, 0, len(props))
	for k := range props {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Fprintf(&b, "%s=%s\n", escape(k, true), escape(props[k], false))
	}
	return []byte(b.String())
}

func escape(s string, isKey bool) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\f':
			b.WriteString(`\f`)
		case r == ' ' && (isKey || i == 0), isKey && (r == '=' || r == ':'), (r == '#' || r == '!') && i == 0:
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
