package component_test

import (
	"strings"
	"testing"

	"tategu/internal/component"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const argparseScript = `
"""A script: parser.add_argument("--in-a-string")"""
import argparse, os  # p.add_argument("--in-a-comment")
from pathlib import Path
p = argparse.ArgumentParser(description=f"x {p.add_argument('--in-an-f-string')}")
p.add_argument("data", type=Path, help="where the "
               'rows are')
p.add_argument("-e", "--epochs", type=int, default=1_000, help="how often")
g = p.add_argument_group("more")
g.add_argument("--rate", type=float, default=1)
g.add_argument("--shift", type=float, default=-0.5)
g.add_argument("--mode", choices=["a", "b"], default='fa"st', required=False)
g.add_argument("--home", default=os.environ.get("HOME"))
g.add_argument("--need", required=True)
g.add_argument("--verbose", "-v", action="store_true")
g.add_argument("--no-cache", dest="cache", action="store_false")
g.add_argument("--color", action=argparse.BooleanOptionalAction, default=True)
g.add_argument("--layer", action="append")
g.add_argument("--class", nargs="*")
g.add_argument("rest", nargs="?")
g.add_argument("files", nargs="+", metavar=("A", "B"))
g.add_argument("--version", action="version", version="1")
g.add_argument("--epochs", help="the second of a name is not read")
g.add_argument(*names)
`

const clickScript = `
import click
@click.command()
@click.option("--rows", "-n", default=100, help="how many")
@click.option("--rate", default=0.5)
@click.option("--name", required=True)
@click.option("--shout/--no-shout", default=True)
@click.option("--dry", is_flag=True)
@click.option("--tag", multiple=True)
@click.option("--where", type=click.Path())
@click.argument("src")
@click.argument("dst", required=False)
def main(rows): ...
`

func TestArguments(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		source string
		want   []component.Argument
	}{
		"argparse": {argparseScript, []component.Argument{
			{Name: "data", Type: "str", Required: true, Help: "where the rows are"},
			{Name: "epochs", Flag: "--epochs", Type: "int", Default: "1000", Help: "how often"},
			{Name: "rate", Flag: "--rate", Type: "float", Default: "1.0"},
			{Name: "shift", Flag: "--shift", Type: "float", Default: "-0.5"},
			{Name: "mode", Flag: "--mode", Type: "str", Default: `"fa\"st"`},
			{Name: "home", Flag: "--home", Type: "str"},
			{Name: "need", Flag: "--need", Type: "str", Required: true},
			{Name: "verbose", Flag: "--verbose", Type: "bool", Default: "False"},
			{Name: "cache", Off: "--no-cache", Type: "bool", Default: "True"},
			{Name: "color", Flag: "--color", Off: "--no-color", Type: "bool", Default: "True"},
			{Name: "layer", Flag: "--layer", Type: "words", Default: `""`, Repeated: true},
			{Name: "class_of", Flag: "--class", Type: "words", Default: `""`},
			{Name: "rest", Type: "str"},
			{Name: "files", Type: "words", Required: true},
		}},
		"click": {clickScript, []component.Argument{
			{Name: "rows", Flag: "--rows", Type: "int", Default: "100", Help: "how many"},
			{Name: "rate", Flag: "--rate", Type: "float", Default: "0.5"},
			{Name: "name", Flag: "--name", Type: "str", Required: true},
			{Name: "shout", Flag: "--shout", Off: "--no-shout", Type: "bool", Default: "True"},
			{Name: "dry", Flag: "--dry", Type: "bool", Default: "False"},
			{Name: "tag", Flag: "--tag", Type: "words", Default: `""`, Repeated: true},
			{Name: "where", Flag: "--where", Type: "str"},
			{Name: "src", Type: "str", Required: true},
			{Name: "dst", Type: "str"},
		}},
		"subcommands": {"p.add_subparsers()\np.add_argument('--x')", nil},
		"none":        {"print('hello')", nil},
	}
	for name, tc := range tests {
		got, ok := component.Arguments(tc.source)
		if ok != (tc.want != nil) {
			t.Errorf("%s: ok is %t", name, ok)
		}
		if d := cmp.Diff(tc.want, got); tc.want != nil && d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestParseArgument(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]component.Argument{
		"rows:int=+007":   {Name: "rows", Flag: "--rows", Type: "int", Default: "7"}, // 007 is no Python
		"rows:int=100":    {Name: "rows", Flag: "--rows", Type: "int", Default: "100"},
		"model-dir:out":   {Name: "model_dir", Flag: "--model-dir", Type: "out", Required: true},
		"-x":              {Name: "x", Flag: "-x", Type: "str", Required: true},
		"name=a=b":        {Name: "name", Flag: "--name", Type: "str", Default: `"a=b"`},
		"fast:bool":       {Name: "fast", Flag: "--fast", Type: "bool", Default: "False"},
		"fast:bool=true":  {Name: "fast", Flag: "--fast", Type: "bool", Default: "True"},
		"rate:float=1e-3": {Name: "rate", Flag: "--rate", Type: "float", Default: "0.001"},
	} {
		got, err := component.ParseArgument(text)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", text, err, d)
		}
	}
	for _, text := range []string{"", "=1", "a b", "rows:long", "rows:int=many", "x:in=1", "x:float=inf", "x:bool=perhaps"} {
		if _, err := component.ParseArgument(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

const want = "# The component train, of train.py; made by `tategu task from`.\n" + `from typing import Optional

from kfp import dsl


@dsl.container_component
def train(
    data: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Artifact],
    epochs: int = 3,  # how often
    rate: Optional[float] = None,
    fast: bool = False,
):
    return dsl.ContainerSpec(
        image="p/train@sha256:1",
        command=[
            "sh",
            "-c",
            "set -f\n"
            "v1=${1}\n"
            "shift 1\n"
            "case $v1 in true|True|1) set -- \"$@\" --fast;; *) :;; esac\n"
            "exec \"$@\"",
            "train",
        ],
        args=[
            fast,
            "python3",
            "train.py",
            "--epochs", epochs,
            dsl.IfPresentPlaceholder(input_name="rate", then=["--rate", rate]),
            "--data", data.path,
            "--model", model.path,
        ],
    )
`

func TestPython(t *testing.T) {
	t.Parallel()
	c := component.Component{
		Name: "train", Source: "train.py", Image: "p/train@sha256:1", Command: []string{"python3", "train.py"},
		Arguments: []component.Argument{
			{Name: "epochs", Flag: "--epochs", Type: "int", Default: "3", Help: "how often"},
			{Name: "rate", Flag: "--rate", Type: "float"},
			{Name: "data", Flag: "--data", Type: "in", Required: true},
			{Name: "model", Flag: "--model", Type: "out", Required: true},
			{Name: "fast", Flag: "--fast", Type: "bool", Default: "False"},
		},
	}
	if d := cmp.Diff(want, c.Python()); d != "" {
		t.Error(d)
	}
	bare := component.Component{Name: "run", Source: "run", Image: "i", Command: []string{"./run"}}
	if text := bare.Python(); !strings.Contains(text, "def run():") || strings.Contains(text, "args=") {
		t.Error(text)
	}
}

func FuzzArguments(f *testing.F) {
	f.Add(argparseScript)
	f.Add(clickScript)
	f.Add("a.add_argument(\"\"\"--x")
	f.Add("p.add_argument('--a', default=")
	f.Fuzz(func(t *testing.T, source string) {
		list, ok := component.Arguments(source)
		if ok != (len(list) > 0) {
			t.Fatalf("ok is %t with %d arguments", ok, len(list))
		}
		c := component.Component{Name: "c", Source: source, Image: "i", Command: []string{"x"}, Arguments: list}
		if first, _, _ := strings.Cut(c.Python(), "\n"); !strings.HasPrefix(first, "# ") {
			t.Fatalf("the first line is %q", first)
		}
		text, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		var back map[string]any
		if err := yaml.Unmarshal(text, &back); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	})
}

func FuzzParseArgument(f *testing.F) {
	for _, s := range []string{"rows:int=100", "-x", "a.b:words=x y", "n=\"\\\n", "r:float=1e-3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := component.ParseArgument(s)
		if err != nil {
			return
		}
		if a.Name == "" || strings.Trim(a.Name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Fatalf("%q is named %q", s, a.Name)
		}
		c := component.Component{Name: "c", Image: "i", Command: []string{"x"}, Arguments: []component.Argument{a}}
		text, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		var back map[string]any
		if err := yaml.Unmarshal(text, &back); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if strings.Count(c.Python(), "def c(\n") != 1 {
			t.Fatalf("%q gives\n%s", s, c.Python())
		}
	})
}
