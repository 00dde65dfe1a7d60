package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/api/admin"
	"tategu/internal/resource"
)

func indexCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "index", Short: "Look into the indexes of vector search",
		Long: `index shows what the API of vector search has no method for: what is in an index, and the
generation before the last batch update, which rollback brings back. An INDEX is an id, a
display name or a full name.`,
	}
	cmd.AddCommand(indexLs(), indexShow(), indexQuery(), indexScan(), indexExport(), indexRollback())
	cmd.PersistentFlags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.PersistentFlags().String("project", "", "project of the indexes (default: the server's)")
	cmd.PersistentFlags().String("location", "", "location of the indexes (default: the server's)")
	return cmd
}

// connectFor is connect, to work in the project and location that flags name.
func connectFor(cmd *cobra.Command) (*client, error) {
	c, err := connect(cmd)
	if err == nil {
		c.project, c.location = or(cmd.Flag("project").Value.String(), c.project), or(cmd.Flag("location").Value.String(), c.location)
	}
	return c, err
}

func (c *client) indexes(ctx context.Context) ([]*pb.Index, error) {
	var out []*pb.Index
	for token := ""; ; {
		var raw json.RawMessage
		path := fmt.Sprintf("/v1beta1/projects/%s/locations/%s/indexes?pageSize=100&pageToken=%s", c.project, c.location, url.QueryEscape(token))
		if err := c.call(ctx, http.MethodGet, path, nil, &raw); err != nil {
			return nil, err
		}
		page := &pb.ListIndexesResponse{}
		if err := protojson.Unmarshal(raw, page); err != nil {
			return nil, err
		}
		out = append(out, page.GetIndexes()...)
		if token = page.GetNextPageToken(); token == "" {
			return out, nil
		}
	}
}

// findIndex gives the full name of what a person wrote.
func (c *client) findIndex(ctx context.Context, text string) (string, error) {
	if strings.HasPrefix(text, "projects/") {
		return text, nil
	}
	all, err := c.indexes(ctx)
	if err != nil {
		return "", err
	}
	found := ""
	for _, x := range all {
		if strings.HasSuffix(x.GetName(), "/"+text) {
			return x.GetName(), nil
		}
		if x.GetDisplayName() == text {
			if found != "" {
				return "", resource.Invalid("index", "several indexes are called %q", text).WithHint("name one by its id: `tategu index ls` shows them")
			}
			found = x.GetName()
		}
	}
	if found == "" {
		return "", resource.NotFound(text).WithHint("`tategu index ls` shows the indexes")
	}
	return found, nil
}

func indexLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List indexes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connectFor(cmd)
			if err != nil {
				return err
			}
			all, err := c.indexes(cmd.Context())
			if err != nil {
				return err
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(t, "ID\tNAME\tVECTORS\tDEPLOYED AS") // a tabwriter reports at Flush
			for _, x := range all {
				var as []string
				for _, d := range x.GetDeployedIndexes() {
					as = append(as, d.GetDeployedIndexId())
				}
				_, _ = fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", x.GetName()[strings.LastIndexByte(x.GetName(), '/')+1:], x.GetDisplayName(), x.GetIndexStats().GetVectorsCount(), strings.Join(as, ", "))
			}
			return t.Flush()
		},
	}
}

// onIndex runs a verb that takes one index.
func onIndex(use, short string, run func(cmd *cobra.Command, c *client, index string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " INDEX", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connectFor(cmd)
			if err != nil {
				return err
			}
			index, err := c.findIndex(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return run(cmd, c, index)
		},
	}
}

func indexPath(below, index string, more ...string) string {
	q := url.Values{"index": {index}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return admin.IndexPath + below + "?" + q.Encode()
}

func indexShow() *cobra.Command {
	return onIndex("show", "Show how much is in an index, and how it is searched", func(cmd *cobra.Command, c *client, index string) error {
		var info admin.IndexInfo
		if err := c.call(cmd.Context(), http.MethodGet, indexPath("", index), nil, &info); err != nil {
			return err
		}
		return tellIndex(cmd.OutOrStdout(), info)
	})
}

func tellIndex(w io.Writer, i admin.IndexInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "index\t%s\ndatapoints\t%d (%d with a vector, %d with a sparse embedding)\n", i.Index, i.Count, i.Vectors, i.Sparse)
	_, _ = fmt.Fprintf(t, "generation\t%d\n", i.Generation)
	switch {
	case i.CanRollback && i.Previous == 0:
		_, _ = fmt.Fprint(t, "roll-back to\t0, before the first batch update\n")
	case i.CanRollback:
		_, _ = fmt.Fprintf(t, "roll-back to\t%d\n", i.Previous)
	}
	if i.Recall > 0 {
		_, _ = fmt.Fprintf(t, "recall\t%.3f of the true ten nearest, by %s\n", i.Recall, i.Method)
	}
	_, _ = fmt.Fprintf(t, "segments\t%d, and %d changes not yet merged\nmemory\t%.1f MB\n", i.Segments, i.Unmerged, float64(i.Bytes)/1e6)
	return t.Flush()
}

func indexRollback() *cobra.Command {
	return onIndex("rollback", "Bring the generation before the last batch update back", func(cmd *cobra.Command, c *client, index string) error {
		var info admin.IndexInfo
		if err := c.call(cmd.Context(), http.MethodPost, indexPath("/rollback", index), nil, &info); err != nil {
			return err
		}
		return tellIndex(cmd.OutOrStdout(), info)
	})
}

// readLines reads a page of datapoints.
func (c *client) readLines(ctx context.Context, path string) ([]byte, error) {
	r, err := c.do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// scanIndex gives the lines of pages of datapoints to write, until there are no more or
// most were given.
func (c *client) scanIndex(ctx context.Context, index, after string, most int, write func(*pb.IndexDatapoint, []byte) error) error {
	for most > 0 {
		limit := min(most, 1000)
		data, err := c.readLines(ctx, indexPath("/datapoints", index, "after", after, "limit", strconv.Itoa(limit)))
		if err != nil {
			return err
		}
		n := 0
		for line := range bytes.Lines(data) {
			p := &pb.IndexDatapoint{}
			if err := protojson.Unmarshal(line, p); err != nil {
				return fmt.Errorf("the server's answer: %w", err)
			}
			if err := write(p, line); err != nil {
				return err
			}
			after = p.GetDatapointId()
			n++
		}
		if n < limit {
			return nil
		}
		most -= n
	}
	return nil
}

func indexScan() *cobra.Command {
	var after string
	var limit int
	cmd := onIndex("scan", "Print datapoints in the order of their ids, as the API's JSON", func(cmd *cobra.Command, c *client, index string) error {
		return c.scanIndex(cmd.Context(), index, after, limit, func(_ *pb.IndexDatapoint, line []byte) error {
			_, err := cmd.OutOrStdout().Write(line)
			return err
		})
	})
	cmd.Flags().StringVar(&after, "after", "", "begin after this id")
	cmd.Flags().IntVar(&limit, "limit", 100, "print so many at most")
	return cmd
}

func indexExport() *cobra.Command {
	var out string
	cmd := onIndex("export", "Write all datapoints as a file that a batch update reads", func(cmd *cobra.Command, c *client, index string) (err error) {
		w := cmd.OutOrStdout()
		if out != "" {
			f, err := os.Create(out)
			if err != nil {
				return err
			}
			defer func() {
				if e := f.Close(); err == nil {
					err = e
				}
			}()
			w = f
		}
		const all = 1 << 40
		return c.scanIndex(cmd.Context(), index, "", all, func(p *pb.IndexDatapoint, _ []byte) error {
			line, err := exported(p)
			if err != nil {
				return err
			}
			_, err = w.Write(append(line, '\n'))
			return err
		})
	})
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write, such as points.json (default: standard output)")
	return cmd
}

// exported is a datapoint in the JSON form of input files.
func exported(p *pb.IndexDatapoint) ([]byte, error) {
	type object = map[string]any
	r := object{"id": p.GetDatapointId()}
	if v := p.GetFeatureVector(); len(v) > 0 {
		r["embedding"] = v
	}
	if s := p.GetSparseEmbedding(); s != nil {
		r["sparse_embedding"] = object{"values": s.GetValues(), "dimensions": s.GetDimensions()}
	}
	restricts := make([]object, 0, len(p.GetRestricts()))
	for _, x := range p.GetRestricts() {
		one := object{"namespace": x.GetNamespace()}
		if len(x.GetAllowList()) > 0 {
			one["allow"] = x.GetAllowList()
		}
		if len(x.GetDenyList()) > 0 {
			one["deny"] = x.GetDenyList()
		}
		restricts = append(restricts, one)
	}
	numeric := make([]object, 0, len(p.GetNumericRestricts()))
	for _, x := range p.GetNumericRestricts() {
		n := object{"namespace": x.GetNamespace()}
		switch v := x.GetValue().(type) {
		case *pb.IndexDatapoint_NumericRestriction_ValueInt:
			n["value_int"] = v.ValueInt
		case *pb.IndexDatapoint_NumericRestriction_ValueFloat:
			n["value_float"] = v.ValueFloat
		case *pb.IndexDatapoint_NumericRestriction_ValueDouble:
			n["value_double"] = v.ValueDouble
		}
		numeric = append(numeric, n)
	}
	if len(restricts) > 0 {
		r["restricts"] = restricts
	}
	if len(numeric) > 0 {
		r["numeric_restricts"] = numeric
	}
	if tag := p.GetCrowdingTag().GetCrowdingAttribute(); tag != "" {
		r["crowding_tag"] = tag
	}
	if m := p.GetEmbeddingMetadata(); m != nil {
		r["embedding_metadata"] = m.AsMap()
	}
	return json.Marshal(r)
}

func indexQuery() *cobra.Command {
	var id, vector string
	var neighbors int
	cmd := onIndex("query", "Find the neighbours of a datapoint or of a vector, where the index is deployed", func(cmd *cobra.Command, c *client, index string) error {
		point := map[string]any{}
		switch {
		case (id == "") == (vector == ""):
			return resource.Invalid("query", "give either --id or --vector")
		case id != "":
			point["datapointId"] = id
		default:
			var v []float32
			if err := json.Unmarshal([]byte("["+strings.Trim(vector, "[] ")+"]"), &v); err != nil {
				return resource.Invalid("vector", "%q is no list of numbers", vector).WithHint("write 0.1,0.2,0.3")
			}
			point["featureVector"] = v
		}
		var at struct {
			DeployedIndexes []struct{ IndexEndpoint, DeployedIndexID string }
		}
		if err := c.call(cmd.Context(), http.MethodGet, "/v1beta1/"+index, nil, &at); err != nil {
			return err
		}
		if len(at.DeployedIndexes) == 0 {
			return resource.Invalid("index", "%s is not deployed", index).WithHint("deploy it on an index endpoint first")
		}
		d := at.DeployedIndexes[0]
		body := map[string]any{"deployedIndexId": d.DeployedIndexID, "queries": []any{map[string]any{"datapoint": point, "neighborCount": neighbors}}}
		var raw json.RawMessage
		if err := c.call(cmd.Context(), http.MethodPost, "/v1beta1/"+d.IndexEndpoint+":findNeighbors", body, &raw); err != nil {
			return err
		}
		answer := &pb.FindNeighborsResponse{}
		if err := protojson.Unmarshal(raw, answer); err != nil {
			return err
		}
		for _, n := range answer.GetNearestNeighbors()[0].GetNeighbors() {
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%g\t%s\n", n.GetDistance(), n.GetDatapoint().GetDatapointId()); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().StringVar(&id, "id", "", "id of a datapoint of the index")
	cmd.Flags().StringVar(&vector, "vector", "", "numbers with commas between")
	cmd.Flags().IntVarP(&neighbors, "neighbors", "n", 10, "how many are found")
	return cmd
}
