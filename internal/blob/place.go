package blob

import "io"

// placed is a reader of content that is in a file of this machine.
type placed interface {
	Place() (path string, offset int64)
}

// Place says in which file of this machine, and from which offset on, the bytes are that
// r, which OpenLive gave, would give: a helper process of ours can read them by itself.
// They are there for as long as the object is. ok is false where they are elsewhere: in
// a row, or in a bucket of a cloud.
func Place(r io.Reader) (path string, offset int64, ok bool) {
	if v, whole := r.(*verifier); whole {
		r = v.r
	}
	p, ok := r.(placed)
	if !ok {
		return "", 0, false
	}
	path, offset = p.Place()
	return path, offset, path != ""
}
