package main

import (
	"os"
	"path/filepath"
	"testing"

	"tategu/internal/resource"
)

func TestTitles(t *testing.T) {
	t.Parallel()
	for source, want := range map[string][2]string{ // name and id
		"/a/fraud":               {"fraud", "fraud"},
		"/a/fraud/":              {"fraud", "fraud"},
		"/a/fraud.onnx":          {"fraud", "fraud"},
		"/a/fraud/model.onnx":    {"fraud", "fraud"},
		"/a/v1.2":                {"v1.2", "v1-2"},
		"gs://b/Fraud Detection": {"Fraud Detection", "fraud-detection"},
		"gs://b/fraud/model.txt": {"fraud", "fraud"},
		"/a/2024":                {"2024", ""},
		"/a/模型":                  {"模型", ""},
	} {
		if got := titleOf(source); got != want[0] || idOf(got) != want[1] {
			t.Errorf("%s: %q, %q; want %q", source, got, idOf(got), want)
		}
	}
}

// TestRecognise: what serves a folder is told by its files; what nothing serves is refused.
func TestRecognise(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files []string
		image string
		bad   bool
	}{
		"routine":          {files: []string{"predictor.py", "model.joblib"}, image: "tategu/cpr"},
		"routine in src":   {files: []string{"src/predictor.py", "model.joblib"}, image: "tategu/cpr"},
		"booster":          {files: []string{"model.bst"}},
		"archive":          {files: []string{"digits.mar"}},
		"onnx beside":      {files: []string{"model.onnx", "vocabulary.pkl"}},
		"pickle":           {files: []string{"model.pkl"}, bad: true},
		"nothing":          {files: []string{"README.md"}, bad: true},
		"empty":            {bad: true},
		"folder of a name": {files: []string{"predictor.py/x"}, bad: true},
	} {
		dir := t.TempDir()
		for _, file := range c.files {
			at := filepath.Join(dir, filepath.FromSlash(file))
			if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := &push{}
		err := p.recognise(dir, true)
		if (err != nil) != c.bad || p.image != c.image {
			t.Errorf("%s: image %q, %v", name, p.image, err)
		}
		if c.bad && resource.CodeOf(err) != 3 {
			t.Errorf("%s: %v is no bad argument", name, err)
		}
	}
}
