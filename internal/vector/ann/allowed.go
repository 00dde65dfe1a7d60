package ann

import (
	"slices"
	"strings"
)

// Allowed puts the rows that pass a filter into a bitmap and says how many they are.
func (s *Segment) Allowed(f Filter, into *Bitmap) int {
	into.Reset(s.Rows)
	var other Bitmap
	every := true
	with := func(put func(*Bitmap)) {
		if every {
			put(into)
			every = false
			return
		}
		other.Reset(s.Rows)
		put(&other)
		into.And(&other)
	}
	for _, r := range f.Restricts {
		if len(r.Allow) > 0 {
			with(func(b *Bitmap) { s.each(allowToken, r.Namespace, r.Allow, b.setAll) })
		}
	}
	for _, t := range f.Tests {
		with(func(b *Bitmap) { s.test(t, b) })
	}
	if every {
		into.Fill()
	}
	for _, r := range f.Restricts {
		s.each(allowToken, r.Namespace, r.Deny, into.clearAll)
		s.each(denyToken, r.Namespace, r.Allow, into.clearAll)
	}
	return into.Count()
}

// each calls f with the rows of each of the tokens.
func (s *Segment) each(list, namespace string, tokens []string, f func(rows []uint32)) {
	for _, t := range tokens {
		f(s.posting(list, namespace, t))
	}
}

// Tokens and columns are found by their names in order.
const (
	allowToken = "a"
	denyToken  = "d"
)

func tokenKey(list, namespace, token string) string {
	return string(appendString([]byte(list), namespace)) + token
}

func columnKey(namespace string, k Kind) string { return string(rune('0'+k)) + namespace }

func find(l lists[byte], key string) (int, bool) {
	lo, hi := 0, l.len()
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if strings.Compare(string(l.at(m)), key) < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, lo < l.len() && string(l.at(lo)) == key
}

func (s *Segment) posting(list, namespace, token string) []uint32 {
	i, ok := find(s.tokens, tokenKey(list, namespace, token))
	if !ok {
		return nil
	}
	return s.postings.at(i)
}

// test puts the rows that pass into a bitmap.
func (s *Segment) test(t Test, into *Bitmap) {
	i, ok := find(s.columns, columnKey(t.Namespace, t.Kind))
	if !ok {
		return
	}
	keys, rows := s.keys.at(i), s.keyRows[s.keys.ends[i]:s.keys.ends[i+1]]
	key := t.key()
	lo, _ := slices.BinarySearch(keys, key)
	hi := lo
	for hi < len(keys) && keys[hi] == key {
		hi++
	}
	switch t.Operator {
	case Less:
		into.setAll(rows[:lo])
	case LessEqual:
		into.setAll(rows[:hi])
	case Equal:
		into.setAll(rows[lo:hi])
	case GreaterEqual:
		into.setAll(rows[lo:])
	case Greater:
		into.setAll(rows[hi:])
	case NotEqual:
		into.setAll(rows[:lo])
		into.setAll(rows[hi:])
	}
}
