package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	_ "modernc.org/sqlite" // the driver; the store uses it too

	"tategu/internal/resource"
)

func sqlCommand() *cobra.Command {
	var jobs, files []string
	var format string
	cmd := &cobra.Command{
		Use: "sql [QUERY]", Short: "Query the inputs and outputs of batch prediction jobs with SQL", Args: cobra.MaximumNArgs(1),
		Long: `sql loads the inputs and outputs of batch prediction jobs, and other files, into tables of a
SQLite database in memory and runs one query. Without a query it lists the tables.

A job NAME=JOB (JOB is an id, a display name or a resource name) gives NAME_input, NAME_output and NAME_errors; a
file NAME=gs://... gives NAME. Columns are the fields of JSON objects, c0, c1, ... of JSON lists,
or those of CSV and Parquet. _row counts from 1, and _record is a line of JSON as it stands, which
is the instance of an output without keys. A name that SQLite would take for another one gets an
underscore (A_ beside a, rowid_). Fields that are not plain values are JSON: json_extract reads them.`,
		Example: `  tategu sql --job j=1234 "SELECT i.*, o.prediction FROM j_input i JOIN j_output o ON o.key = i.id ORDER BY o.prediction DESC LIMIT 10"
  tategu sql --job a=1234 --job b=1235 "SELECT avg(abs(a.prediction - b.prediction)) FROM a_output a JOIN b_output b USING (key)"
  tategu sql --file t=gs://bucket/table.parquet --output csv "SELECT * FROM t"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := map[string]func(io.Writer, *sql.Rows, []string) error{"table": writeTable, "csv": writeCSV, "json": writeJSON}[format]
			if !ok {
				return resource.Invalid("output", "--output is %q: want table, csv or json", format)
			}
			if len(jobs)+len(files) == 0 {
				return resource.Invalid("job", "there is nothing to query: name a job or a file").WithHint("--job NAME=JOB, --file NAME=gs://BUCKET/OBJECT")
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			q, err := newSQLSession(cmd.Context(), c)
			if err != nil {
				return err
			}
			return errors.Join(q.run(cmd, jobs, files, args, write), q.db.Close())
		},
	}
	cmd.Flags().StringArrayVar(&jobs, "job", nil, "NAME=JOB, several times")
	_ = cmd.RegisterFlagCompletionFunc("job", completeNamedJob) // fails only for an unknown flag
	cmd.Flags().StringArrayVar(&files, "file", nil, "NAME=gs://BUCKET/OBJECT, several times; .csv, .parquet, else JSON lines")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, csv or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "csv", "json"}, cobra.ShellCompDirectiveNoFileComp)) // likewise
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

// sqlSession is a database in memory.
type sqlSession struct {
	c      *client
	db     *sql.DB
	tables []string
}

func newSQLSession(ctx context.Context, c *client) (*sqlSession, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection would have a database of its own
	return &sqlSession{c: c, db: db}, db.PingContext(ctx)
}

func (q *sqlSession) run(cmd *cobra.Command, jobs, files, args []string, write func(io.Writer, *sql.Rows, []string) error) error {
	ctx := cmd.Context()
	for _, j := range jobs {
		name, job, ok := strings.Cut(j, "=")
		if !ok {
			return resource.Invalid("job", "--job %q is not NAME=JOB", j).WithHint("NAME begins the names of its tables: --job j=%s gives j_input, j_output and j_errors", j)
		}
		if err := q.loadJob(ctx, name, job); err != nil {
			return err
		}
	}
	for _, f := range files {
		name, uri, ok := strings.Cut(f, "=")
		if !ok {
			return resource.Invalid("file", "--file %q is not NAME=gs://BUCKET/OBJECT", f).WithHint("NAME is the name of its table")
		}
		if err := q.loadFile(ctx, name, uri); err != nil {
			return err
		}
	}
	if len(args) == 0 {
		return q.describe(ctx, cmd.OutOrStdout())
	}
	rows, err := q.db.QueryContext(ctx, args[0])
	if err != nil {
		return resource.Invalid("query", "the query: %w", err).WithHint("without a query, `tategu sql` lists the tables and their columns")
	}
	names, err := rows.Columns()
	if err == nil {
		err = write(cmd.OutOrStdout(), rows, names)
	}
	return errors.Join(err, rows.Err(), rows.Close()) //nolint:sqlclosecheck // its error is told
}

// describe lists the tables.
func (q *sqlSession) describe(ctx context.Context, out io.Writer) error {
	for _, t := range q.tables {
		var rows int
		var columns string
		err := q.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM `+quoted(t)+`), (SELECT group_concat(name, ', ') FROM pragma_table_info(?))`, t).Scan(&rows, &columns)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s (%s): %s\n", t, counted(int64(rows), "row"), columns); err != nil {
			return err
		}
	}
	return nil
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// eachRow scans rows into values.
func eachRow(rows *sql.Rows, width int, f func([]any) error) error {
	values, at := make([]any, width), make([]any, width)
	for i := range values {
		at[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(at...); err != nil {
			return err
		}
		for i, v := range values {
			if b, ok := v.([]byte); ok {
				values[i] = string(b)
			}
		}
		if err := f(values); err != nil {
			return err
		}
	}
	return nil
}

func texts(values []any) []string {
	out := make([]string, len(values))
	for i, v := range values {
		if v != nil {
			out[i] = fmt.Sprint(v)
		}
	}
	return out
}

func writeTable(out io.Writer, rows *sql.Rows, names []string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := fmt.Fprintln(w, strings.Join(names, "\t")); err != nil {
		return err
	}
	clean := strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")
	err := eachRow(rows, len(names), func(values []any) error {
		cells := texts(values)
		for i := range cells {
			cells[i] = clean.Replace(cells[i])
		}
		_, err := fmt.Fprintln(w, strings.Join(cells, "\t"))
		return err
	})
	return errors.Join(err, w.Flush())
}

func writeCSV(out io.Writer, rows *sql.Rows, names []string) error {
	w := csv.NewWriter(out)
	if err := w.Write(names); err != nil {
		return err
	}
	err := eachRow(rows, len(names), func(values []any) error { return w.Write(texts(values)) })
	w.Flush()
	return errors.Join(err, w.Error())
}

// writeJSON writes a line for each row, with the columns in their order.
func writeJSON(out io.Writer, rows *sql.Rows, names []string) error {
	keys := make([]string, len(names))
	for i, name := range names {
		key, err := json.Marshal(name)
		if err != nil {
			return err
		}
		keys[i] = string(key)
	}
	return eachRow(rows, len(names), func(values []any) error {
		var line strings.Builder
		for i, v := range values {
			text, err := json.Marshal(v)
			if err != nil {
				return err
			}
			fmt.Fprintf(&line, ",%s:%s", keys[i], text)
		}
		_, err := fmt.Fprintf(out, "{%s}\n", line.String()[min(1, line.Len()):])
		return err
	})
}
