package shadow

import (
	"slices"
	"strings"
	"time"

	"tategu/internal/serving/rollout"
)

// Report counts what was compared.
type Report struct {
	Model     string    `json:"model"` // deployment key of the model that got the copies
	Since     time.Time `json:"since"`
	Requests  int       `json:"requests"`  // whose answers were compared
	Equal     int       `json:"equal"`     // the same, up to the tolerance of numbers
	Different int       `json:"different"` // not
	Failed    int       `json:"failed"`    // not answered by the shadow, or with another status
	Dropped   int       `json:"dropped"`   // copies that were not sent: there was no room
	Reason    string    `json:"reason,omitempty"`
	Fields    []Field   `json:"fields"` // that differ, most first

	Ours   rollout.Times `json:"ours"`
	Theirs rollout.Times `json:"theirs"`
}

// Field is a place in which answers differ, with the first example.
type Field struct {
	Path   string `json:"path"`
	Count  int    `json:"count"` // of requests
	Ours   string `json:"ours"`
	Theirs string `json:"theirs"`
}

// fields are kept at most; answers can have any keys.
const fields = 50

// Compared takes one pair of answers in.
func (r *Report) Compared(ours, theirs []byte, tookOurs, tookTheirs time.Duration) {
	found := Compare(ours, theirs)
	r.Requests++
	r.Ours.Add(tookOurs)
	r.Theirs.Add(tookTheirs)
	if len(found) == 0 {
		r.Equal++
		return
	}
	r.Different++
	seen := map[string]bool{}
	for _, d := range found {
		if !seen[d.Path] {
			seen[d.Path] = true
			r.field(d)
		}
	}
	slices.SortStableFunc(r.Fields, func(a, b Field) int { return b.Count - a.Count })
}

func (r *Report) field(d Difference) {
	i := slices.IndexFunc(r.Fields, func(f Field) bool { return f.Path == d.Path })
	if i >= 0 {
		r.Fields[i].Count++
	} else if len(r.Fields) < fields {
		r.Fields = append(r.Fields, Field{Path: strings.ToValidUTF8(d.Path, "?"), Count: 1, Ours: d.Ours, Theirs: d.Theirs})
	}
}

// Missed counts a copy without an answer to compare.
func (r *Report) Missed(reason string) {
	r.Failed++
	r.Reason = short(strings.ToValidUTF8(reason, "?"))
}
