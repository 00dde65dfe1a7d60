package follow

import (
	"fmt"
	"path"
	"time"

	"tategu/internal/identity"
)

// Phase is what an endpoint that follows does.
type Phase string

// The phases.
const (
	Waiting   Phase = "WAITING"   // there is nothing that could be replaced, or no such alias
	InStep    Phase = "IN_STEP"   // it serves what the alias says
	Deploying Phase = "DEPLOYING" // the version of the alias starts
	Canary    Phase = "CANARY"    // it has a share of the traffic
	Held      Phase = "HELD"      // it was not good enough: the one before stays
)

// Target is a version that an alias said, once.
type Target struct {
	Model   string `json:"model"` // full name
	Version string `json:"version"`
	// Move tells two moves of the alias to the same version apart.
	Move int64 `json:"move"`
}

// Failure is a version that did not take over.
type Failure struct {
	Target Target    `json:"target"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Asker is who asked for following, with the rights of that moment.
type Asker struct {
	Email    string                   `json:"email"`
	Operator bool                     `json:"operator,omitempty"`
	Vouched  bool                     `json:"vouched,omitempty"`
	Grants   map[string]identity.Role `json:"grants,omitempty"`
}

// NewAsker keeps of a caller what decides about rights.
func NewAsker(p identity.Principal) Asker {
	return Asker{Email: p.Email, Operator: p.Operator, Vouched: p.Vouched, Grants: p.Grants}
}

// Principal is the caller that asked.
func (a Asker) Principal() identity.Principal {
	return identity.Principal{Email: a.Email, Operator: a.Operator, Vouched: a.Vouched, Grants: a.Grants}
}

// State is what is kept of an endpoint that follows: a row, as JSON.
type State struct {
	Asker Asker     `json:"asker"`
	Asked time.Time `json:"asked"`

	Alias  string    `json:"alias"`
	Phase  Phase     `json:"phase,omitempty"`
	Reason string    `json:"reason,omitempty"` // of Waiting
	Since  time.Time `json:"since,omitzero"`   // of the phase

	Reached Target   `json:"reached,omitzero"` // what was brought about last
	Current string   `json:"current,omitempty"`
	Failed  *Failure `json:"failed,omitempty"` // what is not tried again

	// Of a roll-over: the deployed models that go and come, and the version.
	Old    string `json:"old,omitempty"`
	New    string `json:"new,omitempty"`
	Target Target `json:"target,omitzero"`
}

// Behind reports that the endpoint does not serve what the alias says.
func (s State) Behind() bool { return s.Phase != InStep || s.Current == "" }

// About reports whether a deployed model is one that String is to be told of.
func (s State) About(id string) bool {
	subject := s.Current
	if s.Old != "" {
		subject = s.Old
	}
	return subject == "" || subject == id
}

// String is the sentence in the status of the deployed model that follows.
func (s State) String() string {
	since := s.Since.UTC().Format(time.RFC3339)
	follows := "Follows the alias " + s.Alias
	switch s.Phase {
	case InStep:
		if s.Current == "" {
			return fmt.Sprintf("%s of %s: version %s, but what was deployed by hand stands until it moves.", follows, path.Base(s.Reached.Model), s.Reached.Version)
		}
		return fmt.Sprintf("%s of %s: version %s, since %s.", follows, path.Base(s.Reached.Model), s.Reached.Version, since)
	case Deploying:
		return fmt.Sprintf("%s of %s: version %s is being deployed as %s since %s, and replaces %s.", follows, path.Base(s.Target.Model), s.Target.Version, s.New, since, s.Old)
	case Canary:
		return fmt.Sprintf("%s of %s: version %s is on trial as %s since %s, and replaces %s step by step.", follows, path.Base(s.Target.Model), s.Target.Version, s.New, since, s.Old)
	case Held:
		return fmt.Sprintf("%s of %s, but version %s did not take over at %s: %s. It is tried again when the alias moves, or when following is asked for again.",
			follows, path.Base(s.Failed.Target.Model), s.Failed.Target.Version, s.Failed.At.UTC().Format(time.RFC3339), s.Failed.Reason)
	case Waiting:
	}
	return fmt.Sprintf("%s, and waits since %s: %s.", follows, since, s.Reason)
}
