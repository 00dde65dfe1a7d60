package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/batch"
	"tategu/internal/batch/score"
	"tategu/internal/columnar"
	"tategu/internal/resource"
	"tategu/internal/transfer"
)

// maxSQLLine bounds a line that is loaded.
const maxSQLLine = 64 << 20

// batchJob reads a job by id or resource name.
func (c *client) batchJob(ctx context.Context, name string) (*pb.BatchPredictionJob, error) {
	if !strings.Contains(name, "/") {
		name = "projects/" + url.PathEscape(c.project) + "/locations/" + c.location + "/batchPredictionJobs/" + url.PathEscape(name)
	}
	var text json.RawMessage
	if err := c.call(ctx, http.MethodGet, "/v1beta1/"+name, nil, &text); err != nil {
		return nil, err
	}
	job := &pb.BatchPredictionJob{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, job); err != nil {
		return nil, fmt.Errorf("read a batch prediction job: %w", err)
	}
	return job, nil
}

func (q *sqlSession) loadJob(ctx context.Context, name, id string) error {
	job, err := q.c.findBatchJob(ctx, id)
	if err != nil {
		return err
	}
	if job == nil {
		return resource.Errorf(5, "no batch prediction job is called %q", id).WithHint("`tategu status` lists what there is")
	}
	in, out := batch.Formats(job)
	input := &sqlTable{q: q, name: name + "_input"}
	for _, uri := range job.GetInputConfig().GetGcsSource().GetUris() {
		if err := q.loadMatching(ctx, input, uri, in, func(object string, u transfer.URL) bool { return object == u.Name || batch.Matches(u.Name, object) }); err != nil {
			return err
		}
	}
	if err := input.close(ctx); err != nil {
		return err
	}
	dir := job.GetOutputInfo().GetGcsOutputDirectory()
	if dir == "" {
		return resource.Errorf(9, "%s has no files of results: it is %s, and its output is %v", id, shortState(job.GetState().String()), job.GetOutputConfig().GetPredictionsFormat()).
			WithHint("wait for its end; results in a table are queried where the table is")
	}
	for _, part := range []struct{ table, prefix, format string }{{"_output", "prediction.results-", out}, {"_errors", "prediction.errors_stats-", score.JSONL}} {
		t := &sqlTable{q: q, name: name + part.table}
		err := q.loadMatching(ctx, t, dir+"/"+part.prefix, part.format, func(object string, u transfer.URL) bool { return strings.HasPrefix(object, u.Name) })
		if err := errors.Join(err, t.close(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func (q *sqlSession) loadFile(ctx context.Context, name, uri string) error {
	format := score.JSONL
	switch path.Ext(strings.TrimSuffix(uri, ".gz")) {
	case ".csv":
		format = score.CSV
	case ".parquet":
		format = score.Parquet
	}
	t := &sqlTable{q: q, name: name}
	err := q.loadMatching(ctx, t, uri, format, func(object string, u transfer.URL) bool { return object == u.Name || batch.Matches(u.Name, object) })
	return errors.Join(err, t.close(ctx))
}

// loadMatching loads the objects that a URI means.
func (q *sqlSession) loadMatching(ctx context.Context, t *sqlTable, uri, format string, matches func(string, transfer.URL) bool) error {
	u, err := transfer.ParseURL(uri)
	if err != nil {
		return err
	}
	prefix, _, _ := strings.Cut(u.Name, "*")
	query := url.Values{"prefix": {prefix}, "fields": {"items(name),nextPageToken"}}
	found := 0
	for {
		var page struct {
			Items         []struct{ Name string }
			NextPageToken string
		}
		if err := q.c.call(ctx, http.MethodGet, "/storage/v1/b/"+url.PathEscape(u.Bucket)+"/o?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if !matches(item.Name, u) || strings.HasSuffix(item.Name, "/") {
				continue
			}
			found++
			if err := q.loadObject(ctx, t, u.Bucket, item.Name, format); err != nil {
				return fmt.Errorf("load gs://%s/%s: %w", u.Bucket, item.Name, err)
			}
		}
		if page.NextPageToken == "" {
			break
		}
		query.Set("pageToken", page.NextPageToken)
	}
	if found == 0 {
		return resource.Errorf(5, "no object matches %s", uri).WithHint("`tategu ls -r gs://%s` shows what is there", u.Bucket)
	}
	return nil
}

func (q *sqlSession) loadObject(ctx context.Context, t *sqlTable, bucket, name, format string) (err error) {
	body, err := q.c.do(ctx, http.MethodGet, "/storage/v1/b/"+url.PathEscape(bucket)+"/o/"+url.PathEscape(name), url.Values{"alt": {"media"}}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if format == score.Parquet {
		data, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		f, err := columnar.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return err
		}
		return f.Lines(0, f.Len(), func(line []byte) error { return t.json(ctx, line, false) })
	}
	in := bufio.NewReader(body)
	if head, err := in.Peek(2); err == nil && head[0] == 0x1f && head[1] == 0x8b {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = bufio.NewReader(unpacked)
	}
	if format == score.CSV {
		return t.csv(ctx, in)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxSQLLine)
	for lines.Scan() {
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			if err := t.json(ctx, line, true); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// sqlTable is a table that is being filled, in one transaction.
type sqlTable struct {
	q       *sqlSession
	name    string
	tx      *sql.Tx
	columns []string
	insert  map[string]*sql.Stmt // by the columns that are set
	rows    int64
}

const (
	columnRow    = "_row"
	columnRecord = "_record"
)

func (t *sqlTable) begin(ctx context.Context) (err error) {
	if t.tx != nil {
		return nil
	}
	if t.tx, err = t.q.db.BeginTx(ctx, nil); err != nil {
		return err
	}
	t.insert = map[string]*sql.Stmt{}
	t.columns = []string{columnRow}
	t.q.tables = append(t.q.tables, t.name)
	_, err = t.tx.ExecContext(ctx, "CREATE TABLE "+quoted(t.name)+" ("+columnRow+" INTEGER)")
	return err
}

func (t *sqlTable) close(ctx context.Context) error {
	if err := t.begin(ctx); err != nil { // it has no rows
		return err
	}
	return t.tx.Commit()
}

// put inserts a row; columns that are new are added to the table.
func (t *sqlTable) put(ctx context.Context, names []string, values []any) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	t.rows++
	names, values = append([]string{columnRow}, names...), append([]any{t.rows}, values...)
	key := strings.Join(names, "\x00")
	stmt := t.insert[key]
	if stmt == nil {
		var list []string
		for _, name := range names {
			list = append(list, quoted(name))
			if slices.ContainsFunc(t.columns, func(c string) bool { return strings.EqualFold(c, name) }) {
				continue
			}
			t.columns = append(t.columns, name)
			if _, err := t.tx.ExecContext(ctx, "ALTER TABLE "+quoted(t.name)+" ADD COLUMN "+quoted(name)); err != nil {
				return err
			}
		}
		var err error
		stmt, err = t.tx.PrepareContext(ctx, "INSERT INTO "+quoted(t.name)+" ("+strings.Join(list, ", ")+") VALUES (?"+strings.Repeat(", ?", len(names)-1)+")") //nolint:gosec // quoted names
		if err != nil {
			return err
		}
		t.insert[key] = stmt
	}
	_, err := stmt.ExecContext(ctx, values...)
	return err
}

// json puts a line of JSON, with the line itself where record is set.
func (t *sqlTable) json(ctx context.Context, line []byte, record bool) error {
	d := json.NewDecoder(bytes.NewReader(line))
	first, err := d.Token()
	if err != nil {
		return t.put(ctx, []string{columnRecord}, []any{string(line)}) // not JSON: it is what it is
	}
	var names []string
	var values []any
	switch first {
	case json.Delim('{'), json.Delim('['):
		for i := 0; d.More(); i++ {
			name := "c" + strconv.Itoa(i)
			if first == json.Delim('{') {
				key, err := d.Token()
				if err != nil {
					return t.put(ctx, []string{columnRecord}, []any{string(line)})
				}
				name = fmt.Sprint(key)
			}
			var v json.RawMessage
			if d.Decode(&v) != nil {
				return t.put(ctx, []string{columnRecord}, []any{string(line)})
			}
			if slices.Contains(names, name) {
				continue
			}
			names, values = append(names, name), append(values, sqlValue(v))
		}
	default:
		names, values = []string{"value"}, []any{sqlValue(line)}
	}
	columnNames(names)
	if record {
		names, values = append(names, columnRecord), append(values, string(line))
	}
	return t.put(ctx, names, values)
}

// sqlValue is a JSON value as SQLite has it.
func sqlValue(v json.RawMessage) any {
	switch {
	case string(v) == "null":
		return nil
	case string(v) == "true":
		return 1
	case string(v) == "false":
		return 0
	case v[0] == '"':
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
	case v[0] != '{' && v[0] != '[':
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(string(v), 64); err == nil {
			return f
		}
	}
	return string(v)
}

func (t *sqlTable) csv(ctx context.Context, in io.Reader) error {
	r := csv.NewReader(in)
	r.FieldsPerRecord = -1
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		names, values := []string{}, []any{}
		for i, f := range fields {
			name := "c" + strconv.Itoa(i)
			if i < len(header) {
				name = header[i]
			}
			var v any
			if f != "" {
				v = f
				if n, err := strconv.ParseInt(f, 10, 64); err == nil && strconv.FormatInt(n, 10) == f {
					v = n
				} else if n, err := strconv.ParseFloat(f, 64); err == nil {
					v = n
				}
			}
			names, values = append(names, name), append(values, v)
		}
		columnNames(names)
		if err := t.put(ctx, names, values); err != nil {
			return err
		}
	}
}

// columnNames makes the names of a record such that SQLite tells them apart: for it a and
// A are the same, some are its own, and _row and _record are ours. Underscores follow.
func columnNames(names []string) {
	taken := map[string]bool{columnRow: true, columnRecord: true, "rowid": true, "oid": true, "_rowid_": true}
	for i, name := range names {
		name = strings.ReplaceAll(name, "\x00", "_")
		for taken[strings.ToLower(name)] {
			name += "_"
		}
		names[i], taken[strings.ToLower(name)] = name, true
	}
}
