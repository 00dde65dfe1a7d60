package process

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"

	"tategu/internal/runtime/workload"
)

// place is what is done around the program.
func (in *instance) place() workload.Place {
	return workload.Place{
		Dir: in.dir, Workload: in.rec.Workload, Files: in.r.cfg.Files, Contained: in.contained, Stop: in.stop,
		Log: in.r.cfg.Log, Now: in.r.cfg.Now, Say: in.set,
	}
}

// identify opens the workload's identity and gives what ends it.
func (in *instance) identify(ctx context.Context) (end func(), err error) {
	id := workload.Identity{Credentials: in.r.cfg.Credentials, Workload: in.rec.Workload, Adopted: in.adopted, Log: in.r.cfg.Log}
	if workload.Exists(filepath.Join(in.dir, fileWrapper)) {
		return id.Later(ctx), nil
	}
	in.credentials, end, err = id.Open(ctx, in.stop)
	return end, err
}

// untilStop is ctx that also ends when Stop is called.
func (in *instance) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	return workload.UntilStop(ctx, in.stop)
}

// rewriteGCS points /gcs/... at the real directory where it cannot be mounted.
func rewriteGCS(text, dir string) string {
	return regexp.MustCompile(`(^|[^\w./-])/gcs(/|$)`).ReplaceAllString(text, "${1}"+strings.ReplaceAll(dir, "$", "$$")+"${2}")
}
