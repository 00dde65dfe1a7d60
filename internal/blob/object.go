package blob

import "time"

// Object describes one generation of one object. Its bytes are Content.
type Object struct {
	Bucket, Name       string
	Generation         int64 // microseconds since 1970 at creation, unique and growing per object
	Metageneration     int64 // 1, grows with each metadata change
	Size               int64 // bytes
	ContentType        string
	ContentEncoding    string
	ContentDisposition string
	ContentLanguage    string
	CacheControl       string
	StorageClass       string
	Metadata           map[string]string // user metadata
	MD5                []byte            // 16 bytes; empty for composed objects
	CRC32C             uint32            // Castagnoli, of the whole content
	Components         int               // how many objects it was composed of; 0 = not composed
	Created, Updated   time.Time
	ClassUpdated       time.Time // when StorageClass was last set
	CustomTime         time.Time // zero = unset
	Content            string    // id in the Content port

	// Deleted is when a generation stopped being the live one; zero = it is live.
	Deleted time.Time
	// SoftDeleted and HardDelete are set on what can still be restored: since when,
	// and when it goes for good.
	SoftDeleted, HardDelete time.Time

	TemporaryHold, EventBasedHold bool
	HoldReleased                  time.Time       // when an event-based hold ended: retention counts from there
	Retention                     ObjectRetention // of this object alone
	// RetentionExpires is until when the bucket's policy keeps the object; worked
	// out on reading, since a change of the policy is one for all objects.
	RetentionExpires time.Time
}

// Retention modes of an object.
const (
	RetentionUnlocked = "Unlocked"
	RetentionLocked   = "Locked"
)

// ObjectRetention keeps one object until a time; zero = it does not.
type ObjectRetention struct {
	Mode  string // Unlocked or Locked; a locked one can only be prolonged
	Until time.Time
}

// ListQuery selects objects of a bucket in bytewise order of their names, and
// generations of one name oldest first.
type ListQuery struct {
	Prefix, Delimiter      string
	StartOffset, EndOffset string // names >= start, < end
	// After and AfterGeneration are the page token: what comes strictly after this
	// name (or prefix) and generation. Generation 0 means after all of the name.
	After           string
	AfterGeneration int64
	// IncludeTrailingDelimiter gives an object that ends at its delimiter both as
	// an object and as a prefix.
	IncludeTrailingDelimiter bool
	MatchGlob                string // names that match; see Glob
	Versions                 bool   // noncurrent generations too
	SoftDeleted              bool   // only what can be restored
	Limit                    int    // objects plus prefixes a page; 0 = 1000
}

// ListPage is one page; Next is "" on the last one. A page may be short of the
// limit, even empty, and yet not be the last one.
type ListPage struct {
	Objects        []Object
	Prefixes       []string
	Next           string
	NextGeneration int64
}
