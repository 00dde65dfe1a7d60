package local

import (
	"tategu/internal/vector"
)

// Bounds of what one request takes, whatever it asks for.
const (
	atOnce     = 256     // queries that are answered together
	mostAtOnce = 1 << 20 // candidates of these, about
)

// share is how many of the queries are answered together: many share scans, and what
// they keep until they are answered is bounded.
func (v *view) share(queries []vector.Query) int {
	streamed, rows := v.sizes()
	candidates := 0
	for i, q := range queries[:min(len(queries), atOnce)] {
		switch {
		case q.PerCrowding == 0:
			candidates += depth(q)
		case isSparse(q):
			candidates += streamed + rows
		default:
			candidates += streamed + depth(q)
		}
		if i > 0 && candidates > mostAtOnce {
			return i
		}
	}
	return min(len(queries), atOnce)
}

// sizes are how many datapoints are in memory and in segments.
func (v *view) sizes() (streamed, rows int) {
	defer v.rlock()()
	for _, m := range v.memories() {
		streamed += len(m.entries)
	}
	for _, s := range v.segments {
		rows += s.Len()
	}
	return streamed, rows
}
