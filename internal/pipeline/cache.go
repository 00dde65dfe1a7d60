package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/codes"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
)

// cacheEntry says what a task gave for one set of inputs; it is a row.
type cacheEntry struct {
	Key     string `json:"-"`
	Task    string `json:"task"` // row of the task that ran
	Outputs Values `json:"outputs"`
}

// cacheKey hashes everything that an attempt's outputs can depend on: pipeline,
// program (which carries its packages), variables, interface and resolved inputs,
// defaults included. Tasks without inputs of their own differ by their program.
func cacheKey(pipeline string, t *task, inputs Values) string {
	c := t.container()
	key := map[string]any{"pipeline": pipeline, "component": t.spec.GetComponentRef().GetName(), "interface": outline(t.comp)}
	if custom := t.spec.GetCachingOptions().GetCacheKey(); custom != "" {
		key["key"] = custom
		return digest(key)
	}
	env := map[string]string{}
	for _, e := range c.GetEnv() {
		env[e.GetName()] = e.GetValue()
	}
	artifacts := map[string][]map[string]any{}
	for k, list := range inputs.Artifacts {
		for _, a := range list {
			source := map[string]any{"uri": a.URI, "schema": a.Schema}
			if len(a.Metadata) > 0 { // empty and absent are the same: a stored artifact comes back without it
				source["metadata"] = a.Metadata
			}
			artifacts[k] = append(artifacts[k], source)
		}
	}
	key["image"], key["command"], key["args"], key["env"] = c.GetImage(), c.GetCommand(), c.GetArgs(), env
	key["parameters"], key["artifacts"] = inputs.Parameters, artifacts
	return digest(key)
}

// outline is the interface of a component without descriptions and defaults.
func outline(c *ps.ComponentSpec) map[string]any {
	artifacts := map[string]Schema{}
	for k, a := range c.GetOutputDefinitions().GetArtifacts() {
		artifacts[k] = schemaOf(a.GetArtifactType())
	}
	return map[string]any{"in": inputTypes(c), "out": outputTypes(c), "artifacts": artifacts}
}

// digest relies on encoding/json sorting the keys of maps.
func digest(v any) string {
	text, err := json.Marshal(v)
	if err != nil { // only strings, numbers and maps of them
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// findCached gives the entry of a key whose artifacts are still there.
func (j *job) findCached(ctx context.Context, key string) (*cacheEntry, error) {
	row, err := j.cfg.Store.Get(ctx, kindCache, cacheRow(&j.m.run, key))
	if resource.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look into the cache: %w", err)
	}
	entry := &cacheEntry{Key: key}
	if err := json.Unmarshal(row.Data, entry); err != nil {
		return nil, fmt.Errorf("read cache entry %s: %w", row.Key, err)
	}
	entry.Outputs.fill()
	for _, list := range entry.Outputs.Artifacts {
		for _, a := range list {
			if !a.Content {
				continue
			}
			there, err := j.objects.Exists(ctx, a.URI)
			if resource.CodeOf(err) == codes.PermissionDenied {
				return nil, nil // the work of another account, which this one does not get
			}
			if err != nil {
				return nil, fmt.Errorf("look for %s: %w", a.URI, err)
			}
			if !there {
				return nil, nil
			}
		}
	}
	return entry, nil
}

// cacheRow is the key of a cache row: entries are shared within a project and
// location.
func cacheRow(r *run, key string) string {
	return "projects/" + r.project + "/locations/" + r.location + "/cache/" + key
}
