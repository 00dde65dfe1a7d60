package batch

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"google.golang.org/grpc/codes"

	"tategu/internal/batch/score"
	"tategu/internal/blob"
	"tategu/internal/columnar"
	"tategu/internal/resource"
	"tategu/internal/volume"
)

// maxLine bounds one record, maxRows the rows of Parquet of one section: how much they
// are is only estimated before.
const (
	maxLine = 64 << 20
	maxRows = 2 * sectionMost
)

// records are the records of one object, read from its beginning to its end.
type records interface {
	// until appends the records that begin before to, and gives the line at which
	// the first of them stands, from 1.
	until(ctx context.Context, buf []byte, to int64) (out []byte, line int, err error)
	io.Closer
}

// fileSource reads the sections of a plan, in order.
type fileSource struct {
	run  *run
	plan *plan
	at   int // the input that is open
	open records
	// places says that workers read what is in files of this machine.
	places bool
}

func (r *run) source(p *plan) *fileSource { return &fileSource{run: r, plan: p, at: -1} }

// Close implements io.Closer.
func (s *fileSource) Close() error {
	if s.open == nil {
		return nil
	}
	err := s.open.Close()
	s.open = nil
	return err
}

// section appends a section to buf. Sections are asked for in order; one may be left
// out where it ends with the end of an input.
func (s *fileSource) section(ctx context.Context, sec section, buf []byte) (score.Spec, []byte, error) {
	spec := s.run.spec
	spec.Key = s.plan.Key
	for _, p := range sec {
		in := s.plan.Inputs[p.Input]
		if s.places {
			placed, ok, err := s.run.place(ctx, in, p)
			if err != nil {
				return spec, nil, err
			}
			if ok {
				spec.Pieces = append(spec.Pieces, placed)
				continue
			}
		}
		if s.at != p.Input || s.open == nil {
			if err := s.Close(); err != nil {
				return spec, nil, err
			}
			var err error
			if s.open, err = s.run.open(ctx, in); err != nil {
				return spec, nil, err
			}
			s.at = p.Input
		}
		start := len(buf)
		var line int
		var err error
		if buf, line, err = s.open.until(ctx, buf, p.To); err != nil {
			return spec, nil, err
		}
		spec.Pieces = append(spec.Pieces, score.Piece{Source: in.uri(), Line: line, Bytes: len(buf) - start, Columns: in.Columns})
		if p.To == in.Length {
			if err := s.Close(); err != nil {
				return spec, nil, err
			}
		}
	}
	return spec, buf, nil
}

// place describes a piece by the file that it is in; ok is false where it must be read
// here: what is packed or has quotes can be cut from its beginning only.
func (r *run) place(ctx context.Context, in input, p piece) (_ score.Piece, ok bool, err error) {
	if !r.reads(in) {
		return score.Piece{}, false, nil
	}
	_, rc, err := r.reader(ctx, in)
	if err != nil {
		return score.Piece{}, false, err
	}
	path, offset, ok := blob.Place(rc)
	return score.Piece{Source: in.uri(), File: path, Offset: offset, From: p.From, To: p.To}, ok, rc.Close()
}

// reads reports that workers could read an object, if it is in a file.
func (r *run) reads(in input) bool {
	return r.set != nil && !r.remote && !in.Gzip && r.format == score.JSONL
}

// inspect finds out what an object is.
func (r *run) inspect(ctx context.Context, o object) (in input, err error) {
	attrs, rc, err := r.objects.OpenLive(ctx, o.bucket, o.name)
	if err != nil {
		return in, fmt.Errorf("read input gs://%s/%s: %w", o.bucket, o.name, err)
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	in = input{Bucket: o.bucket, Name: o.name, Generation: attrs.Generation, Length: attrs.Size, CRC32C: attrs.CRC32C}
	if r.format == score.Parquet {
		return in, r.inspectParquet(ctx, &in)
	}
	src := bufio.NewReaderSize(rc, 64<<10)
	if head, err := src.Peek(4); err == nil {
		if in.Gzip = head[0] == 0x1f && head[1] == 0x8b; in.Gzip {
			unpacked, err := gzip.NewReader(src)
			if err != nil {
				return in, unreadable(o, err)
			}
			src = bufio.NewReaderSize(unpacked, 64<<10)
		} else if string(head) == columnar.Magic {
			return in, resource.Errorf(codes.InvalidArgument, "gs://%s/%s is a Parquet file, and instances_format is %s", o.bucket, o.name, r.format).
				WithCause(resource.CauseInput).WithHint("docs/guide/batch.md says how a job names the format parquet")
		}
	}
	if r.format == score.CSV {
		if err := in.header(src); err != nil {
			return in, unreadable(o, err)
		}
	}
	_, _, in.Placed = blob.Place(rc)
	if in.Placed = in.Placed && r.reads(in); in.Gzip { // how much it is, only reading tells
		n, err := io.Copy(io.Discard, src)
		if err != nil {
			return in, unreadable(o, err)
		}
		in.Length = in.Header + n
	}
	in.Length -= in.Header
	return in, nil
}

// header reads the first record of CSV.
func (in *input) header(src *bufio.Reader) error {
	head, err := nextRecord(src, nil, true)
	if err != nil {
		return err
	}
	in.Header = int64(len(head))
	if in.Columns, err = score.Columns(head); err != nil {
		return fmt.Errorf("its header: %w", err)
	}
	return nil
}

func (r *run) inspectParquet(ctx context.Context, in *input) (err error) {
	p, err := r.openParquet(ctx, *in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	in.Length, in.Columns = p.file.Len(), p.file.Columns()
	each, err := p.rowSize(ctx)
	if err != nil {
		return err
	}
	in.Step = max(1, min(max(sectionNative/each, in.Length/sectionsGoal), sectionMost/each))
	return nil
}

// Where rows of a Parquet file are looked at, and how many.
const (
	probes    = 8
	probeRows = 64
)

// rowSize is about how many bytes a row has as a line of JSON. The size of the file says
// little: a text that rows have in common is in it once.
func (p *parquetRows) rowSize(ctx context.Context) (int64, error) {
	rows, size := int64(0), int64(0)
	for n := range int64(probes) {
		from := max(rows, p.file.Len()*n/probes)
		err := p.file.Lines(from, min(from+probeRows, p.file.Len()), func(row []byte) error {
			rows, size = rows+1, size+int64(len(row))+1
			return ctx.Err()
		})
		if err != nil {
			return 0, unreadable(object{p.in.Bucket, p.in.Name}, err)
		}
	}
	return max(1, size/max(1, rows)), nil
}

// open begins to read an input, which must be what it was when the job began.
func (r *run) open(ctx context.Context, in input) (records, error) {
	if r.format == score.Parquet {
		return r.openParquet(ctx, in)
	}
	_, rc, err := r.reader(ctx, in)
	if err != nil {
		return nil, err
	}
	t := &text{close: rc, csv: r.format == score.CSV, line: 1, in: in}
	t.src = bufio.NewReaderSize(rc, score.Stretch)
	if in.Gzip {
		unpacked, err := gzip.NewReader(t.src)
		if err != nil {
			return nil, errors.Join(t.unreadable(err), rc.Close())
		}
		t.src = bufio.NewReaderSize(unpacked, 256<<10)
	}
	if in.Header > 0 {
		head := make([]byte, in.Header)
		if _, err := io.ReadFull(t.src, head); err != nil {
			return nil, errors.Join(t.unreadable(err), rc.Close())
		}
		t.line += bytes.Count(head, []byte{'\n'})
	}
	return t, nil
}

func (r *run) reader(ctx context.Context, in input) (blob.Object, io.ReadCloser, error) {
	attrs, rc, err := r.objects.OpenLive(ctx, in.Bucket, in.Name)
	if err != nil {
		return attrs, nil, fmt.Errorf("read input %s: %w", in.uri(), err)
	}
	if attrs.Generation != in.Generation {
		err := resource.Errorf(codes.FailedPrecondition, "the input %s was overwritten while the job ran", in.uri()).WithCause(resource.CauseInput).
			WithHint("start the job again, and leave its input as it is until it has ended")
		return attrs, nil, errors.Join(err, rc.Close())
	}
	return attrs, rc, nil
}

// text is an object of lines or of CSV records.
type text struct {
	src   *bufio.Reader
	close io.Closer
	csv   bool
	in    input
	at    int64
	line  int
}

// Close implements io.Closer.
func (t *text) Close() error { return t.close.Close() }

func (t *text) unreadable(err error) error { return unreadable(object{t.in.Bucket, t.in.Name}, err) }

func (t *text) until(_ context.Context, buf []byte, to int64) ([]byte, int, error) {
	start, line := len(buf), t.line
	if n := to - t.at; n > 0 {
		buf = extend(buf, int(n))
		if err := score.ReadStretches(t.src, buf[start:]); err != nil {
			return nil, 0, t.unreadable(err)
		}
		if !t.whole(buf[start:]) {
			open := t.csv && bytes.Count(buf[start:], []byte{'"'})%2 == 1
			var err error
			if buf, err = nextRecordFrom(t.src, buf, t.csv, open); err != nil && !errors.Is(err, io.EOF) {
				return nil, 0, t.unreadable(err)
			}
		}
	}
	t.at += int64(len(buf) - start)
	t.line += bytes.Count(buf[start:], []byte{'\n'})
	return buf, line, nil
}

// whole reports that data ends with a record.
func (t *text) whole(data []byte) bool {
	return data[len(data)-1] == '\n' && (!t.csv || bytes.Count(data, []byte{'"'})%2 == 0)
}

func extend(buf []byte, n int) []byte {
	if cap(buf)-len(buf) < n {
		grown := make([]byte, len(buf), len(buf)+n+n/64+4096)
		copy(grown, buf)
		buf = grown
	}
	return buf[:len(buf)+n]
}

// nextRecord appends a record with its line break.
func nextRecord(src *bufio.Reader, buf []byte, csv bool) ([]byte, error) {
	buf, err := nextRecordFrom(src, buf, csv, false)
	if errors.Is(err, io.EOF) && len(buf) > 0 {
		err = nil
	}
	return buf, err
}

// nextRecordFrom goes on to the end of a record; open says that a quote is.
func nextRecordFrom(src *bufio.Reader, buf []byte, csv, open bool) ([]byte, error) {
	start := len(buf)
	for {
		part, err := src.ReadSlice('\n')
		buf = append(buf, part...)
		if csv && bytes.Count(part, []byte{'"'})%2 == 1 {
			open = !open
		}
		switch {
		case len(buf)-start > maxLine:
			return buf, fmt.Errorf("a record is longer than %d MiB", maxLine>>20)
		case err == nil && !open:
			return buf, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return buf, err
		}
	}
}

// parquetRows are the rows of a Parquet object, as lines of JSON.
type parquetRows struct {
	file *columnar.File
	disk *os.File
	in   input
	at   int64
}

// openParquet copies the object to a file of its own, since its end is read first.
func (r *run) openParquet(ctx context.Context, in input) (_ *parquetRows, err error) {
	attrs, rc, err := r.reader(ctx, in)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	f, err := os.CreateTemp(r.engine.cfg.Temp, "batch-*.parquet")
	if err != nil {
		return nil, err
	}
	p := &parquetRows{disk: f, in: in}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := os.Remove(f.Name()); err != nil { // it goes when it is closed
		return nil, err
	}
	size, err := r.copyIn(f, rc, attrs)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", in.uri(), err)
	}
	if p.file, err = columnar.Open(f, size); errors.Is(err, columnar.ErrNested) {
		return nil, resource.Unimplemented(fmt.Sprintf("the Parquet file %s: %v", in.uri(), err))
	} else if err != nil {
		return nil, unreadable(object{in.Bucket, in.Name}, err)
	}
	return p, nil
}

// copyIn copies an object into a file, once the volume has room for all of it: a job
// that finds none waits as for its results, with nothing of it on the disk.
func (r *run) copyIn(f *os.File, rc io.Reader, attrs blob.Object) (int64, error) {
	if !r.engine.cfg.Room.Holds(attrs.Size) {
		return 0, resource.Errorf(codes.ResourceExhausted, "it has %d bytes, which the disk of the cache could not hold if it were empty", attrs.Size).
			WithCause(resource.CauseResource).WithHint("write it as several smaller files, or name a cache on a larger disk with --cache")
	}
	done, err := r.engine.cfg.Room.Claim(attrs.Size, volume.Content)
	if err != nil {
		return 0, err
	}
	defer done()
	size, err := io.Copy(f, io.LimitReader(rc, attrs.Size))
	if err == nil && size != attrs.Size {
		err = fmt.Errorf("it ended after %d of %d bytes", size, attrs.Size)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = volume.Full(err)
	}
	return size, err
}

// Close implements io.Closer.
func (p *parquetRows) Close() error { return p.disk.Close() }

func (p *parquetRows) until(ctx context.Context, buf []byte, to int64) ([]byte, int, error) {
	line := int(p.at) + 1
	start := len(buf)
	err := p.file.Lines(p.at, to, func(row []byte) error {
		switch {
		case len(row) > maxLine:
			return fmt.Errorf("a row is longer than %d MiB in JSON", maxLine>>20)
		case len(buf)-start+len(row) > maxRows:
			return fmt.Errorf("rows %d to %d have more than %d MiB in JSON, and others far less: sort them into files by their size", p.at+1, to, maxRows>>20)
		}
		buf = append(append(buf, row...), '\n')
		return ctx.Err()
	})
	if err != nil {
		return nil, 0, unreadable(object{p.in.Bucket, p.in.Name}, err)
	}
	p.at = max(p.at, to)
	return buf, line, nil
}
