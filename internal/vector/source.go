package vector

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/vector/datapoint"
)

// maxFiles is the API's bound of a batch update.
const maxFiles = 5000

// deleteFolder holds files of ids to be removed.
const deleteFolder = "delete"

// folder is the input of one batch update.
type folder struct {
	objects Objects // as the index's project sees them
	index   Index
	report  *report
	uri     string
	data    []blob.Object
	deletes []blob.Object
	seen    map[string]bool // ids of datapoints; of removed ones the value is false
	removed []string
}

// open lists the files of a folder. Datapoints are in files right below it, whose
// suffix says how they are written; ids to be removed in text files in delete/.
func (e *Engine) open(ctx context.Context, index Index, uri string, report *report) (*folder, error) {
	bucket, prefix, err := blob.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	name, err := resource.ParseName(index.Name)
	if err != nil {
		return nil, err
	}
	objects := e.cfg.Objects(identity.Account{Project: name.Project()})
	f := &folder{objects: objects, index: index, report: report, uri: uri, seen: map[string]bool{}}
	for q := (blob.ListQuery{Prefix: prefix}); ; {
		page, err := objects.List(ctx, bucket, q)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", uri, err)
		}
		for _, o := range page.Objects {
			if err := f.add(o, strings.TrimPrefix(o.Name, prefix)); err != nil {
				return nil, err
			}
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	switch n := len(f.data) + len(f.deletes); {
	case n == 0:
		return nil, f.wrong(codes.NotFound, "there is no file of datapoints below %s", uri).WithHint("put .json, .csv or .avro files right below it")
	case n > maxFiles:
		return nil, f.wrong(codes.InvalidArgument, "there are %d files below %s; %d is the most", n, uri, maxFiles)
	}
	return f, nil
}

func (f *folder) wrong(code codes.Code, format string, args ...any) *resource.Error {
	return resource.Errorf(code, format, args...).WithCause(resource.CauseInput).WithResource(f.uri)
}

func (f *folder) add(o blob.Object, name string) error {
	dir, base := path.Split(name)
	switch {
	case base == "":
		return nil // the object that stands for a folder
	case dir == deleteFolder+"/":
		f.deletes = append(f.deletes, o)
	case dir != "":
		return f.wrong(codes.InvalidArgument, "gs://%s/%s is in a folder, and only %s/ may be one below %s", o.Bucket, o.Name, deleteFolder, f.uri)
	case datapoint.FormatOf(base) == datapoint.Unknown:
		return f.wrong(codes.InvalidArgument, "gs://%s/%s is no file of datapoints: its name ends in none of .json, .csv and .avro", o.Bucket, o.Name)
	default:
		f.data = append(f.data, o)
	}
	return nil
}

// Datapoints implements Source. Ids to be removed are read first, so that one that
// is in the data too is found to be wrong there.
func (f *folder) Datapoints(ctx context.Context, put func(*pb.IndexDatapoint) error) error {
	for _, o := range f.deletes {
		if err := f.readIDs(ctx, o); err != nil {
			return err
		}
	}
	for _, o := range f.data {
		if err := f.readData(ctx, o, put); err != nil {
			return err
		}
	}
	if f.report.valid == 0 && f.report.wrong > 0 {
		return f.wrong(codes.InvalidArgument, "none of the %d records below %s can be taken", f.report.wrong, f.uri).
			WithHint("the operation's metadata say what is wrong with the first of them")
	}
	return nil
}

// Removed implements Source.
func (f *folder) Removed() []string { return f.removed }

func (f *folder) readIDs(ctx context.Context, o blob.Object) (err error) {
	attrs, r, err := f.objects.OpenLive(ctx, o.Bucket, o.Name)
	if err != nil {
		return fmt.Errorf("read %s: %w", uriOf(o), err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	file := f.report.file(uriOf(o), attrs.Size)
	return datapoint.ReadIDs(r, func(id string, number int, wrong *datapoint.RecordError) error {
		if wrong != nil {
			file.bad(wrong, number, id)
			return ctx.Err()
		}
		file.good(nil)
		if _, twice := f.seen[id]; !twice {
			f.seen[id] = false
			f.removed = append(f.removed, id)
		}
		return ctx.Err()
	})
}

func (f *folder) readData(ctx context.Context, o blob.Object, put func(*pb.IndexDatapoint) error) (err error) {
	attrs, r, err := f.objects.OpenLive(ctx, o.Bucket, o.Name)
	if err != nil {
		return fmt.Errorf("read %s: %w", uriOf(o), err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	file := f.report.file(uriOf(o), attrs.Size)
	return datapoint.Read(r, datapoint.FormatOf(o.Name), f.index.Config.Dimensions, func(e datapoint.Entry) error {
		if e.Err == nil {
			e.Err = f.repeated(e.Datapoint.GetDatapointId())
		}
		if e.Err != nil {
			file.bad(e.Err, e.Number, e.Raw)
			return ctx.Err()
		}
		file.good(e.Datapoint)
		f.seen[e.Datapoint.GetDatapointId()] = true
		return errors.Join(put(e.Datapoint), ctx.Err())
	})
}

// repeated says what is wrong with an id that came before.
func (f *folder) repeated(id string) *datapoint.RecordError {
	data, before := f.seen[id]
	switch {
	case !before:
		return nil
	case data:
		return &datapoint.RecordError{Type: datapoint.InvalidID, ID: id, Message: "the id came before; the first record is taken"}
	default:
		return &datapoint.RecordError{Type: datapoint.InvalidID, ID: id, Message: "the id is in " + deleteFolder + "/ too"}
	}
}

func uriOf(o blob.Object) string { return "gs://" + o.Bucket + "/" + o.Name }

var _ Source = (*folder)(nil)

// Points is a Source of datapoints at hand.
type Points struct {
	Put    []*pb.IndexDatapoint
	Remove []string
}

// Datapoints implements Source.
func (p Points) Datapoints(ctx context.Context, put func(*pb.IndexDatapoint) error) error {
	for dp := range slices.Values(p.Put) {
		if err := errors.Join(put(dp), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// Removed implements Source.
func (p Points) Removed() []string { return p.Remove }
