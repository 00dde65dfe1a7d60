package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

const (
	mostDiff  = 30       // lines of a difference that are shown
	mostCells = 16 << 20 // of the table of a diff; beyond it the middle counts as changed
)

func jsonText(v *structpb.Value) string {
	text, err := v.MarshalJSON()
	if err != nil {
		return v.String()
	}
	return string(text)
}

// differences tells in lines what became of one side.
func differences(before, after side) []string {
	out := changed("input ", before.inputs, after.inputs)
	if a, b := before.program.Image, after.program.Image; a != b {
		out = append(out, fmt.Sprintf("image: %s -> %s", a, b))
	}
	if lines := lineDiff(before.program.Packages, after.program.Packages, 0); len(lines) > 0 {
		out = append(append(out, "packages:"), lines...)
	}
	out = append(out, changed("variable ", before.program.Env, after.program.Env)...)
	if lines := lineDiff(before.program.Command, after.program.Command, 0); len(lines) > 0 {
		out = append(append(out, "command and arguments:"), lines...)
	}
	if lines := lineDiff(splitLines(before.program.Source), splitLines(after.program.Source), 1); len(lines) > 0 {
		out = append(append(out, "source:"), lines...)
	}
	return out
}

func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func changed(what string, before, after map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(union(before, after))) {
		a, had := before[k]
		b, has := after[k]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("%s%s: is new: %s", what, k, clipLine(b, 120)))
		case !has:
			out = append(out, fmt.Sprintf("%s%s: is gone, was %s", what, k, clipLine(a, 120)))
		case a != b:
			out = append(out, fmt.Sprintf("%s%s: %s -> %s", what, k, clipLine(a, 120), clipLine(b, 120)))
		}
	}
	return out
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	return all
}

// lineDiff gives the lines that went (-) and came (+), each with some around it.
func lineDiff(a, b []string, around int) []string {
	if slices.Equal(a, b) {
		return nil
	}
	lines := edits(a, b)
	near := make([]bool, len(lines))
	for i, line := range lines {
		if line[0] != ' ' {
			for j := max(0, i-around); j < min(len(lines), i+around+1); j++ {
				near[j] = true
			}
		}
	}
	var out []string
	for i, line := range lines {
		switch {
		case near[i] && len(out) < mostDiff:
			out = append(out, "  "+clipLine(line, 160))
		case near[i]:
			return append(out, "  ...")
		case i > 0 && near[i-1] && slices.Contains(near[i:], true):
			out = append(out, "  ...")
		}
	}
	return out
}

// edits gives all lines, marked, by a longest common subsequence.
func edits(a, b []string) []string {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out []string
	mark := func(m string, lines ...string) {
		for _, line := range lines {
			out = append(out, m+line)
		}
	}
	mark("  ", a[:head]...)
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	if (len(x)+1)*(len(y)+1) > mostCells {
		mark("- ", x...)
		mark("+ ", y...)
		x, y = nil, nil
	}
	long := make([][]int32, len(x)+1) // [i][j]: of x[i:] and y[j:]
	for i := range long {
		long[i] = make([]int32, len(y)+1)
	}
	for i, p := range slices.Backward(x) {
		for j, q := range slices.Backward(y) {
			if p == q {
				long[i][j] = long[i+1][j+1] + 1
			} else {
				long[i][j] = max(long[i+1][j], long[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			mark("  ", x[i])
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && long[i+1][j] >= long[i][j+1]:
			mark("- ", x[i])
			i++
		default:
			mark("+ ", y[j])
			j++
		}
	}
	mark("  ", a[len(a)-tail:]...)
	return out
}
