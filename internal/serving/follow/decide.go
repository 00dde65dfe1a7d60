package follow

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Deployed is a deployed model of the endpoint.
type Deployed struct {
	ID, Model, Version string // Model is the full name
	Share              int32  // of the traffic, in percent
	Created            time.Time
}

// View is what is there now.
type View struct {
	Models []Deployed
	// Target is what the alias says now, of the model that Subject gave; Problem is why
	// nothing can be followed, "" = it can.
	Target  Target
	Problem string
	// Arriving says that the deployment State.New is on its way.
	Arriving bool
	// Back is why a judge took the share of State.New back, "" = none did.
	Back string
}

// Do is what is to be done.
type Do int

// The steps of a roll-over. Each leaves an endpoint that answers, with shares that add
// up to what they did.
const (
	Nothing  Do = iota // but to write Phase and Reason, where they are new
	End                // nobody follows any more: the state goes
	Settle             // Old serves what the alias says already
	Adopt              // New, which is deployed and has a share, takes over from Old at once
	Start              // the version is deployed, to replace Old
	Finish             // New takes over what Old still has, and Old goes
	GiveBack           // Old gets back what New has, and New goes; with a Reason it is not tried again
)

// Step is a decision.
type Step struct {
	Do       Do
	Old, New string // ids of deployed models
	Phase    Phase
	Reason   string
}

// Subject gives the model that is followed, by its full name, and the deployed model
// that is to be replaced when the alias moves; problem is why there is none.
func Subject(s State, w *Wish, models []Deployed) (model string, old Deployed, problem string) {
	if s.New != "" {
		return s.Target.Model, Deployed{}, ""
	}
	var some []Deployed
	names := map[string]bool{}
	for _, d := range models {
		if d.Share > 0 && w.is(d.Model) {
			some, names[path.Base(d.Model)] = append(some, d), true
		}
	}
	if len(some) == 0 {
		if w.Model != "" {
			return "", Deployed{}, fmt.Sprintf("no version of %s is deployed with a share of the traffic, whose place the version of the alias could take", w.Model)
		}
		return "", Deployed{}, "no model is deployed with a share of the traffic, whose place the version of the alias could take"
	}
	largest := some[0]
	for _, d := range some {
		if d.ID == s.Current {
			return d.Model, d, ""
		}
		if d.Share > largest.Share || d.Share == largest.Share && d.Created.After(largest.Created) {
			largest = d
		}
	}
	if len(names) > 1 {
		all := make([]string, 0, len(names))
		for name := range names {
			all = append(all, name)
		}
		slices.Sort(all)
		return "", Deployed{}, fmt.Sprintf("the endpoint has several models (%s): the label %s says which one is followed", strings.Join(all, ", "), LabelModel)
	}
	return largest.Model, largest, ""
}

// Decide gives the next step of an endpoint; w is nil when it follows nothing any more.
func Decide(s State, w *Wish, v View) Step {
	switch {
	case s.New != "":
		return underway(s, w, v)
	case w == nil:
		return Step{Do: End}
	case v.Problem != "":
		return Step{Phase: Waiting, Reason: v.Problem}
	case s.Reached == v.Target:
		return Step{Phase: InStep}
	case s.Failed != nil && s.Failed.Target == v.Target:
		return Step{Phase: Held}
	}
	_, old, _ := Subject(s, w, v.Models)
	if old.Version == v.Target.Version {
		return Step{Do: Settle, Old: old.ID, Phase: InStep}
	}
	// One that was deployed by hand, and is trusted with requests, is not deployed twice.
	for _, d := range v.Models {
		if d.Model == v.Target.Model && d.Version == v.Target.Version && d.Share > 0 {
			return Step{Do: Adopt, Old: old.ID, New: d.ID, Phase: InStep}
		}
	}
	return Step{Do: Start, Old: old.ID, Phase: Deploying}
}

// underway decides about a roll-over that has begun.
func underway(s State, w *Wish, v View) Step {
	arrived, old := find(v.Models, s.New), find(v.Models, s.Old)
	wanted := w != nil && v.Problem == "" && v.Target == s.Target && w.is(s.Target.Model)
	back := Step{Do: GiveBack, Old: s.Old, New: s.New}
	if arrived == nil {
		switch {
		case old == nil || !wanted:
			return back
		case v.Arriving:
			return Step{Phase: Deploying}
		}
		back.Reason = "its deployment was ended by hand"
		return back
	}
	switch {
	case arrived.Share > 0 && (old == nil || old.Share == 0):
		return Step{Do: Finish, Old: s.Old, New: s.New, Phase: InStep}
	case !wanted || old == nil:
		return back
	case arrived.Share == 0:
		if back.Reason = v.Back; back.Reason == "" {
			back.Reason = "its share was given back by hand"
		}
		return back
	case w.First == 0:
		return Step{Do: Finish, Old: s.Old, New: s.New, Phase: InStep}
	}
	return Step{Phase: Canary}
}

func find(models []Deployed, id string) *Deployed {
	for i := range models {
		if models[i].ID == id {
			return &models[i]
		}
	}
	return nil
}
