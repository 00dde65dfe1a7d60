package bucket

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A byte string is a chain of segments: immutable objects whose keys say where
// they begin, how often their bytes were merged, and which of two that begin at
// the same byte is the newer one:
//
//	c/XX/ID.w                               all that one Create wrote, up to splitSize
//	c/XX/ID.OFFSET-LEVEL-SEQUENCE           a segment; offset and sequence are 16 hex digits, level is 2
//
// XX is the end of the id, so that drivers over directories read a small one. Sequences
// grow along a chain, since a segment is written after what is before it. Of what
// begins at one byte the newest is part of the chain, if it is newer than the
// segment before it; everything else is stale: left by a kill between writing the
// segment that replaces others and deleting those, or by a write that was given up.
type segment struct {
	key      string
	offset   int64
	size     int64
	level    int
	sequence int64
	written  time.Time
}

const (
	contentFolder = "c/"
	removedFolder = "removed/"
	wholeSuffix   = ".w"
	// wholeLevel keeps what Create wrote out of merges.
	wholeLevel = math.MaxUint8
)

func (s segment) end() int64 { return s.offset + s.size }

// wellFormed says whether id may become part of a key: ids are ours or the
// store's, never what a user named.
func wellFormed(id string) error {
	if len(id) < 8 || len(id) > 80 || strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	}) {
		return fmt.Errorf("content id %q is not well formed", id)
	}
	return nil
}

// folder starts all keys of a well-formed id.
func folder(id string) string { return contentFolder + id[len(id)-2:] + "/" + id + "." }

func wholeKey(id string) string { return strings.TrimSuffix(folder(id), ".") + wholeSuffix }

func segmentKey(id string, offset int64, level int, sequence int64) string {
	return fmt.Sprintf("%s%016x-%02x-%016x", folder(id), offset, level, sequence)
}

// parseKey gives the id and segment of a key below contentFolder; ok is false for
// keys that are not ours.
func parseKey(key string) (id string, s segment, ok bool) {
	rest, found := strings.CutPrefix(key, contentFolder)
	if !found || len(rest) < 3 || rest[2] != '/' {
		return "", segment{}, false
	}
	id, suffix, found := strings.Cut(rest[3:], ".")
	if !found || wellFormed(id) != nil || !strings.HasPrefix(key, folder(id)) {
		return "", segment{}, false
	}
	s = segment{key: key, level: wholeLevel}
	if key == wholeKey(id) {
		return id, s, true
	}
	var fields [3]int64
	for i, part := range strings.Split(suffix, "-") {
		if i == len(fields) {
			return "", segment{}, false
		}
		n, err := strconv.ParseInt(part, 16, 64)
		if err != nil {
			return "", segment{}, false
		}
		fields[i] = n
	}
	s.offset, s.level, s.sequence = fields[0], int(fields[1]), fields[2]
	if s.offset < 0 || s.sequence <= 0 || s.key != segmentKey(id, s.offset, s.level, s.sequence) {
		return "", segment{}, false
	}
	return id, s, true
}

// chain is the segments of a byte string in order, without gaps.
type chain []segment

func (c chain) size() int64 {
	if len(c) == 0 {
		return 0
	}
	return c[len(c)-1].end()
}

// last is the sequence that a further segment must exceed.
func (c chain) last() int64 {
	if len(c) == 0 {
		return 0
	}
	return c[len(c)-1].sequence
}

// at gives the segment that holds the byte at offset.
func (c chain) at(offset int64) (segment, bool) {
	i, _ := slices.BinarySearchFunc(c, offset, func(s segment, offset int64) int {
		if s.end() <= offset {
			return -1
		}
		return 1
	})
	if i == len(c) || c[i].offset > offset {
		return segment{}, false
	}
	return c[i], true
}

// resolve finds the chain in the segments that a list gave, and what is stale.
func resolve(all []segment) (live chain, stale []segment) {
	slices.SortFunc(all, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(b.sequence, a.sequence))
	})
	last := int64(-1)
	for _, s := range all {
		switch {
		case s.offset == live.size() && s.sequence > last && (len(live) == 0 || live[len(live)-1].offset < s.offset):
			live, last = append(live, s), s.sequence
		default:
			stale = append(stale, s)
		}
	}
	return live, stale
}
