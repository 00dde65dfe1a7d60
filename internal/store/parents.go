package store

import (
	"context"
	"strings"
)

// Parents gives the parents of a kind whose keys begin with that of their parent and a
// slash, as names of resources do. It reads one row of each.
func Parents(ctx context.Context, r Reader, kind Kind) ([]string, error) {
	var out []string
	q := Query{Kind: kind, Limit: 1}
	for {
		rows, err := r.List(ctx, q)
		if err != nil || len(rows) == 0 {
			return out, err
		}
		at := rows[0]
		if at.Parent == "" || !strings.HasPrefix(at.Key, at.Parent+"/") {
			q.From, q.After = "", at.Key // not one of them
			continue
		}
		out = append(out, at.Parent)
		q.From, q.After = PrefixEnd(at.Parent+"/"), ""
	}
}
