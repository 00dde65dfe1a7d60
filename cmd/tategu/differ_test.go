package main

import (
	"slices"
	"strings"
	"testing"

	"tategu/internal/pipeline"
)

func TestDifferences(t *testing.T) {
	t.Parallel()
	before := side{inputs: map[string]string{"n": "3", "old": "1"}, program: pipeline.Program{
		Image: "python:3.11", Source: "def f():\n    a()\n    b()\n    c()\n    d()\n", Packages: []string{"numpy==1", "six"}, Env: map[string]string{"A": "1"},
	}}
	after := side{inputs: map[string]string{"n": "4", "table": "gs://b/t"}, program: pipeline.Program{
		Image: "python:3.12", Source: "def f():\n    a()\n    b(1)\n    c()\n    d()\n    e()\n", Packages: []string{"numpy==2", "six"}, Env: map[string]string{"A": "1"},
	}}
	want := []string{
		"input n: 3 -> 4", "input old: is gone, was 1", "input table: is new: gs://b/t", "image: python:3.11 -> python:3.12",
		"packages:", "  - numpy==1", "  + numpy==2",
		"source:", "      a()", "  -     b()", "  +     b(1)", "      c()", "      d()", "  +     e()",
	}
	if got := differences(before, after); !sameButSpace(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := differences(after, after); len(got) != 0 {
		t.Errorf("a task differs from itself: %v", got)
	}
}

func sameButSpace(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool {
		return strings.Join(strings.Fields(x), " ") == strings.Join(strings.Fields(y), " ")
	})
}

// FuzzEdits: whatever the texts, the marked lines give both of them back.
func FuzzEdits(f *testing.F) {
	f.Add("a\nb\nc", "a\nc\nd")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, before, after string) {
		a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
		var x, y []string
		for _, line := range edits(a, b) {
			if line[0] != '+' {
				x = append(x, line[2:])
			}
			if line[0] != '-' {
				y = append(y, line[2:])
			}
		}
		if !slices.Equal(a, x) || !slices.Equal(b, y) {
			t.Errorf("%q to %q gave %q and %q", a, b, x, y)
		}
	})
}
