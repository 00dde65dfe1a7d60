package follow_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tategu/internal/serving/follow"
)

const ranker = "projects/p/locations/l/models/ranker"

func TestFromLabels(t *testing.T) {
	t.Parallel()
	if w, err := follow.FromLabels(map[string]string{"team": "x", "tategu-canary": "newest"}); w != nil || err != nil {
		t.Fatal(w, err)
	}
	w, err := follow.FromLabels(map[string]string{follow.Label: "champion", follow.LabelModel: "ranker"})
	if err != nil || *w != (follow.Wish{Alias: "champion", Model: "ranker"}) {
		t.Fatalf("%+v, %v", w, err)
	}
	for _, bad := range []map[string]string{
		{follow.Label: "3"},
		{follow.Label: ""},
		{follow.Label: "Champion"},
		{follow.Label: "ranker@champion"},
		{follow.LabelModel: "ranker"},
		{follow.Label: "champion", follow.LabelModel: "models/ranker"},
		{follow.Label: "champion", follow.LabelModel: ""},
		{follow.Label: "champion", follow.Label + "-fast": "1"},
	} {
		if w, err := follow.FromLabels(bad); err == nil {
			t.Errorf("%v is %+v", bad, w)
		} else if !strings.Contains(err.Error(), follow.Label) {
			t.Errorf("%v: %v does not name the label", bad, err)
		}
	}
}

// FuzzLabels: labels are refused, or make a wish that is read again from its own labels.
func FuzzLabels(f *testing.F) {
	f.Add("champion", "ranker")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, alias, model string) {
		labels := map[string]string{follow.Label: alias}
		if model != "" {
			labels[follow.LabelModel] = model
		}
		w, err := follow.FromLabels(labels)
		if err != nil {
			return
		}
		if w == nil || w.Alias != alias || w.Model != model {
			t.Fatalf("%q is %+v", labels, w)
		}
	})
}

func at(version string, move int64) follow.Target {
	return follow.Target{Model: ranker, Version: version, Move: move}
}

func deployed(id, version string, share int32) follow.Deployed {
	return follow.Deployed{ID: id, Model: ranker, Version: version, Share: share}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	champion := &follow.Wish{Alias: "champion"}
	tried := &follow.Wish{Alias: "champion", First: 5}
	one := []follow.Deployed{deployed("a", "1", 100)}
	rolling := follow.State{Reached: at("1", 1), Current: "a", Old: "a", New: "b", Target: at("2", 2)}
	for name, tt := range map[string]struct {
		state follow.State
		wish  *follow.Wish
		view  follow.View
		want  follow.Step
	}{
		"asked, and served already":   {follow.State{}, champion, follow.View{Models: one, Target: at("1", 1)}, follow.Step{Do: follow.Settle, Old: "a", Phase: follow.InStep}},
		"asked, and another is there": {follow.State{}, champion, follow.View{Models: one, Target: at("2", 1)}, follow.Step{Do: follow.Start, Old: "a", Phase: follow.Deploying}},
		"in step":                     {follow.State{Reached: at("1", 1)}, champion, follow.View{Models: one, Target: at("1", 1)}, follow.Step{Phase: follow.InStep}},
		"moved away and back":         {follow.State{Reached: at("1", 1)}, champion, follow.View{Models: one, Target: at("1", 7)}, follow.Step{Do: follow.Settle, Old: "a", Phase: follow.InStep}},
		"a deployment by hand stands": {follow.State{Reached: at("1", 1), Current: "a"}, champion, follow.View{Models: []follow.Deployed{deployed("a", "1", 0), deployed("x", "9", 100)}, Target: at("1", 1)}, follow.Step{Phase: follow.InStep}},
		"until the alias moves":       {follow.State{Reached: at("1", 1), Current: "a"}, champion, follow.View{Models: []follow.Deployed{deployed("a", "1", 0), deployed("x", "9", 100)}, Target: at("2", 2)}, follow.Step{Do: follow.Start, Old: "x", Phase: follow.Deploying}},
		"a canary by hand takes over": {follow.State{Reached: at("1", 1), Current: "a"}, champion, follow.View{Models: []follow.Deployed{deployed("a", "1", 5), deployed("x", "2", 95)}, Target: at("2", 2)}, follow.Step{Do: follow.Adopt, Old: "a", New: "x", Phase: follow.InStep}},
		"a shadow does not":           {follow.State{Reached: at("1", 1)}, champion, follow.View{Models: []follow.Deployed{deployed("a", "1", 100), deployed("x", "2", 0)}, Target: at("2", 2)}, follow.Step{Do: follow.Start, Old: "a", Phase: follow.Deploying}},
		"failed":                      {follow.State{Reached: at("1", 1), Failed: &follow.Failure{Target: at("2", 2)}}, champion, follow.View{Models: one, Target: at("2", 2)}, follow.Step{Phase: follow.Held}},
		"failed, and moved again":     {follow.State{Reached: at("1", 1), Failed: &follow.Failure{Target: at("2", 2)}}, champion, follow.View{Models: one, Target: at("2", 5)}, follow.Step{Do: follow.Start, Old: "a", Phase: follow.Deploying}},
		"nothing is deployed":         {follow.State{}, champion, follow.View{Problem: "none"}, follow.Step{Phase: follow.Waiting, Reason: "none"}},
		"nobody follows":              {follow.State{Reached: at("1", 1)}, nil, follow.View{Models: one}, follow.Step{Do: follow.End}},
		"arriving":                    {rolling, champion, follow.View{Models: one, Target: at("2", 2), Arriving: true}, follow.Step{Phase: follow.Deploying}},
		"arriving, and moved":         {rolling, champion, follow.View{Models: one, Target: at("3", 3), Arriving: true}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b"}},
		"arriving, and moved to it":   {rolling, champion, follow.View{Models: one, Target: at("2", 3), Arriving: true}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b"}},
		"arriving, and unfollowed":    {rolling, nil, follow.View{Models: one, Arriving: true}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b"}},
		"arriving, and another model": {rolling, &follow.Wish{Alias: "champion", Model: "other"}, follow.View{Models: one, Target: at("2", 2), Arriving: true}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b"}},
		"arriving for nobody":         {rolling, champion, follow.View{Target: at("2", 2), Arriving: true}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b"}},
		"stopped by hand":             {rolling, champion, follow.View{Models: one, Target: at("2", 2)}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b", Reason: "its deployment was ended by hand"}},
		"arrived":                     {rolling, champion, follow.View{Models: []follow.Deployed{deployed("a", "1", 0), deployed("b", "2", 100)}, Target: at("2", 2)}, follow.Step{Do: follow.Finish, Old: "a", New: "b", Phase: follow.InStep}},
		"on trial":                    {rolling, tried, follow.View{Models: []follow.Deployed{deployed("a", "1", 95), deployed("b", "2", 5)}, Target: at("2", 2)}, follow.Step{Phase: follow.Canary}},
		"on trial without a rule":     {rolling, champion, follow.View{Models: []follow.Deployed{deployed("a", "1", 95), deployed("b", "2", 5)}, Target: at("2", 2)}, follow.Step{Do: follow.Finish, Old: "a", New: "b", Phase: follow.InStep}},
		"on trial, and moved":         {rolling, tried, follow.View{Models: []follow.Deployed{deployed("a", "1", 95), deployed("b", "2", 5)}, Target: at("3", 3)}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b"}},
		"on trial, and no alias":      {rolling, tried, follow.View{Models: []follow.Deployed{deployed("a", "1", 95), deployed("b", "2", 5)}, Problem: "gone"}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b"}},
		"taken back":                  {rolling, tried, follow.View{Models: []follow.Deployed{deployed("a", "1", 100), deployed("b", "2", 0)}, Target: at("2", 2), Back: "worse"}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b", Reason: "worse"}},
		"taken back by hand":          {rolling, tried, follow.View{Models: []follow.Deployed{deployed("a", "1", 100), deployed("b", "2", 0)}, Target: at("2", 2)}, follow.Step{Do: follow.GiveBack, Old: "a", New: "b", Reason: "its share was given back by hand"}},
		"the old one was undeployed":  {rolling, tried, follow.View{Models: []follow.Deployed{deployed("b", "2", 100)}, Target: at("2", 2)}, follow.Step{Do: follow.Finish, Old: "a", New: "b", Phase: follow.InStep}},
	} {
		if got := follow.Decide(tt.state, tt.wish, tt.view); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	const other = "projects/p/locations/l/models/other"
	now := time.Unix(1000, 0)
	some := []follow.Deployed{
		{ID: "a", Model: ranker, Version: "1", Share: 40, Created: now},
		{ID: "b", Model: ranker, Version: "2", Share: 40, Created: now.Add(time.Second)},
		{ID: "c", Model: other, Version: "1", Share: 20},
		{ID: "d", Model: ranker, Version: "3"},
	}
	for name, tt := range map[string]struct {
		state   follow.State
		wish    follow.Wish
		models  []follow.Deployed
		id      string
		problem string
	}{
		"by the label":          {wish: follow.Wish{Model: "other"}, models: some, id: "c"},
		"the youngest of equal": {wish: follow.Wish{Model: "ranker"}, models: some, id: "b"},
		"the one that follows":  {state: follow.State{Current: "a"}, models: some, id: "a"},
		"several models":        {models: some, problem: "several models (other, ranker)"},
		"none with a share":     {models: some[3:], problem: "no model is deployed with a share"},
		"none of the model":     {wish: follow.Wish{Model: "third"}, models: some, problem: "no version of third"},
	} {
		_, d, problem := follow.Subject(tt.state, &tt.wish, tt.models)
		if d.ID != tt.id || (problem == "") != (tt.problem == "") || !strings.Contains(problem, tt.problem) {
			t.Errorf("%s: %q, %q", name, d.ID, problem)
		}
	}
}

// place is an endpoint in memory, to which steps are done as package serving does them.
type place struct {
	t      *testing.T
	state  follow.State
	wish   *follow.Wish
	models []follow.Deployed
	alias  follow.Target
	coming *follow.Deployed
	next   int
}

func (p *place) find(id string) *follow.Deployed {
	for i := range p.models {
		if p.models[i].ID == id {
			return &p.models[i]
		}
	}
	return nil
}

func (p *place) remove(id string) {
	p.models = slices.DeleteFunc(p.models, func(d follow.Deployed) bool { return d.ID == id })
	if p.coming != nil && p.coming.ID == id {
		p.coming = nil
	}
}

func (p *place) move(from, to string) {
	f, t := p.find(from), p.find(to)
	if f != nil && t != nil {
		f.Share, t.Share = 0, f.Share+t.Share
	}
}

// settle takes all steps that are due, and says how it ends.
func (p *place) settle() follow.Phase {
	for range 10 {
		v := follow.View{Models: p.models, Target: p.alias, Arriving: p.coming != nil}
		if p.wish != nil {
			if _, _, v.Problem = follow.Subject(p.state, p.wish, p.models); v.Problem == "" && p.alias.Version == "" {
				v.Problem = "no alias"
			}
		}
		s := follow.Decide(p.state, p.wish, v)
		switch s.Do {
		case follow.Nothing:
			return s.Phase
		case follow.End:
			p.state = follow.State{}
			return ""
		case follow.Settle:
			p.state.Reached, p.state.Current, p.state.Failed = v.Target, s.Old, nil
		case follow.Adopt:
			p.move(s.Old, s.New)
			p.remove(s.Old)
			p.state.Reached, p.state.Current = v.Target, s.New
		case follow.Start:
			if p.coming != nil || p.find(s.Old) == nil {
				p.t.Fatalf("started beside %+v for %q", p.coming, s.Old)
			}
			p.next++
			id := fmt.Sprint("n", p.next)
			p.coming = &follow.Deployed{ID: id, Model: ranker, Version: v.Target.Version}
			p.state.Old, p.state.New, p.state.Target, p.state.Current, p.state.Failed = s.Old, id, v.Target, s.Old, nil
		case follow.Finish:
			p.move(s.Old, s.New)
			p.remove(s.Old)
			p.state.Reached, p.state.Current, p.state.Old, p.state.New, p.state.Failed = p.state.Target, s.New, "", "", nil
		case follow.GiveBack:
			p.move(s.New, s.Old)
			p.remove(s.New)
			if s.Reason != "" {
				p.state.Failed = &follow.Failure{Target: p.state.Target, Reason: s.Reason}
			}
			p.state.Old, p.state.New = "", ""
		}
	}
	p.t.Fatal("it does not come to rest")
	return ""
}

// happen is one thing that may befall an endpoint.
func (p *place) happen(rng *rand.Rand, i int) string {
	switch rng.IntN(8) {
	case 0, 1:
		p.alias = at(strconv.Itoa(1+rng.IntN(4)), int64(i))
		return "alias to " + p.alias.Version
	case 2:
		if p.coming == nil {
			return ""
		}
		d, old := *p.coming, p.find(p.state.Old)
		p.coming = nil
		if old != nil && old.Share > 0 {
			d.Share = old.Share
			if p.wish != nil && p.wish.First > 0 {
				d.Share = (old.Share*p.wish.First + 99) / 100
			}
			old.Share -= d.Share
		}
		p.models = append(p.models, d)
		return "arrived"
	case 3:
		p.coming = nil
		return "stopped"
	case 4:
		p.move(p.state.New, p.state.Old)
		return "taken back"
	case 5:
		p.move(p.state.Old, p.state.New)
		return "promoted"
	case 6:
		p.wish = []*follow.Wish{nil, {Alias: "champion"}, {Alias: "champion", First: 5}}[rng.IntN(3)]
		return fmt.Sprint("wish ", p.wish)
	}
	if len(p.models) == 0 || rng.IntN(3) > 0 {
		return ""
	}
	p.models = slices.Delete(p.models, 0, 1)
	if len(p.models) > 0 { // who undeploys says who gets the share
		p.models[0].Share = 100
		for i := range p.models[1:] {
			p.models[1+i].Share = 0
		}
		return "undeployed"
	}
	p.models = []follow.Deployed{deployed(fmt.Sprint("hand", i), "1", 100)}
	return "deployed anew"
}

// TestAnything: whatever happens, an endpoint has all of its traffic, one version at most
// comes, nothing is left behind by a roll-over, and what is left alone gets in step.
func TestAnything(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		p := &place{t: t, wish: &follow.Wish{Alias: "champion"}, models: []follow.Deployed{deployed("a", "1", 90), {ID: "b", Model: ranker[:len(ranker)-6] + "other", Version: "7", Share: 10}}, alias: at("1", -1)}
		p.wish.Model = "ranker"
		var story []string
		for i := range 60 {
			what := p.happen(rng, i)
			if p.wish != nil {
				p.wish = &follow.Wish{Alias: p.wish.Alias, First: p.wish.First, Model: "ranker"}
			}
			phase := p.settle()
			story = append(story, fmt.Sprint(what, " ", phase))
			sum := int32(0)
			for _, d := range p.models {
				sum += d.Share
			}
			if sum != 100 || p.coming != nil && p.coming.ID != p.state.New {
				t.Fatalf("seed %d: %+v, coming %+v after %q", seed, p.models, p.coming, story)
			}
		}
		p.rest(story)
	}
}

// rest leaves the endpoint alone once its alias has moved for the last time.
func (p *place) rest(story []string) {
	p.t.Helper()
	p.wish, p.alias = &follow.Wish{Alias: "champion", Model: "ranker"}, at("9", 1000)
	phase := p.settle()
	if p.coming != nil {
		d := *p.coming
		p.coming, p.models = nil, append(p.models, d)
		p.move(p.state.Old, d.ID)
		phase = p.settle()
	}
	d := p.find(p.state.Current)
	served := phase == follow.InStep && d != nil && d.Version == "9" && d.Share > 0
	nothing := phase == follow.Waiting && !slices.ContainsFunc(p.models, func(d follow.Deployed) bool { return d.Model == ranker && d.Share > 0 })
	if !served && !nothing {
		p.t.Fatalf("it ends %s with %+v, %+v after %q", phase, p.models, p.state, story)
	}
}
