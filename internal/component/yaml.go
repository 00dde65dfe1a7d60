package component

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

type m = map[string]any

// YAML writes the component compiled, as kfp's compiler does: a pipeline of one step
// (github.com/kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto).
func (c Component) YAML() ([]byte, error) {
	name := strings.ReplaceAll(c.Name, "_", "-")
	command, args := c.words()
	container := m{"image": c.Image, "command": command}
	if len(args) > 0 {
		list := make([]string, 0, 2*len(args))
		for _, a := range args {
			list = append(list, compiledArgument(a)...)
		}
		container["args"] = list
	}
	inputs, outputs := c.definitions()
	task := m{"cachingOptions": m{"enableCache": true}, "componentRef": m{"name": "comp-" + name}, "taskInfo": m{"name": name}}
	dag := m{"tasks": m{name: task}}
	component := m{"executorLabel": "exec-" + name}
	root := m{"dag": dag}
	if len(inputs) > 0 {
		component["inputDefinitions"], root["inputDefinitions"] = inputs, inputs
		task["inputs"] = c.passed()
	}
	if len(outputs) > 0 {
		component["outputDefinitions"], root["outputDefinitions"] = outputs, outputs
		dag["outputs"] = c.returned(name)
	}
	spec := m{
		"components":     m{"comp-" + name: component},
		"deploymentSpec": m{"executors": m{"exec-" + name: m{"container": container}}},
		"pipelineInfo":   m{"name": name}, "root": root, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# PIPELINE DEFINITION\n# Name: %s\n# The component of %s, made by `tategu task from`.\n", name, oneLine(c.Source))
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(spec); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

func artifactType() m {
	return m{"artifactType": m{"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}
}

func (c Component) definitions() (inputs, outputs m) {
	parameters, in, out := m{}, m{}, m{}
	inputs, outputs = m{}, m{}
	for _, a := range c.Arguments {
		switch a.Type {
		case In:
			in[a.Name] = artifactType()
		case Out:
			out[a.Name] = artifactType()
		case String, Int, Float, Bool, Words:
			p := m{"parameterType": map[Type]string{Int: "NUMBER_INTEGER", Float: "NUMBER_DOUBLE", Bool: "BOOLEAN"}[a.Type]}
			if p["parameterType"] == "" {
				p["parameterType"] = "STRING"
			}
			if !a.Required {
				p["isOptional"] = true
			}
			if a.Default != "" {
				p["defaultValue"] = a.value()
			}
			parameters[a.Name] = p
		}
	}
	set(inputs, "parameters", parameters)
	set(inputs, "artifacts", in)
	set(outputs, "artifacts", out)
	return inputs, outputs
}

func set(to m, key string, v m) {
	if len(v) > 0 {
		to[key] = v
	}
}

// value of the default, which is a literal of Python and, but for True and False, of
// YAML too.
func (a Argument) value() any {
	if a.Type == Bool {
		return a.Default == "True"
	}
	if a.Type == Int || a.Type == Float {
		if f, err := strconv.ParseFloat(a.Default, 64); err == nil {
			return f
		}
	}
	var v any
	if err := yaml.Unmarshal([]byte(a.Default), &v); err != nil {
		return a.Default
	}
	return v
}

// passed hands the inputs of the whole to the step.
func (c Component) passed() m {
	parameters, artifacts := m{}, m{}
	for _, a := range c.Arguments {
		switch a.Type {
		case In:
			artifacts[a.Name] = m{"componentInputArtifact": a.Name}
		case Out:
		case String, Int, Float, Bool, Words:
			parameters[a.Name] = m{"componentInputParameter": a.Name}
		}
	}
	out := m{}
	set(out, "parameters", parameters)
	set(out, "artifacts", artifacts)
	return out
}

// returned makes the step's outputs those of the whole.
func (c Component) returned(task string) m {
	artifacts := m{}
	for _, a := range c.Arguments {
		if a.Type == Out {
			artifacts[a.Name] = m{"artifactSelectors": []m{{"outputArtifactKey": a.Name, "producerSubtask": task}}}
		}
	}
	return m{"artifacts": artifacts}
}

func compiledArgument(of any) []string {
	a, ok := of.(Argument)
	if !ok {
		return []string{fmt.Sprint(of)}
	}
	value := "{{$.inputs.parameters['" + a.Name + "']}}"
	switch {
	case a.Type == In:
		value = "{{$.inputs.artifacts['" + a.Name + "'].path}}"
	case a.Type == Out:
		value = "{{$.outputs.artifacts['" + a.Name + "'].path}}"
	case a.optional():
		then := `"` + value + `"`
		if a.Flag != "" {
			then = quote(a.Flag) + ", " + then
		}
		return []string{`{"IfPresent": {"InputName": ` + quote(a.Name) + `, "Then": [` + then + `]}}`}
	}
	if a.Flag != "" && a.Type != Bool && a.Type != Words {
		return []string{a.Flag, value}
	}
	return []string{value}
}
