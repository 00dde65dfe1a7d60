// Package resource holds the plain values that every layer speaks: resource
// names, errors, etags, field masks, filters and pages. It knows no storage and
// no protocol.
package resource

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// Name is a full resource name cut at its slashes, such as
// projects/p/locations/us-central1/models/1. Its text form is canonical.
type Name struct {
	segments []string
	// Version is what follows "@" on the last segment: a version id or alias.
	Version string
}

// ParseName cuts s, which must be an even number of non-empty segments.
func ParseName(s string) (Name, error) {
	rest, version, _ := strings.Cut(s, "@")
	segments := strings.Split(rest, "/")
	if len(segments)%2 != 0 || strings.Contains(version, "/") {
		return Name{}, Invalid("name", "%q is not a resource name: want collection/id pairs such as projects/P/locations/L/models/M", s)
	}
	if slices.Contains(segments, "") {
		return Name{}, Invalid("name", "%q is not a resource name: it has an empty segment", s)
	}
	return Name{segments: segments, Version: version}, nil
}

// String gives the name without its version.
func (n Name) String() string { return strings.Join(n.segments, "/") }

// Collection is the last collection, such as "models".
func (n Name) Collection() string {
	if len(n.segments) < 2 {
		return ""
	}
	return n.segments[len(n.segments)-2]
}

// ID is the last segment.
func (n Name) ID() string {
	if len(n.segments) == 0 {
		return ""
	}
	return n.segments[len(n.segments)-1]
}

// Get gives the id under a collection ("projects", "locations", ...), or "".
func (n Name) Get(collection string) string {
	for i := 0; i+1 < len(n.segments); i += 2 {
		if n.segments[i] == collection {
			return n.segments[i+1]
		}
	}
	return ""
}

// Project is the id under "projects".
func (n Name) Project() string { return n.Get("projects") }

// Location is the id under "locations".
func (n Name) Location() string { return n.Get("locations") }

// Parent is the name two segments up; the zero Name above a project.
func (n Name) Parent() Name {
	if len(n.segments) < 2 {
		return Name{}
	}
	return Name{segments: n.segments[:len(n.segments)-2]}
}

// Child appends a collection and an id.
func (n Name) Child(collection, id string) Name {
	segments := make([]string, 0, len(n.segments)+2)
	return Name{segments: append(append(segments, n.segments...), collection, id)}
}

// NewID makes a numeric id as the aiplatform API gives them: positive, up to 19
// digits, random, so that ids of several servers do not meet.
func NewID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails since Go 1.24
	return numeric(b)
}

func numeric(b [8]byte) string {
	return strconv.FormatUint(binary.LittleEndian.Uint64(b[:])>>2|1<<60, 10)
}

// RandomID makes an id of 32 hexadecimal digits: 128 random bits, which nobody
// guesses and no two places share.
func RandomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails since Go 1.24
	return hex.EncodeToString(b[:])
}
