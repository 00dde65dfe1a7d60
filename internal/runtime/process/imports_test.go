package process

import (
	"slices"
	"strings"
	"testing"
)

func TestImports(t *testing.T) {
	t.Parallel()
	const source = `
"""import docstring
"""
import kfp
from kfp import dsl
from kfp.dsl import *
from __future__ import annotations
def f(a: str = "import text"):
    import pandas as pd, numpy.linalg as la  # import comment
    from google.cloud import (storage,
        bigquery as bq)
    from . import sibling
    from a.b import \
        c; import after
    x = {'k': '''
import inside
'''}
    importance = 1
`
	want := []string{"kfp", "kfp:dsl", "kfp.dsl", "pandas", "numpy.linalg", "google.cloud:storage", "google.cloud:bigquery", "a.b:c", "after"}
	i := newImporter()
	if got := i.imports(source); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for text, touchy := range map[string]bool{
		source: false, "os.environ['A'] = 'b'": true, "import os, numpy\nos.putenv('A', 'b')": true, "sys.path.insert(0, p)": true, "import subprocess": true,
		"os.system('pip install x')": true, "warnings.simplefilter('ignore')": true, "environment = 1": false,
	} {
		if i.touches(text) != touchy {
			t.Errorf("%q: %t", text, !touchy)
		}
	}
}

func FuzzImports(f *testing.F) {
	for _, s := range []string{"import a", "from a.b import (c,\n d)", "'''", "\"\\\n", "x = [\n#", "\\"} {
		f.Add(s)
	}
	i := newImporter()
	f.Fuzz(func(t *testing.T, source string) {
		for _, entry := range i.imports(source) {
			if strings.ContainsAny(entry, " \t\n\"'\\()") || entry == "" {
				t.Errorf("%q imports %q", source, entry)
			}
		}
	})
}
