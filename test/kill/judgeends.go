package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// exit judges that the exit task ran, once, and was told how the rest ended.
func (v *verdict) exit() {
	if v.shape.wanted[nameFinish] == 0 || v.cancelled {
		return
	}
	var rest, finish []*flowTask
	for _, t := range v.detail.JobDetail.TaskDetails {
		switch t.TaskUniqueName {
		case "exit-handler-1":
			rest = append(rest, t)
		case nameFinish:
			finish = append(finish, t)
		}
	}
	if len(rest) != 1 || len(finish) != 1 {
		v.wrong("it has %d exit handlers and %d exit tasks, want one each", len(rest), len(finish))
		return
	}
	if finish[0].State == taskFailed {
		return // its attempts were judged
	}
	var told struct{ State, Message string }
	if err := json.Unmarshal([]byte(finish[0].said()), &told); err != nil || told.State != rest[0].State {
		v.wrong("the exit task was told %q and the rest is %s", finish[0].said(), rest[0].State)
	}
	if (told.Message != "") != (rest[0].State == taskFailed) {
		v.wrong("the exit task was told the error %q and the rest is %s", told.Message, rest[0].State)
	}
	if finish[0].StartTime.Before(rest[0].EndTime) {
		v.wrong("the exit task started at %v, before the rest ended at %v", finish[0].StartTime, rest[0].EndTime)
	}
}

// gathered judges that each iteration is handed on once, in the order of the items.
func (v *verdict) gathered() {
	for _, t := range v.detail.JobDetail.TaskDetails {
		if t.TaskName != "gather" || t.State != taskSucceeded {
			continue
		}
		var out struct {
			Tokens [][]string
			Made   []string
		}
		if err := json.Unmarshal([]byte(t.said()), &out); err != nil {
			v.wrong("task %s: its output %q: %v", t.TaskUniqueName, t.said(), err)
			continue
		}
		tokens, made := make([][]string, 3), []string{}
		for at, i := range []string{"2", "0", "1"} {
			for _, j := range []string{"20", "10"} {
				for _, token := range v.items(i + "/" + j + "/") {
					tokens[at] = append(tokens[at], token)
					made = append(made, token[strings.LastIndexByte(token, '/')+1:])
				}
			}
		}
		if fmt.Sprint(out.Tokens) != fmt.Sprint(tokens) || !slices.Equal(out.Made, made) || len(made) != v.shape.wanted["item"] {
			v.wrong("task %s: it was given %v and %v, want %v and %v", t.TaskUniqueName, out.Tokens, out.Made, tokens, made)
		}
	}
}

// items gives what the iterations of these items said.
func (v *verdict) items(prefix string) []string {
	var out []string
	for _, t := range v.detail.JobDetail.TaskDetails {
		if t.TaskName == "item" && strings.HasPrefix(t.said(), prefix) {
			out = append(out, t.said())
		}
	}
	return out
}
