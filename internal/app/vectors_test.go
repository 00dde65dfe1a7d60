package app

import (
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

func TestVectorsBackend(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		vectors Vectors
		wrong   string // a part of the error, "" = there is none
	}{
		"none":          {Vectors{}, ""},
		"local":         {Vectors{Backend: "local"}, ""},
		"unknown":       {Vectors{Backend: "milvus"}, `vectors.backend is "milvus"`},
		"no address":    {Vectors{Backend: "pgvector"}, "dsn and dsnFile"},
		"two addresses": {Vectors{Backend: "pgvector", PGVector: PGVector{DSN: "host=db", DSNFile: "f"}}, "dsn and dsnFile"},
		"pgvector":      {Vectors{Backend: "pgvector", PGVector: PGVector{DSN: "host=db", Schema: "own_1"}}, ""},
		"schema":        {Vectors{Backend: "pgvector", PGVector: PGVector{DSN: "host=db", Schema: `a"b`}}, "no name of a schema"},
		"connections":   {Vectors{Backend: "pgvector", PGVector: PGVector{DSN: "host=db", Connections: -1}}, "connections"},
		"not chosen":    {Vectors{PGVector: PGVector{DSN: "host=db"}}, "vectors.backend is not pgvector"},
	} {
		err := tt.vectors.validate()
		if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %v, want %q", name, err, tt.wrong)
		}
	}
}

// A server does not start with a backend that lacks its indexes: they would seem to be empty.
func TestVectorsKeptElsewhere(t *testing.T) {
	t.Parallel()
	for has, tt := range map[store.Kind]struct{ good, bad string }{"pgvectorTable": {"pgvector", "local"}, "vectorTable": {"local", "pgvector"}, "vectorLog": {"", "pgvector"}} {
		rows, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		const index = "projects/p/locations/l/indexes/i"
		err = rows.Update(t.Context(), func(tx store.Tx) error {
			return tx.Put(t.Context(), store.Row{Kind: has, Key: index, Parent: index, Data: []byte("{}")})
		})
		if err != nil {
			t.Fatal(err)
		}
		open := func(backend string) error {
			return (&Main{store: rows, cfg: Config{Vectors: Vectors{Backend: backend}}}).keptElsewhere(t.Context())
		}
		if err := open(tt.good); err != nil {
			t.Errorf("%s with %q: %v", has, tt.good, err)
		}
		if err := open(tt.bad); resource.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), index) {
			t.Errorf("%s with %q: %v", has, tt.bad, err)
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
}
