package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// An importer says that an artifact exists. Unless it is told to import anew, an
// artifact of the metadata store with the same URI, type and metadata is that one.

// kindImports rows say which artifact an importer found or made, by what it wanted.
const kindImports store.Kind = "pipelineImports"

// importArtifact works out what an importer imports.
func (m *machine) importArtifact(n *node) {
	spec := n.def.importer()
	n.Started = m.now // it has an execution like any other task
	s := &scope{inputs: n.inputs, types: m.sourceTypes(n), job: m.jobPlaceholders(n)}
	uri := ""
	if c, ok := constant(spec.GetArtifactUri()); ok {
		uri = expand(plainText(c), s.lookup)
	} else if name := spec.GetArtifactUri().GetRuntimeParameter(); strings.Contains(name, "{{$") {
		uri = expand(name, s.lookup)
	} else if value, ok := n.inputs.Parameters[name]; ok {
		uri = plainText(value)
	}
	if uri == "" {
		m.finish(n, Failed, &Failure{Message: "the importer has no artifact URI", Cause: resource.CauseInput})
		return
	}
	metadata, _ := expandAll(spec.GetMetadata().AsMap(), s).(map[string]any)
	for k := range n.def.comp.GetOutputDefinitions().GetArtifacts() { // exactly one
		a := Artifact{Name: m.artifactName(n, k, 0), URI: uri, Schema: schemaOf(spec.GetTypeSchema()), Metadata: metadata}
		n.Outputs.Artifacts[k] = []Artifact{a}
		if spec.GetReimport() {
			m.finish(n, Succeeded, nil)
			return
		}
		m.do(find{path: n.Path, want: a})
	}
}

// imported goes on after a find; existing is "" where there is none.
func (m *machine) imported(n *node, existing string) {
	for k, list := range n.Outputs.Artifacts {
		want := list[0]
		if existing != "" {
			n.Outputs.Artifacts[k][0].Name = existing
		}
		m.imports = append(m.imports, importEntry{key: importKey(want), name: n.Outputs.Artifacts[k][0].Name})
	}
	m.finish(n, Succeeded, nil)
}

// importEntry is a row of kindImports to write.
type importEntry struct{ key, name string }

func importKey(a Artifact) string {
	key := map[string]any{"uri": a.URI, "schema": a.Schema}
	if len(a.Metadata) > 0 {
		key["metadata"] = a.Metadata
	}
	return digest(key)
}

func (j *job) importRow(key string) string { return j.metadata() + "/imports/" + key }

func (j *job) metadata() string { return metadataStore(j.m.run.project, j.m.run.location) }

// findArtifact gives the name of an artifact that is what an importer wants. The
// first time all are looked at, later the row of the first time says which.
func (j *job) findArtifact(ctx context.Context, want Artifact) (string, error) {
	row, err := j.cfg.Store.Get(ctx, kindImports, j.importRow(importKey(want)))
	if err == nil {
		name := string(row.Data)
		if _, err = j.cfg.Store.Get(ctx, resource.KindArtifacts, name); err == nil {
			return name, nil
		}
	}
	if !resource.IsNotFound(err) {
		return "", fmt.Errorf("look for an imported artifact: %w", err)
	}
	query := store.Query{Kind: resource.KindArtifacts, Parent: j.metadata(), Limit: 1000}
	for {
		rows, err := j.cfg.Store.List(ctx, query)
		if err != nil {
			return "", fmt.Errorf("look for an imported artifact: %w", err)
		}
		for _, row := range rows {
			if matches(row, want) {
				return row.Key, nil
			}
		}
		if len(rows) < query.Limit {
			return "", nil
		}
		query.After = rows[len(rows)-1].Key
	}
}

// matches reports that a row is the artifact that an importer wants. A row that
// cannot be read is not.
func matches(row store.Row, want Artifact) bool {
	if !strings.Contains(string(row.Data), want.URI) {
		return false // cheap, and true of nearly all
	}
	a := &pb.Artifact{}
	if err := store.Unmarshal(row, a); err != nil {
		return false
	}
	schema := want.message("")
	return a.Uri == want.URI && a.State == pb.Artifact_LIVE && a.SchemaTitle == schema.SchemaTitle && a.SchemaVersion == schema.SchemaVersion &&
		string(plainJSON(a.Metadata.AsMap())) == string(plainJSON(want.Metadata))
}

// plainJSON has sorted keys, and none for no metadata at all.
func plainJSON(m map[string]any) json.RawMessage {
	if len(m) == 0 {
		return nil
	}
	return encode(m)
}
