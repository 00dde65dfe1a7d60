package app

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// FuzzConfig: a configuration file is read, or refused with what is wrong in it.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"listen: 127.0.0.1:0\nproject: p\n", "images:\n  - {match: 'a*', python: '3.11', python.match: any}\n", "limits: {bodyBytes: 1, predict: 3s}\n", "listen: [1]\n", "unknown: 1\n",
		"a: &a [*a]\n", "public: ':'\ntls: {cert: x}\n", "tunnel: maybe\n", "\x00", "listen: ''\n---\nlisten: x\n", "hosts: [\n", "<<: {listen: a}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "tategu.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(file)
		if err == nil {
			err = c.Validate()
		}
		if err != nil {
			if resource.CodeOf(err) != codes.InvalidArgument {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		_, _ = runtime.Resolve(c.Images, "python:3.11") // must return
	})
}
