// Package pipelinespec is the generated Go form of the Kubeflow Pipelines
// intermediate representation (schema 2.x), the language that the kfp compiler
// writes. It owns no behaviour; generate.sh makes it again.
package pipelinespec

//go:generate ./generate.sh
