package blob

import "time"

// Bucket is a namespace of objects, with the rules that are executed on them.
type Bucket struct {
	Name, Project    string
	Location         string
	StorageClass     string
	Labels           map[string]string
	Metageneration   int64
	Created, Updated time.Time
	Policy           []byte // IAM policy as given, JSON; empty = default

	Versioning            bool // what is overwritten or deleted stays as a noncurrent generation
	Lifecycle             []LifecycleRule
	CORS                  []CORSRule
	Retention             RetentionPolicy
	DefaultEventBasedHold bool
	ObjectRetention       bool // objects may have a retention of their own
	SoftDelete            SoftDeletePolicy
	// PublicAccessPrevention is "enforced" when no policy may open the bucket to
	// everybody; "" = inherited, which is not.
	PublicAccessPrevention string
	Notifications          []Notification
	LastNotification       int // the greatest id that was given
}

// RetentionPolicy keeps every object of a bucket for some time after its creation.
type RetentionPolicy struct {
	Period    time.Duration // 0 = none
	Effective time.Time
	Locked    bool // it can only be prolonged
}

// SoftDeletePolicy keeps what was deleted or overwritten restorable for some time.
type SoftDeletePolicy struct {
	Period    time.Duration // 0 = off
	Effective time.Time
}

// CORSRule lets pages of other origins use a bucket
// (cloud.google.com/storage/docs/cross-origin).
type CORSRule struct {
	Origin         []string `json:"origin,omitempty"`
	Method         []string `json:"method,omitempty"`
	ResponseHeader []string `json:"responseHeader,omitempty"`
	MaxAgeSeconds  int      `json:"maxAgeSeconds,omitempty"`
}

// Lifecycle actions.
const (
	LifecycleDelete          = "Delete"
	LifecycleSetStorageClass = "SetStorageClass"
	LifecycleAbortMultipart  = "AbortIncompleteMultipartUpload"
)

// LifecycleRule is one rule in the API's own JSON form
// (cloud.google.com/storage/docs/lifecycle).
type LifecycleRule struct {
	Action struct {
		Type         string `json:"type"`
		StorageClass string `json:"storageClass,omitempty"`
	} `json:"action"`
	Condition LifecycleCondition `json:"condition"`
}

// LifecycleCondition holds when all of its fields do. Ages are in whole days,
// dates are YYYY-MM-DD and begin at midnight UTC.
type LifecycleCondition struct {
	Age                     *int     `json:"age,omitempty"`
	CreatedBefore           string   `json:"createdBefore,omitempty"`
	IsLive                  *bool    `json:"isLive,omitempty"`
	NumNewerVersions        *int     `json:"numNewerVersions,omitempty"`
	MatchesStorageClass     []string `json:"matchesStorageClass,omitempty"`
	MatchesPrefix           []string `json:"matchesPrefix,omitempty"`
	MatchesSuffix           []string `json:"matchesSuffix,omitempty"`
	DaysSinceCustomTime     *int     `json:"daysSinceCustomTime,omitempty"`
	CustomTimeBefore        string   `json:"customTimeBefore,omitempty"`
	DaysSinceNoncurrentTime *int     `json:"daysSinceNoncurrentTime,omitempty"`
	NoncurrentTimeBefore    string   `json:"noncurrentTimeBefore,omitempty"`
}

// Notification says which changes of a bucket's objects are told to whom.
type Notification struct {
	ID               string
	Topic            string   // as given
	EventTypes       []string // none = all
	ObjectNamePrefix string
	CustomAttributes map[string]string
	PayloadFormat    string // JSON_API_V1 or NONE
}
