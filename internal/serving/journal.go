package serving

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// Journal is where logged requests go: objects of JSON lines.
type Journal interface {
	EnsureBucket(ctx context.Context, project, name string) error
	GetBucket(ctx context.Context, name string) (blob.Bucket, error)
	Put(ctx context.Context, attrs blob.Object, r io.Reader, conds blob.Conditions) (blob.Object, error)
}

// journaling says which requests of an endpoint are logged, and where to.
type journaling struct {
	rate            float64
	project, bucket string
	table           string // DATASET/TABLE, the prefix of objects
}

// The table's name where the configuration gives none, as the API documents.
const journalTable = "request_response_logging"

// JournalBucket is the bucket of a project's logged requests.
func JournalBucket(project string) string { return project + "-prediction-logs" }

// CheckLogging refuses a configuration of logging that cannot be followed, and fills in
// the table that it means.
func CheckLogging(e *pb.Endpoint) error {
	const field = "endpoint.predict_request_response_logging_config"
	c := e.GetPredictRequestResponseLoggingConfig()
	if c == nil || !c.GetEnabled() {
		return nil
	}
	switch rate := c.GetSamplingRate(); {
	case c.GetEnableOtelLogging():
		return resource.Unimplemented(field + ".enable_otel_logging")
	case !(rate > 0 && rate <= 1):
		return resource.Invalid(field+".sampling_rate", "sampling_rate is %v: want more than 0, and 1 at most", rate)
	}
	table, err := tableOf(e)
	if err != nil {
		return err
	}
	name, err := resource.ParseName(e.GetName())
	if err != nil {
		return err
	}
	c.BigqueryDestination = &pb.BigQueryDestination{OutputUri: "bq://" + name.Project() + "." + strings.ReplaceAll(table, "/", ".")}
	c.RequestResponseLoggingSchemaVersion = "v1"
	return nil
}

// tableOf reads bq://PROJECT, bq://PROJECT.DATASET or bq://PROJECT.DATASET.TABLE.
func tableOf(e *pb.Endpoint) (string, error) {
	uri := e.GetPredictRequestResponseLoggingConfig().GetBigqueryDestination().GetOutputUri()
	name, err := resource.ParseName(e.GetName())
	if err != nil {
		return "", err
	}
	project, rest, _ := strings.Cut(strings.TrimPrefix(uri, "bq://"), ".")
	dataset, table, named := strings.Cut(rest, ".")
	bad := func(why string) error {
		return resource.Invalid("endpoint.predict_request_response_logging_config.bigquery_destination.output_uri", "%q %s", uri, why).
			WithHint("write bq://%s.DATASET.TABLE, or leave it out", name.Project())
	}
	switch {
	case uri != "" && !strings.HasPrefix(uri, "bq://"):
		return "", bad("is not of the form bq://PROJECT.DATASET.TABLE")
	case project != "" && project != name.Project():
		return "", bad("is a table of another project")
	case !named && rest == "":
		dataset, table = "logging_"+tableName(e.GetDisplayName())+"_"+name.ID(), journalTable
	case !named:
		table = journalTable
	}
	for _, part := range []string{dataset, table} {
		if part == "" || part != tableName(part) {
			return "", bad("has a name that is not of letters, digits, _ and -")
		}
	}
	return dataset + "/" + table, nil
}

// tableName makes other bytes than letters, digits, _ and - into _.
func tableName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, s)
}

func journalOf(e *pb.Endpoint) (*journaling, error) {
	c := e.GetPredictRequestResponseLoggingConfig()
	if !c.GetEnabled() {
		return nil, nil //nolint:nilnil // none is no error
	}
	table, err := tableOf(e)
	if err != nil {
		return nil, err
	}
	name, err := resource.ParseName(e.GetName())
	if err != nil {
		return nil, err
	}
	return &journaling{rate: c.GetSamplingRate(), project: name.Project(), bucket: JournalBucket(name.Project()), table: table}, nil
}

// record is one line. The names are those of the cloud's table.
type record struct {
	Endpoint        string    `json:"endpoint"`
	DeployedModelID string    `json:"deployed_model_id"`
	LoggingTime     time.Time `json:"logging_time"`
	RequestID       string    `json:"request_id"`
	RequestPayload  []string  `json:"request_payload"`
	ResponsePayload []string  `json:"response_payload"`
	Status          int       `json:"status"`
	Milliseconds    float64   `json:"milliseconds"`
	Base64          bool      `json:"base64,omitempty"`  // payloads that are no text
	Explain         bool      `json:"explain,omitempty"` // the answer has explanations
}

func (x *exchange) line() ([]byte, error) {
	r := record{
		Endpoint: path.Base(x.at.endpoint.GetName()), DeployedModelID: x.id, LoggingTime: x.when.UTC(), RequestID: resource.NewID(), Status: x.status,
		Milliseconds: float64(x.took.Microseconds()) / 1000, Base64: !utf8.Valid(x.request) || !utf8.Valid(x.response), Explain: x.explains,
	}
	text := func(b []byte) []string { return []string{string(b)} }
	if r.Base64 {
		text = func(b []byte) []string { return []string{base64.StdEncoding.EncodeToString(b)} }
	}
	r.RequestPayload, r.ResponsePayload = text(x.request), text(x.response)
	b, err := json.Marshal(r)
	return append(b, '\n'), err
}

// Bounds of what waits to be written.
const (
	journalEvery = 5 * time.Second
	journalBytes = 4 << 20  // of one object
	journalMost  = 32 << 20 // of all that could not be written yet
)

// pages are lines that are not written yet, by where they go.
type pages struct {
	lines map[journaling]*bytes.Buffer
	size  int // of all lines
	n     int // of the object
}

func newPages() *pages { return &pages{lines: map[journaling]*bytes.Buffer{}} }

// runJournal writes logged requests until ctx ends, and then what there is.
func (e *Engine) runJournal(ctx context.Context) {
	p := newPages()
	tick := time.NewTicker(journalEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			e.lastPages(ctx, p)
			return
		case x := <-e.journaled:
			e.write(ctx, p, x)
		case <-tick.C:
			e.flush(ctx, p)
		}
	}
}

// lastPages writes what was answered before the server's end.
func (e *Engine) lastPages(ctx context.Context, p *pages) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalEvery)
	defer cancel()
	for {
		select {
		case x := <-e.journaled:
			e.write(ctx, p, x)
		default:
			e.flush(ctx, p)
			return
		}
	}
}

func (e *Engine) write(ctx context.Context, p *pages, x *exchange) {
	defer x.done()
	line, err := x.line()
	if err != nil {
		e.cfg.Log.ErrorContext(ctx, "cannot log a request", slog.Any("error", err))
		return
	}
	to := *x.at.journal
	to.rate = 0 // one place, whatever the rate
	if p.size+len(line) > journalMost {
		e.metrics.unlogged(x.at.endpoint.GetName())
		return
	}
	page := p.lines[to]
	if page == nil {
		page = &bytes.Buffer{}
		p.lines[to] = page
	}
	page.Write(line)
	p.size += len(line)
	if page.Len() > journalBytes && page.Len() < 2*journalBytes { // beyond, writing fails: the tick tries again
		e.flush(ctx, p)
	}
}

// flush writes an object for each place; what cannot be written is kept.
func (e *Engine) flush(ctx context.Context, p *pages) {
	for to, page := range p.lines {
		p.n++
		if err := e.putPage(ctx, to, page.Bytes(), p.n); err != nil {
			e.cfg.Log.ErrorContext(ctx, "cannot write logged requests", slog.String("bucket", to.bucket), slog.Any("error", err))
			continue
		}
		p.size -= page.Len()
		delete(p.lines, to)
	}
}

func (e *Engine) putPage(ctx context.Context, to journaling, data []byte, n int) error {
	if err := e.cfg.Journal.EnsureBucket(ctx, to.project, to.bucket); err != nil {
		return err
	}
	b, err := e.cfg.Journal.GetBucket(ctx, to.bucket)
	if err != nil {
		return err
	}
	if b.Project != to.project {
		return resource.Errorf(codes.PermissionDenied, "bucket %s is of project %s, not of %s", to.bucket, b.Project, to.project)
	}
	now := e.cfg.Now().UTC()
	name := fmt.Sprintf("%s/%s/%d-%06d.jsonl", to.table, now.Format("2006-01-02/15"), now.UnixMilli(), n)
	_, err = e.cfg.Journal.Put(ctx, blob.Object{Bucket: to.bucket, Name: name, ContentType: "application/jsonl"}, bytes.NewReader(data), blob.Conditions{})
	return err
}
