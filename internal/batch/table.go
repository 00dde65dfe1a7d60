package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/batch/score"
	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/warehouse"
)

// formatTable is the predictions_format of a job whose results go into a table.
const formatTable = "bigquery"

// parseTable cuts bq://WAREHOUSE[[.SCHEMA].TABLE].
func parseTable(uri string) (name, schema, table string, err error) {
	const field = "batch_prediction_job.output_config.bigquery_destination.output_uri"
	rest, ok := strings.CutPrefix(uri, "bq://")
	parts := strings.Split(rest, ".")
	if !ok || rest == "" || len(parts) > 3 {
		return "", "", "", resource.Invalid(field, "%q is not of the form bq://WAREHOUSE, bq://WAREHOUSE.TABLE or bq://WAREHOUSE.SCHEMA.TABLE", uri).
			WithHint("`warehouses` in the configuration names the databases")
	}
	name = parts[0]
	for _, part := range parts[1:] {
		if err := warehouse.CheckName(part); err != nil {
			return "", "", "", resource.Invalid(field, "%q: %w", uri, err)
		}
	}
	switch len(parts) {
	case 2:
		table = parts[1]
	case 3:
		schema, table = parts[1], parts[2]
	}
	return name, schema, table, nil
}

// tables are a table of results and one of errors, in a warehouse.
type tables struct {
	load    warehouse.Load
	name    string // of the warehouse
	results warehouse.Table
	errors  warehouse.Table
	key     string // kind, KeyNone = instances
}

// project is the id of the job's project.
func (r *run) project() string {
	name, err := resource.ParseName(r.job.GetName())
	if err != nil {
		return ""
	}
	return name.Project()
}

// warehouse finds the database that the job names, and what it calls the table.
func (r *run) warehouse() (w warehouse.Warehouse, name, schema, table string, err error) {
	name, schema, table, err = parseTable(r.job.GetOutputConfig().GetBigqueryDestination().GetOutputUri())
	if err != nil {
		return nil, "", "", "", err
	}
	w, ok := r.engine.cfg.Warehouses[name]
	if projects := r.engine.cfg.Projects[name]; len(projects) > 0 && !slices.Contains(projects, r.project()) {
		ok = false // and nothing is told of it
	}
	if !ok {
		return nil, "", "", "", resource.Errorf(codes.NotFound, "there is no warehouse %q", name).WithCause(resource.CauseInput).
			WithHint("`warehouses` in the configuration names the databases that results may go into")
	}
	return w, name, schema, table, nil
}

// abort drops what a job without success has written into a warehouse and nobody has
// seen. Its sections are forgotten first: they count as done by what is there.
func (r *run) abort(ctx context.Context) error {
	if _, out := Formats(r.job); out != formatTable {
		return nil // objects stay: sections are whole, and may have been dear
	}
	w, _, schema, _, err := r.warehouse()
	if err != nil {
		return nil //nolint:nilerr // then nothing was written: the job says why
	}
	if err := r.engine.cfg.Store.Update(ctx, func(tx store.Tx) error { return forgetSections(ctx, tx, r.job.GetName()) }); err != nil {
		return err
	}
	return w.Abort(ctx, r.job.GetName(), warehouse.Table{Schema: schema}, warehouse.Table{Schema: schema})
}

func (r *run) tables(ctx context.Context) (destination, error) {
	w, name, schema, table, err := r.warehouse()
	if err != nil {
		return nil, err
	}
	if table == "" {
		table = "predictions_" + r.job.GetCreateTime().AsTime().UTC().Format("2006_01_02T15_04_05_000Z")
		table = strings.ReplaceAll(table, ".", "_")
	}
	first := warehouse.Column{Name: "instance", Type: warehouse.JSON}
	if r.spec.Shape.Key != "" {
		first = warehouse.Column{Name: "key", Type: map[string]warehouse.Type{score.KeyInt: warehouse.Integer, score.KeyFloat: warehouse.Double}[r.plan.Key]}
	}
	prediction := warehouse.Column{Name: "prediction", Type: warehouse.JSON}
	if r.scalar() {
		prediction.Type = warehouse.Double
	}
	text := func(name string) warehouse.Column { return warehouse.Column{Name: name} }
	t := &tables{
		name: name, key: r.plan.Key,
		results: warehouse.Table{Schema: schema, Name: table, Columns: []warehouse.Column{first, prediction}},
		errors: warehouse.Table{Schema: schema, Name: table + "_errors", Columns: []warehouse.Column{
			{Name: "instance", Type: warehouse.JSON}, {Name: "code", Type: warehouse.Integer}, text("message"), text("uri"), {Name: "line", Type: warehouse.Integer},
		}},
	}
	t.load, err = w.Begin(ctx, r.job.GetName(), t.results, t.errors)
	return t, err
}

// scalar reports that every prediction is one number.
func (r *run) scalar() bool {
	if r.native == nil {
		return false
	}
	block, err := r.native.NewBlock(r.spec.Parameters)
	return err == nil && block.Outputs() == 1
}

// section has the section scored before the database is asked: a transaction that is
// open while a worker works would hold others up.
func (t *tables) section(ctx context.Context, n int, write func(results, failures output) (score.Stats, error)) (score.Stats, error) {
	var results, failures bytes.Buffer
	stats, err := write(&results, &failures)
	if err != nil {
		return stats, err
	}
	return stats, t.load.Part(ctx, n, func(put func(warehouse.Row) error) error {
		if err := eachLine(results.Bytes(), func(line []byte) error { return t.result(line, put) }); err != nil {
			return err
		}
		return eachLine(failures.Bytes(), func(line []byte) error { return failureRow(line, put) })
	})
}

func eachLine(data []byte, f func(line []byte) error) error {
	for line := range bytes.Lines(data) {
		if err := f(line); err != nil {
			return err
		}
	}
	return nil
}

func (t *tables) result(line []byte, put func(warehouse.Row) error) error {
	var r struct {
		Key        json.RawMessage `json:"key"`
		Instance   json.RawMessage `json:"instance"`
		Prediction json.RawMessage `json:"prediction"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("read a result: %w", err)
	}
	first, err := value(t.results.Columns[0].Type, r.Instance)
	if t.results.Columns[0].Name == "key" {
		first, err = value(t.results.Columns[0].Type, r.Key)
	}
	if err != nil {
		return err
	}
	prediction, err := value(t.results.Columns[1].Type, r.Prediction)
	if err != nil {
		return err
	}
	return put(warehouse.Row{Values: []any{first, prediction}})
}

// value makes a value of a column of JSON.
func value(kind warehouse.Type, text json.RawMessage) (v any, err error) {
	if string(text) == "null" || text == nil {
		return nil, nil
	}
	switch kind {
	case warehouse.Integer:
		var n int64
		err = json.Unmarshal(text, &n)
		return n, err
	case warehouse.Double:
		var n float64
		err = json.Unmarshal(text, &n)
		return n, err
	case warehouse.Text:
		if text[0] == '"' {
			var s string
			err = json.Unmarshal(text, &s)
			return s, err
		}
	case warehouse.JSON:
	}
	return jsonText(text), nil
}

// jsonText is JSON as a database takes it: in strings our readers take any bytes.
func jsonText(text json.RawMessage) string { return strings.ToValidUTF8(string(text), "\ufffd") }

func failureRow(line []byte, put func(warehouse.Row) error) error {
	var f struct {
		Key      json.RawMessage `json:"key"`
		Instance json.RawMessage `json:"instance"`
		Error    struct {
			Code    int64  `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
		Source struct {
			URI  string `json:"uri"`
			Line int64  `json:"line"`
		} `json:"source"`
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return fmt.Errorf("read an error: %w", err)
	}
	shown := f.Instance
	if shown == nil {
		shown = f.Key
	}
	return put(warehouse.Row{Table: 1, Values: []any{jsonText(shown), f.Error.Code, strings.ReplaceAll(f.Error.Message, "\x00", "?"), f.Source.URI, f.Source.Line}})
}

func (t *tables) commit(ctx context.Context) error { return t.load.Commit(ctx) }

func (t *tables) failures() string { return "the table " + t.errors.Name }

func (t *tables) info() *pb.BatchPredictionJob_OutputInfo {
	set := "bq://" + t.name
	if t.results.Schema != "" {
		set += "." + t.results.Schema
	}
	return &pb.BatchPredictionJob_OutputInfo{
		OutputLocation:      &pb.BatchPredictionJob_OutputInfo_BigqueryOutputDataset{BigqueryOutputDataset: set},
		BigqueryOutputTable: t.results.Name,
	}
}
