package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/record"
	"tategu/internal/volume"
)

// Records of a workload's directory that every adapter keeps: what makes it known,
// and what ends it. docs/adr/0013 says which of them outlasts what.
const (
	FileRecord = "record.json" // Accepted
	FileEnd    = "end.json"    // End
)

// gone begins the names of directories that are being removed; no id begins so.
const gone = ".gone-"

// Accepted is record.json: a workload for which Start has returned.
type Accepted struct {
	Workload runtime.Workload
	Created  time.Time
	Port     int    // handed to it; 0 = none
	Boot     string // of the machine, when it was written; "" = by a server that did not say
}

// Whole implements record.Whole.
func (a *Accepted) Whole() bool { return a.Workload.ID != "" }

// End is end.json. It holds the record as well, so that it stands for itself.
type End struct {
	runtime.Exit
	Record *Accepted // nil = by a server that kept it in record.json alone
}

// Whole implements record.Whole.
func (e *End) Whole() bool { return !e.Ended.IsZero() }

// Accept records a workload in a directory of its own. What is there is of nobody:
// an earlier workload of that id was released or forgotten, and could not be removed.
// mkdir makes the directory, perhaps with others in it; nil = the usual way.
func Accept(dir string, rec Accepted, mkdir func(dir string) error) error {
	if err := Discard(dir); err != nil {
		return err
	}
	if mkdir == nil {
		mkdir = func(dir string) error { return os.MkdirAll(dir, 0o700) }
	}
	if err := mkdir(dir); err != nil {
		return err
	}
	return record.WriteWhole(filepath.Join(dir, FileRecord), rec)
}

// Load reads what is known of a workload, and how it has ended; nil = not yet. What
// is not known, as record.Absent tells, nobody counts on: Start did not return, or
// the machine, which runs as boot, has restarted since, so that its program is gone
// and its files, and objects made of them, may lack what was never written to the
// disk. Its owner starts it again under the same id, unless it knows the end itself.
func Load(dir, boot string) (rec Accepted, exit *runtime.Exit, err error) {
	var end End
	switch err := record.ReadWhole(filepath.Join(dir, FileEnd), &end); {
	case err == nil:
		exit = &end.Exit
	case !record.Absent(err):
		return Accepted{}, nil, err
	}
	if exit != nil && end.Record != nil {
		rec = *end.Record
	} else if err := record.ReadWhole(filepath.Join(dir, FileRecord), &rec); err != nil {
		return Accepted{}, nil, err
	}
	name := filepath.Base(dir)
	if rec.Workload.ID != name {
		return Accepted{}, nil, fmt.Errorf("%w: %s is the record of %s", record.ErrTorn, name, rec.Workload.ID)
	}
	if rec.Boot != "" && boot != "" && rec.Boot != boot {
		return Accepted{}, nil, fmt.Errorf("%w: %s is of the time before the machine restarted", record.ErrTorn, name)
	}
	return rec, exit, nil
}

// WriteEnd makes an end outlast the server, before anybody hears of it. It waits for
// room on the disk, and not for the disk: whoever hears of the end makes it durable in
// the store, and until then a power loss means that the program runs again, as it does
// if it comes a moment earlier.
func WriteEnd(ctx context.Context, log *slog.Logger, dir string, exit runtime.Exit, rec Accepted) error {
	path := filepath.Join(dir, FileEnd)
	return volume.Retry(ctx, func(err error) {
		log.WarnContext(ctx, "waiting to write a workload's state", slog.String("file", path), slog.Any("error", err))
	}, func() error { return record.WriteWhole(path, End{Exit: exit, Record: &rec}) })
}

// Discard takes a workload's directory away in one step: a server that is killed
// meanwhile leaves all of it, or what its successor takes for rubbish.
func Discard(dir string) error {
	away, err := TakeAway(dir)
	if err != nil {
		return err
	}
	return RemoveAll(away)
}

// TakeAway is the step of Discard after which the directory counts as gone. What it
// gives is to be removed, which takes a while.
func TakeAway(dir string) (away string, err error) {
	away = filepath.Join(filepath.Dir(dir), gone+filepath.Base(dir))
	if err := RemoveAll(away); err != nil {
		return away, err
	}
	if err := os.Rename(dir, away); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return away, err
	}
	return away, nil
}
