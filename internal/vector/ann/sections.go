package ann

import (
	"cmp"
	"slices"
)

// sections of a segment that was built, with all that is only stored. The segment's own
// meta gets the numbers of them.
func (b *builder) sections(s *Segment) []section {
	return []section{
		{secFloats, raw(s.floats)},
		{secScales, raw(s.scales)},
		{secByID, raw(s.byID)},
		{secMean, raw(s.mean)},
		{secCodes, raw(s.codes)},
		{secNorms, raw(s.norms)},
		{secLeaves, raw(s.leaves)},
		{secCentroids, raw(s.centroids)},
		{secCentroidNorm, raw(s.centroidNorms)},
		{secIDs, s.ids.bytes()},
		{secRecords, s.records.bytes()},
		{secTokens, s.tokens.bytes()},
		{secPostings, s.postings.bytes()},
		{secColumns, s.columns.bytes()},
		{secKeys, s.keys.bytes()},
		{secKeyRows, raw(s.keyRows)},
		{secCrowding, raw(s.crowding)},
		{secGraph, raw(s.links)},
		{secEntries, raw(s.entries)},
		{secSteps, raw(s.steps)},
	}
}

// attach puts ids and attributes to the rows of a segment, in its order.
func (b *builder) attach(s *Segment, order []uint32) error {
	place := make([]uint32, b.n) // of a row as it came
	for i := range b.n {
		place[b.source(i)] = uint32(i)
	}
	s.byID = make([]uint32, b.n)
	for i, r := range order {
		s.byID[i] = place[r]
	}
	tags := map[string]uint32{}
	a := attributes{tokens: map[string][]uint32{}, columns: map[string][]entry{}}
	crowding := make([]uint32, b.n)
	for i := range b.n {
		from := b.source(i)
		s.ids.add(b.ids.at(from)...)
		s.records.add(b.records.at(from)...)
		var r Row
		if err := readRecord(b.records.at(from), &r); err != nil {
			return err
		}
		a.add(uint32(i), r)
		if r.Crowding != "" {
			if tags[r.Crowding] == 0 {
				tags[r.Crowding] = uint32(len(tags) + 1)
			}
			crowding[i] = tags[r.Crowding]
		}
	}
	if len(tags) > 0 {
		s.crowding = crowding
	}
	a.into(s)
	s.Tokens, s.Columns, s.Crowded = s.tokens.len(), s.columns.len(), len(tags) > 0
	return nil
}

type entry struct {
	key uint64
	row uint32
}

// attributes gather what filters look rows up by.
type attributes struct {
	tokens  map[string][]uint32
	columns map[string][]entry
}

func (a *attributes) add(row uint32, r Row) {
	token := func(list, namespace, t string) {
		k := tokenKey(list, namespace, t)
		if rows := a.tokens[k]; len(rows) == 0 || rows[len(rows)-1] != row {
			a.tokens[k] = append(rows, row)
		}
	}
	for _, v := range r.Restricts {
		for _, t := range v.Allow {
			token(allowToken, v.Namespace, t)
		}
		for _, t := range v.Deny {
			token(denyToken, v.Namespace, t)
		}
	}
	for _, v := range r.Numerics {
		k := columnKey(v.Namespace, v.Kind)
		a.columns[k] = append(a.columns[k], entry{v.key(), row})
	}
}

func (a *attributes) into(s *Segment) {
	for _, k := range sorted(a.tokens) {
		s.tokens.add([]byte(k)...)
		s.postings.add(a.tokens[k]...)
	}
	for _, k := range sorted(a.columns) {
		s.columns.add([]byte(k)...)
		c := a.columns[k]
		slices.SortFunc(c, func(x, y entry) int { return cmp.Or(cmp.Compare(x.key, y.key), cmp.Compare(x.row, y.row)) })
		keys := make([]uint64, len(c))
		for i, e := range c {
			keys[i] = e.key
			s.keyRows = append(s.keyRows, e.row)
		}
		s.keys.add(keys...)
	}
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
