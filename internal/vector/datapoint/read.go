package datapoint

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"path"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// Format is how a file of datapoints is written.
type Format int

// The formats that files have by their suffix.
const (
	Unknown Format = iota
	JSON
	CSV
	Avro
)

// FormatOf tells the format by a file's name.
func FormatOf(name string) Format {
	switch strings.ToLower(path.Ext(name)) {
	case ".json", ".jsonl":
		return JSON
	case ".csv":
		return CSV
	case ".avro":
		return Avro
	default:
		return Unknown
	}
}

// maxLine bounds one line: 100,000 numbers of a vector, and what else it has.
const maxLine = 8 << 20

// Entry is what one record of a file was: a datapoint, or what is wrong with it.
type Entry struct {
	Datapoint *pb.IndexDatapoint // nil where Err is not
	Err       *RecordError
	Number    int    // of the line, or of the record of an Avro file, from 1
	Raw       string // the beginning of a line that is wrong
}

// maxRaw bounds what is quoted of a wrong line.
const maxRaw = 200

// Read gives every record of a file to visit, checked for an index of so many
// dimensions. Records that are wrong are entries, not errors: an error is of the
// reader, or of visit. What follows a record that cannot be bounded (an Avro block
// that is damaged, a line beyond 8 MiB) is not read.
func Read(r io.Reader, format Format, dimensions int, visit func(Entry) error) error {
	switch format {
	case JSON:
		return readLines(r, parseJSON, dimensions, visit)
	case CSV:
		return readLines(r, parseCSV, dimensions, visit)
	case Avro:
		n := 0
		source := &remembering{Reader: r}
		err := avroRecords(source, func(dp *pb.IndexDatapoint, wrong *RecordError) error {
			n++
			if wrong != nil && source.err != nil {
				return source.err // not the file is damaged: its bytes did not come
			}
			return visit(checked(Entry{Datapoint: dp, Err: wrong, Number: n}, dimensions))
		})
		return err
	default:
		return errors.New("a file of datapoints ends in .json, .csv or .avro")
	}
}

// remembering keeps the error of a reader apart from those of what it holds.
type remembering struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (r *remembering) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func readLines(r io.Reader, parse func([]byte) (*pb.IndexDatapoint, *RecordError), dimensions int, visit func(Entry) error) error {
	lines := bufio.NewReaderSize(r, 256<<10)
	var long []byte
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		for long = long[:0]; errors.Is(err, bufio.ErrBufferFull); line, err = lines.ReadSlice('\n') {
			if long = append(long, line...); len(long) > maxLine {
				break
			}
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if len(line) > maxLine {
			return visit(Entry{Err: wrong(ParsingError, "", "the line is longer than %d MiB; the rest of the file is not read", maxLine>>20), Number: n})
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) > 0 {
			if err := visit(lineEntry(bytes.TrimRight(line, "\r\n"), n, parse, dimensions)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

func lineEntry(line []byte, n int, parse func([]byte) (*pb.IndexDatapoint, *RecordError), dimensions int) Entry {
	if len(bytes.TrimSpace(line)) == 0 {
		return Entry{Err: wrong(EmptyLine, "", "the line is empty"), Number: n}
	}
	dp, wrong := parse(line)
	e := checked(Entry{Datapoint: dp, Err: wrong, Number: n}, dimensions)
	if e.Err != nil {
		e.Raw = strings.ToValidUTF8(string(line[:min(len(line), maxRaw)]), "\ufffd")
	}
	return e
}

func checked(e Entry, dimensions int) Entry {
	if e.Err == nil {
		e.Err = Check(e.Datapoint, dimensions)
	}
	if e.Err != nil {
		e.Datapoint = nil
	}
	return e
}

// ReadIDs gives the ids of a file of the folder delete/: one a line.
func ReadIDs(r io.Reader, visit func(id string, number int, wrong *RecordError) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxID+2)
	n := 0
	for lines.Scan() {
		n++
		id := strings.TrimSpace(lines.Text())
		err := checkID(id)
		if id == "" {
			err = wrong(EmptyLine, "", "the line is empty")
		}
		if err := visit(id, n, err); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return visit("", n+1, wrong(InvalidID, "", "the line is longer than %d bytes; the rest of the file is not read", maxID))
	}
	return lines.Err()
}
