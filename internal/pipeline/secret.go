package pipeline

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	ps "tategu/internal/pipeline/pipelinespec"
	"tategu/internal/resource"
)

// Secrets keeps what must not stand in a pipeline.
type Secrets interface {
	// Secret gives the values of a project's secret by key: NotFound when there is
	// no such secret.
	Secret(ctx context.Context, project, name string) (map[string]string, error)
}

// secretUse puts values of a secret into variables of a program.
type secretUse struct {
	source    *ps.TaskInputsSpec_InputParameterSpec // the name of the secret
	optional  bool
	variables map[string]string // key of the secret -> variable
}

// secretVariables reads secretAsEnv (kubernetes_executor_config.proto).
func (k *kubernetes) secretVariables(text json.RawMessage) error {
	var entries []struct {
		SecretName          string          `json:"secretName"`
		SecretNameParameter json.RawMessage `json:"secretNameParameter"`
		Optional            bool            `json:"optional"`
		KeyToEnv            []struct {
			SecretKey string `json:"secretKey"`
			EnvVar    string `json:"envVar"`
		} `json:"keyToEnv"`
	}
	if err := json.Unmarshal(text, &entries); err != nil {
		return err
	}
	for _, e := range entries {
		u := secretUse{source: &ps.TaskInputsSpec_InputParameterSpec{}, optional: e.Optional, variables: map[string]string{}}
		source := e.SecretNameParameter
		if source == nil {
			source = encode(map[string]any{"runtimeValue": map[string]any{"constant": e.SecretName}})
		}
		if err := protojson.Unmarshal(source, u.source); err != nil {
			return fmt.Errorf("the name of the secret: %s", protoError(err))
		}
		for _, v := range e.KeyToEnv {
			u.variables[v.SecretKey] = v.EnvVar
		}
		k.secrets = append(k.secrets, u)
	}
	return nil
}

// needed lists the secrets without which a program must not run; one whose name
// comes from an input is "named by an input".
func (k kubernetes) needed() []string {
	var names []string
	for _, u := range k.secrets {
		if u.optional {
			continue
		}
		name := "named by an input"
		if v, ok := constant(u.source.GetRuntimeValue()); ok {
			name = plainText(v)
		}
		names = append(names, name)
	}
	return names
}

// secretEnv gives the variables of an attempt that come from secrets. They go to
// the runtime and into no row.
func (j *job) secretEnv(ctx context.Context, n *node) (map[string]string, error) {
	env := map[string]string{}
	for _, u := range n.def.kubernetes.secrets {
		value, given, err := j.m.source(n, u.source)
		if err != nil {
			return nil, err
		}
		name, ok := value.(string)
		if (!given || name == "") && u.optional {
			continue
		}
		if !ok || name == "" {
			return nil, fmt.Errorf("%s is not the name of a secret", describe(value))
		}
		err = resource.NotFound("secret " + name)
		var values map[string]string
		if j.cfg.Secrets != nil {
			values, err = j.cfg.Secrets.Secret(ctx, j.m.run.project, name)
		}
		if resource.IsNotFound(err) && u.optional {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("secret %q of project %s: %w", name, j.m.run.project, err)
		}
		for _, key := range sortedKeys(u.variables) {
			text, ok := values[key]
			if !ok && !u.optional {
				return nil, fmt.Errorf("secret %q of project %s has no key %q", name, j.m.run.project, key)
			}
			if ok {
				env[u.variables[key]] = text
			}
		}
	}
	return env, nil
}
