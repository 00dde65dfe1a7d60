package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime/workload"

	"google.golang.org/grpc/codes"
)

// search is one that looks for an interpreter, and what came of it once done is closed.
type search struct {
	done  chan struct{}
	found interpreter
	err   error
}

// interpreter finds the Python that w asks for. Finding takes a program start or
// two, so answers are kept, and whoever asks meanwhile waits for the same one: after
// a restart many do. A Python that vanishes shows as a failed build.
func (e *environments) interpreter(ctx context.Context, w wish, say func(string)) (interpreter, error) {
	id := fmt.Sprintf("%s %t", w.Version, w.Any)
	for {
		e.mu.Lock()
		found, ok := e.interpreters[id]
		if ok && workload.Exists(found.path) {
			e.mu.Unlock()
			return found, nil
		}
		s := e.searches[id]
		if s == nil {
			s = &search{done: make(chan struct{})}
			if e.searches == nil {
				e.searches = map[string]*search{}
			}
			e.searches[id] = s
			e.mu.Unlock()
			s.found, s.err = e.look(ctx, w, say)
			e.mu.Lock()
			if delete(e.searches, id); s.err == nil {
				e.interpreters[id] = s.found
			}
			e.mu.Unlock()
			close(s.done)
			return s.found, s.err
		}
		e.mu.Unlock()
		say("waiting for Python " + cmpOr(w.Version, "3"))
		select {
		case <-s.done:
		case <-ctx.Done():
			return interpreter{}, ctx.Err()
		}
		if !errors.Is(s.err, context.Canceled) { // whoever looked was stopped, not we
			return s.found, s.err
		}
	}
}

// look finds it, or lets uv fetch it.
func (e *environments) look(ctx context.Context, w wish, say func(string)) (interpreter, error) {
	found, err := e.find(ctx, w.Version)
	if err != nil && w.Version != "" && e.uv != "" && ctx.Err() == nil {
		say("fetching Python " + w.Version)
		found, err = e.download(ctx, w.Version)
	}
	if err != nil && w.Any && w.Version != "" {
		if found, err = e.find(ctx, ""); err == nil {
			found.note = fmt.Sprintf("Python %s instead of %s (python.match: any)", found.version, w.Version)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return interpreter{}, ctx.Err()
		}
		return interpreter{}, resource.Errorf(codes.FailedPrecondition, "Python %s is not on this machine and could not be fetched", cmpOr(w.Version, "3")).
			WithCause(resource.CauseDependency).WithHint("install it (uv python install %s), or accept another version with python.match: any in an images: rule of tategu.yaml", cmpOr(w.Version, "3.11"))
	}
	return found, nil
}

func cmpOr(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// find asks uv, then looks where version managers put interpreters: one broken
// shim in PATH hides all others from uv.
func (e *environments) find(ctx context.Context, version string) (interpreter, error) {
	var candidates []string
	if e.uv != "" {
		args := []string{"python", "find", "--no-project", "--system", "--no-python-downloads"}
		if version != "" {
			args = append(args, version)
		}
		if out, err := exec.CommandContext(ctx, e.uv, args...).Output(); err == nil {
			candidates = append(candidates, strings.TrimSpace(string(out)))
		}
	}
	candidates = append(candidates, "python"+cmpOr(version, "3"))
	if home, err := os.UserHomeDir(); err == nil && version != "" {
		if found, err := filepath.Glob(filepath.Join(home, ".pyenv", "versions", version+"*", "bin", "python3")); err == nil {
			candidates = append(candidates, found...)
		}
	}
	var errs []error
	for _, candidate := range candidates {
		found, err := inspect(ctx, candidate, version)
		if err == nil {
			return found, nil
		}
		errs = append(errs, err)
	}
	return interpreter{}, errors.Join(errs...)
}

// inspect asks an interpreter who it is: shims and links give way to the real one.
func inspect(ctx context.Context, candidate, version string) (interpreter, error) {
	out, err := exec.CommandContext(ctx, candidate, "-I", "-c", "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])").Output()
	if err != nil {
		return interpreter{}, err
	}
	path, is, ok := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if !ok || !filepath.IsAbs(path) {
		return interpreter{}, fmt.Errorf("%s says it is %q", candidate, out)
	}
	if version != "" && is != version && !strings.HasPrefix(is, version+".") {
		return interpreter{}, fmt.Errorf("%s is Python %s", candidate, is)
	}
	return interpreter{path: path, version: is}, nil
}

// download lets uv fetch an interpreter; without a network it gives up soon.
func (e *environments) download(ctx context.Context, version string) (interpreter, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := exec.CommandContext(ctx, e.uv, "python", "install", "--no-bin", version).Run(); err != nil {
		return interpreter{}, err
	}
	return e.find(ctx, version)
}

// group is a run of requirements that are installed with the same options.
type group struct{ flags, packages []string }

// groups cuts the list where the options change; an entry may start with some, as
// in "--no-deps kfp==2.17.0". The order stays: later entries may replace earlier ones.
func groups(packages []string) []group {
	var out []group
	for _, p := range packages {
		flags, requirement := cutFlags(p)
		if len(out) == 0 || !slices.Equal(out[len(out)-1].flags, flags) {
			out = append(out, group{flags: flags})
		}
		if requirement != "" {
			last := &out[len(out)-1]
			last.packages = append(last.packages, requirement)
		}
	}
	return slices.DeleteFunc(out, func(g group) bool { return len(g.packages) == 0 })
}

// cutFlags splits leading options, with their values, from the requirement, which
// may hold spaces itself.
func cutFlags(entry string) (flags []string, requirement string) {
	rest := strings.TrimSpace(entry)
	for strings.HasPrefix(rest, "-") {
		flag, after, _ := strings.Cut(rest, " ")
		flags, rest = append(flags, flag), strings.TrimSpace(after)
		switch flag {
		case "--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--trusted-host":
			value, after, _ := strings.Cut(rest, " ")
			flags, rest = append(flags, value), strings.TrimSpace(after)
		}
	}
	return flags, rest
}

// uvFlags speaks of indexes as uv does. To its old names for them, which are pip's,
// it prefers a variable of the server such as UV_DEFAULT_INDEX.
func uvFlags(indexes, flags []string) []string {
	out := pipFlags(indexes, flags)
	ours := map[string]string{
		"--trusted-host": "--allow-insecure-host", "--index-url": "--default-index", "-i": "--default-index", "--extra-index-url": "--index",
	}
	for i, f := range out {
		if name, ok := ours[f]; ok {
			out[i] = name
		}
	}
	return slices.DeleteFunc(out, func(f string) bool {
		return f == "--quiet" || f == "--no-warn-script-location" || f == "--disable-pip-version-check"
	})
}

func pipFlags(indexes, flags []string) []string {
	var out []string
	for i, url := range indexes {
		name := "--extra-index-url"
		if i == 0 {
			name = "--index-url"
		}
		out = append(out, name, url)
	}
	return append(out, flags...)
}
