package pgvector

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// Bounds of pgvector: of what it keeps, and of what its graphs take as it is and in halves.
const (
	maxDimensions = 16_000
	maxGraph      = 2000
	maxHalves     = 4000
)

// Names of relations begin so, and are random beyond it: one that an index left behind is never
// taken for that of an index that got its name.
const relationPrefix = "v_"

func termsOf(relation string) string { return relation + "_terms" }

// form is how an index's vectors are kept and compared in SQL.
type form struct {
	column, operator, class string // the expression that is indexed; "" = no class, no graph
	cast                    string // type of a query
	halves                  bool
}

// formOf: vectors that are compared at length 1 are kept so, which makes cosine a dot product and
// lets vectors of zeros be compared too.
func formOf(c vector.Config) form {
	f := form{column: "embedding", cast: "vector"}
	kind := "vector"
	if f.halves = c.Dimensions > maxGraph; f.halves {
		f.cast = fmt.Sprintf("halfvec(%d)", c.Dimensions)
		f.column, kind = "(embedding::"+f.cast+")", "halfvec"
	}
	switch c.Measure.Distance {
	case ann.SquaredL2:
		f.operator, f.class = "<->", kind+"_l2_ops"
	case ann.L1:
		f.operator, f.class = "<+>", kind+"_l1_ops"
	default:
		f.operator, f.class = "<#>", kind+"_ip_ops"
	}
	if c.BruteForce || c.Dimensions > maxHalves {
		f.class = ""
		f.column, f.cast, f.halves = "embedding", "vector", false
	}
	return f
}

// create makes an empty relation, which the caller lets go of by made or drop.
func (b *Backend) create(ctx context.Context, index vector.Index) (string, error) {
	if d := index.Config.Dimensions; d > maxDimensions {
		return "", resource.Errorf(codes.Unimplemented, "%s has %d dimensions; pgvector keeps %d at most", index.Name, d, maxDimensions).WithResource(index.Name).
			WithHint("leave vectors.backend out of the server's configuration for indexes like this")
	}
	random := make([]byte, 12)
	_, _ = rand.Read(random) // it never fails
	name := relationPrefix + hex.EncodeToString(random)
	b.mu.Lock()
	b.making[name] = true
	b.mu.Unlock()
	table, terms := b.quoted(name), b.quoted(termsOf(name))
	_, err := b.db.ExecContext(ctx, fmt.Sprintf(`CREATE TABLE %s (id bytea PRIMARY KEY, point bytea NOT NULL, embedding vector(%d),
		allow uuid[] NOT NULL, deny uuid[] NOT NULL, numbers jsonb NOT NULL, sparse boolean NOT NULL);
		CREATE TABLE %s (dim bigint, id bytea, value real NOT NULL, PRIMARY KEY (dim, id)); CREATE INDEX ON %s (id)`, table, index.Config.Dimensions, terms, terms))
	if err != nil {
		b.made(name)
		return "", unavailable(err)
	}
	return name, nil
}

// made says that a manifest names a relation now, or nobody will.
func (b *Backend) made(name string) {
	b.mu.Lock()
	delete(b.making, name)
	b.mu.Unlock()
}

// graph makes the indexes of a relation that is loaded.
func (b *Backend) graph(ctx context.Context, name string, c vector.Config) error {
	table := b.quoted(name)
	queries := []string{"CREATE INDEX ON " + table + " USING gin (allow)"}
	if f := formOf(c); f.class != "" {
		queries = append(queries, "CREATE INDEX ON "+table+" USING hnsw ("+f.column+" "+f.class+")")
	}
	for _, q := range append(queries, "ANALYZE "+table, "ANALYZE "+b.quoted(termsOf(name))) {
		if _, err := b.db.ExecContext(ctx, q); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// drop removes a relation once its last reader is done.
func (b *Backend) drop(ctx context.Context, name string) error {
	r := b.relation(name)
	r.use.Lock()
	defer r.use.Unlock()
	r.gone = true
	if _, err := b.db.ExecContext(ctx, "DROP TABLE IF EXISTS "+b.quoted(name)+", "+b.quoted(termsOf(name))); err != nil {
		return unavailable(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.making, name)
	return nil
}

// relationsThere are all in the schema, of whatever index.
func (b *Backend) relationsThere(ctx context.Context) (names []string, err error) {
	rows, err := b.db.QueryContext(ctx, `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname LIKE 'v\_%' AND c.relname NOT LIKE '%\_terms'`, b.cfg.Schema)
	if err != nil {
		return nil, unavailable(err)
	}
	defer func() { err = firstOf(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, unavailable(rows.Err())
}

func firstOf(errs ...error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// tries of a change that PostgreSQL undid since another one was in its way.
const tries = 5

// change runs f in a transaction; what deadlocked is tried again.
func (b *Backend) change(ctx context.Context, f func(tx *sql.Tx) error) error {
	for try := 1; ; try++ {
		tx, err := b.db.BeginTx(ctx, nil)
		if err != nil {
			return unavailable(err)
		}
		if err = f(tx); err == nil {
			err = tx.Commit()
		} else {
			_ = tx.Rollback() // err says why
		}
		if code := codeOf(err); try < tries && (code == "40P01" || code == "40001") {
			continue
		}
		return asOwn(err)
	}
}

// asOwn leaves our own errors as they are; all others are the database's.
func asOwn(err error) error {
	if _, own := errors.AsType[*resource.Error](err); own {
		return err
	}
	return unavailable(err)
}
