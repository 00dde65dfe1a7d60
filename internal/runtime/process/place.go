package process

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"

	"tategu/internal/runtime"
	"tategu/internal/runtime/workload"
)

// place is what is done around the program.
func (in *instance) place() workload.Place {
	return workload.Place{
		Dir: in.dir, Workload: in.rec.Workload, Files: in.r.cfg.Files, Contained: in.contained, Stop: in.stop,
		Log: in.r.cfg.Log, Now: in.r.cfg.Now, Say: in.set,
	}
}

// identity is a workload's credentials, once opened is closed.
type identity struct {
	opened chan struct{}
	env    map[string]string
	end    func()
	err    error
}

// identify opens the workload's identity, beside what else is to be prepared.
func (in *instance) identify(ctx context.Context) *identity {
	found := &identity{opened: make(chan struct{}), end: func() {}}
	id := workload.Identity{Credentials: in.r.cfg.Credentials, Workload: in.rec.Workload, Adopted: in.adopted, Log: in.r.cfg.Log}
	if workload.Exists(filepath.Join(in.dir, fileWrapper)) {
		found.end = id.Later(ctx)
		close(found.opened)
		return found
	}
	go func() { // whoever has it waits for it
		defer close(found.opened)
		found.env, found.end, found.err = id.Open(ctx, in.stop)
	}()
	return found
}

// wait returns once the identity is open; its end comes later.
func (i *identity) wait() (map[string]string, error) {
	<-i.opened
	return i.env, i.err
}

// close ends what was opened. Nothing that it gives may be used any more.
func (i *identity) close() {
	if <-i.opened; i.err == nil {
		i.end()
	}
}

// rewrite points /gcs/... and volumes at the real directories where they cannot be
// mounted.
func rewrite(text, dir string, volumes []workload.Mount) string {
	text = rewriteAt(text, runtime.GCSRoot, filepath.Join(dir, dirGCS))
	for _, v := range volumes {
		text = rewriteAt(text, v.To, v.From)
	}
	return text
}

// rewriteAt replaces a path, and what is below it, in a text.
func rewriteAt(text, at, dir string) string {
	within := regexp.MustCompile(`^[\w.-]$`) // of a longer name
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, at)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		last := b.String()[max(b.Len()-1, 0):]
		if within.MatchString(last) || last == "/" || after != "" && within.MatchString(after[:1]) {
			b.WriteString(at)
		} else {
			b.WriteString(dir)
		}
		text = after
	}
}
