package box

// Mapping says which ids of this machine stand for those of an image.
type Mapping struct {
	User  bool // a user namespace; without, ids are the machine's own
	Base  int  // id of the machine that the image's 0 is
	Count int  // how many ids there are from Base on; 1 = only the server's own user
}

// Host gives the machine's id for one of an image. An id that is not mapped
// becomes the last one, or the only one.
func (m Mapping) Host(id int) int {
	switch {
	case m.Count <= 1:
		return m.Base
	case id < 0 || id >= m.Count:
		return m.Base + min(overflowID, m.Count-1)
	}
	return m.Base + id
}

// Has reports whether an id of an image is mapped.
func (m Mapping) Has(id int) bool { return id >= 0 && id < m.Count }

// overflowID is nobody, as everywhere.
const overflowID = 65534

// Container ids are taken from a range above what systemd gives its own
// containers (systemd.io/UIDS-GIDS), where no user of a machine lives.
const (
	shiftedBase  = 1879048192
	shiftedCount = 65536
)
