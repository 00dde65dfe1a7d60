package console

import (
	"net/url"
	"slices"
	"strconv"

	"tategu/internal/resource"
)

// look is what a person looks at on the page of a run; it is the page's query, so
// that it has an address, and links work without scripts.
type look struct {
	task    string   // path of the task that is selected
	step    string   // path of the step that is selected
	attempt int      // of the task, from 1; 0 = the last
	open    []string // steps that are drawn with what is in them, sorted
	state   string   // tasks of the list in this state
	find    string   // and with this in their path
	page    int      // of the list, from 1
	round   int      // page of the instances of the step, from 1
	width   int      // of the picture, in pixels
}

// Widths of pictures: few, so that they can be kept.
const (
	usualWidth = 760
	leastWidth = 320
	mostWidth  = 1900
	mostPage   = 1_000_000
)

func lookOf(q url.Values) (look, error) {
	l := look{task: q.Get("task"), step: q.Get("step"), open: slices.Compact(slices.Sorted(slices.Values(q["open"]))), state: q.Get("state"), find: q.Get("find"), page: 1, round: 1, width: usualWidth}
	for name, into := range map[string]*int{"page": &l.page, "round": &l.round, "attempt": &l.attempt, "width": &l.width} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostPage {
			return l, resource.Invalid(name, "%s=%.40q is not a number from 1 on", name, text)
		}
		*into = n
	}
	if l.state != "" && phaseNamed(l.state) == none {
		return l, resource.Invalid("state", "%.40q is not a state of tasks", l.state)
	}
	l.width = min(max(l.width/20*20, leastWidth), mostWidth)
	return l, nil
}

// link is the address of this look.
func (l look) link() string {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("task", l.task)
	set("step", l.step)
	set("state", l.state)
	set("find", l.find)
	for name, n := range map[string]int{"attempt": l.attempt, "page": l.page, "round": l.round, "width": l.width} {
		usual := map[string]int{"page": 1, "round": 1, "width": usualWidth}[name]
		if n != usual {
			q.Set(name, strconv.Itoa(n))
		}
	}
	if len(l.open) > 0 {
		q["open"] = l.open
	}
	return "?" + q.Encode()
}

// at selects a step, and of it a task.
func (l look) at(step, task string) look {
	l.step, l.task, l.attempt, l.round = step, task, 0, 1
	return l
}

// toggle opens or closes a step of the picture; what is in it is closed too.
func (l look) toggle(path string) look {
	was := slices.Contains(l.open, path)
	l.open = slices.Clone(l.open)
	if was {
		l.open = slices.DeleteFunc(l.open, func(o string) bool { return o == path || len(o) > len(path) && o[:len(path)+1] == path+"/" })
		return l
	}
	l.open = slices.Sorted(slices.Values(append(l.open, path)))
	return l
}
