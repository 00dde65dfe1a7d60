package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
)

// FuzzReadPipeline: whatever a file holds, it becomes a job whose pipeline can be
// parsed or is refused as the caller's mistake.
func FuzzReadPipeline(f *testing.F) {
	files, err := filepath.Glob("../../internal/pipeline/testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, s := range []string{
		"", "---\n", "[]", "root: [", "root: {}\n---\nplatforms: {kubernetes: {}}\n", `{"pipelineSpec": {"root": {}}, "runtimeConfig": {"parameterValues": {"x": 1}}}`,
		"root: &a {x: *a}", "root: {? [1, 2] : 3}", "pipelineInfo: {name: y}\nroot: {dag: {tasks: {n: {}}}}", "root: {a: .nan, b: 0x1F, c: 2026-01-02}", "root: !!binary aGk=",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		job, err := decodePipeline("file.yaml", text)
		if err == nil {
			_, err = pipeline.Parse(job.PipelineSpec)
		}
		if code := resource.CodeOf(err); err != nil && code != codes.InvalidArgument && code != codes.Unimplemented {
			t.Fatalf("%s: %v", code, err)
		}
	})
}

// TestReadPipelineBounds: a file that is too long, or says too much by few words, is
// refused by name.
func TestReadPipelineBounds(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "long.yaml")
	if err := os.WriteFile(file, []byte(strings.Repeat("#", pipeline.MaxSpec+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPipeline(file); err == nil || !strings.Contains(err.Error(), "(16 MiB) is the most") {
		t.Error(err)
	}
	var bomb strings.Builder
	bomb.WriteString("a: &a [x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c < 'm'; c++ {
		fmt.Fprintf(&bomb, "%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	bomb.WriteString("root: *l\n")
	if _, err := decodePipeline("bomb.yaml", []byte(bomb.String())); err == nil || !strings.Contains(err.Error(), "aliasing") {
		t.Error(err)
	}
}
