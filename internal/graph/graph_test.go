package graph_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tategu/internal/graph"
)

var style = graph.Style{MaxWidth: 700, GapX: 20, GapY: 40, Lane: 12, Head: 30, Pad: 12}

func node(id string, after ...string) graph.Node {
	return graph.Node{ID: id, Width: 100, Height: 40, After: after}
}

// rowsOf writes a picture as its rows, from left to right.
func rowsOf(p graph.Picture) string {
	rows := map[int]map[float64]string{}
	for _, n := range p.Nodes {
		if rows[n.Row] == nil {
			rows[n.Row] = map[float64]string{}
		}
		rows[n.Row][n.X] = n.ID
	}
	var out []string
	for i := range len(rows) {
		var row []string
		for _, x := range slices.Sorted(maps.Keys(rows[i])) {
			row = append(row, rows[i][x])
		}
		out = append(out, strings.Join(row, " "))
	}
	return strings.Join(out, " | ")
}

func TestArrange(t *testing.T) {
	t.Parallel()
	narrow := style
	narrow.MaxWidth = 220
	for _, tt := range []struct {
		name  string
		nodes []graph.Node
		style graph.Style
		want  string
		lines int
	}{
		{"one", []graph.Node{node("a")}, style, "a", 0},
		{"chain", []graph.Node{node("a"), node("b", "a"), node("c", "b")}, style, "a | b | c", 2},
		{"diamond", []graph.Node{node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c")}, style, "a | b c | d", 4},
		{"given in the wrong order", []graph.Node{node("c", "b"), node("b", "a"), node("a")}, style, "a | b | c", 2},
		{"said twice", []graph.Node{node("a"), node("b", "a", "a")}, style, "a | b", 1},
		{"no room in a row", []graph.Node{node("a"), node("b"), node("c"), node("d"), node("e")}, narrow, "a b | c d | e", 0},
		{"a lane is shared", []graph.Node{node("a"), node("b", "a"), node("c", "a"), node("d", "a"), node("e", "a")}, narrow, "a | b c | d e", 5},
		{"a wide node", []graph.Node{{ID: "a", Width: 900, Height: 40}, node("b")}, style, "a | b", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := graph.Arrange(tt.nodes, tt.style)
			if err != nil {
				t.Fatal(err)
			}
			if got := rowsOf(p); got != tt.want {
				t.Errorf("rows %q, want %q", got, tt.want)
			}
			if len(p.Lines) != tt.lines {
				t.Errorf("%d lines, want %d: %v", len(p.Lines), tt.lines, p.Lines)
			}
		})
	}
}

func TestArrangeRefuses(t *testing.T) {
	t.Parallel()
	for want, nodes := range map[string][]graph.Node{
		`2 nodes are on a cycle`:                                       {node("a", "b"), node("b", "a")},
		`"a" comes after "z", which is not there`:                      {node("a", "z")},
		`two nodes are called "a"`:                                     {node("a"), node("a")},
		`inside "g": "a" comes after "b", which is not there`:          {{ID: "g", Inside: []graph.Node{node("a", "b")}}},
		`1 nodes are on a cycle, or after one`:                         {node("a", "a")},
		`inside "g": inside "h": 1 nodes are on a cycle, or after one`: {{ID: "g", Inside: []graph.Node{{ID: "h", Inside: []graph.Node{node("a", "a")}}}}},
	} {
		if _, err := graph.Arrange(nodes, style); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// random makes a graph with groups; ids are unique in all of it.
func random(r *rand.Rand, prefix string, most, depth int) []graph.Node {
	nodes := make([]graph.Node, 1+r.IntN(most))
	for i := range nodes {
		n := graph.Node{ID: fmt.Sprintf("%s%d", prefix, i), Width: 60 + float64(r.IntN(100)), Height: 30 + float64(r.IntN(20))}
		for range r.IntN(4) {
			if i > 0 {
				n.After = append(n.After, fmt.Sprintf("%s%d", prefix, r.IntN(i)))
			}
		}
		if depth > 0 && r.IntN(6) == 0 {
			n.Inside = random(r, n.ID+"/", most/2+1, depth-1)
		}
		nodes[i] = n
	}
	r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

func flat(nodes []graph.Node, parent string, into map[string]graph.Node, parents map[string]string) {
	for _, n := range nodes {
		into[n.ID], parents[n.ID] = n, parent
		flat(n.Inside, n.ID, into, parents)
	}
}

const hair = 1e-6 // of sums of floats

func overlap(a, b graph.Placed) bool {
	return a.X+a.Width > b.X+hair && b.X+b.Width > a.X+hair && a.Y+a.Height > b.Y+hair && b.Y+b.Height > a.Y+hair
}

func within(a, b graph.Placed) bool {
	return a.X >= b.X-hair && a.Y >= b.Y-hair && a.X+a.Width <= b.X+b.Width+hair && a.Y+a.Height <= b.Y+b.Height+hair
}

// check finds what is wrong with a picture of the nodes.
func check(t *testing.T, nodes []graph.Node, p graph.Picture) {
	t.Helper()
	want, parents := map[string]graph.Node{}, map[string]string{}
	flat(nodes, "", want, parents)
	placed := map[string]graph.Placed{}
	whole := graph.Placed{Width: p.Width, Height: p.Height}
	for _, n := range p.Nodes {
		if _, twice := placed[n.ID]; twice || n.Parent != parents[n.ID] {
			t.Errorf("%s: placed twice %v, inside %q, want %q", n.ID, twice, n.Parent, parents[n.ID])
		}
		placed[n.ID] = n
		around := whole
		if n.Parent != "" {
			around = placed[n.Parent] // comes first
		}
		if !within(n, around) {
			t.Errorf("%+v sticks out of %+v", n, around)
		}
	}
	if len(placed) != len(want) {
		t.Errorf("%d of %d nodes are placed", len(placed), len(want))
	}
	for i, a := range p.Nodes {
		for _, b := range p.Nodes[i+1:] {
			if a.Parent == b.Parent && overlap(a, b) {
				t.Errorf("%+v and %+v overlap", a, b)
			}
		}
		for _, before := range want[a.ID].After {
			if b := placed[before]; b.Y+b.Height >= a.Y {
				t.Errorf("%s is not below %s", a.ID, before)
			}
		}
	}
	for _, l := range p.Lines {
		for i := range l.Points[1:] {
			if l.Points[i].Y > l.Points[i+1].Y+hair {
				t.Errorf("the line %v leads upwards", l)
			}
		}
	}
	checkLines(t, want, placed, p)
}

// checkLines follows the lines from each node: they reach what comes after it, and
// straight parts lead through no node.
func checkLines(t *testing.T, want map[string]graph.Node, placed map[string]graph.Placed, p graph.Picture) {
	t.Helper()
	starts := map[string][]graph.Line{}
	at := func(q graph.Point) string { return fmt.Sprintf("%.3f %.3f", q.X, q.Y) }
	for _, l := range p.Lines {
		starts[at(l.Points[0])] = append(starts[at(l.Points[0])], l)
		for _, n := range p.Nodes {
			for _, straight := range [][2]graph.Point{{l.Points[0], l.Points[1]}, {l.Points[2], l.Points[3]}} {
				line := graph.Placed{X: straight[0].X, Y: straight[0].Y, Height: straight[1].Y - straight[0].Y}
				if line.Height > hair && !n.Open && line.X > n.X+hair && line.X < n.X+n.Width-hair && line.Y+line.Height > n.Y+hair && n.Y+n.Height > line.Y+hair {
					t.Errorf("the line %v leads through %+v", l, n)
				}
			}
		}
	}
	for id, n := range want {
		for _, before := range n.After {
			from, to := placed[before], placed[id]
			todo, seen, found := []graph.Point{{X: from.X + from.Width/2, Y: from.Y + from.Height}}, map[string]bool{}, false
			for ; len(todo) > 0; todo = todo[1:] {
				for _, l := range starts[at(todo[0])] {
					end := l.Points[3]
					found = found || l.Arrow && at(end) == at(graph.Point{X: to.X + to.Width/2, Y: to.Y})
					if !l.Arrow && !seen[at(end)] {
						seen[at(end)] = true
						todo = append(todo, end)
					}
				}
			}
			if !found {
				t.Errorf("no line leads from %s to %s", before, id)
			}
		}
	}
}

// TestPictures: every picture is sound, and the same each time.
func TestPictures(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		nodes := random(rand.New(rand.NewPCG(seed, 1)), "", 40, 2)
		p, err := graph.Arrange(nodes, style)
		if err != nil {
			t.Fatal(err)
		}
		check(t, nodes, p)
		again, err := graph.Arrange(nodes, style)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("seed %d: the second picture differs (%v)", seed, err)
		}
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, nodes)
		}
	}
}

// TestMany: what a run may have at most is arranged, and wide graphs stay narrow.
// The lanes of their first and last node take some room.
func TestMany(t *testing.T) {
	t.Parallel()
	for _, n := range []int{300, 20_000} {
		nodes := []graph.Node{node("first")}
		all := make([]string, 0, n)
		for i := range n {
			id := fmt.Sprintf("n%d", i)
			nodes, all = append(nodes, node(id, "first")), append(all, id)
		}
		nodes = append(nodes, node("last", all...))
		start := time.Now()
		p, err := graph.Arrange(nodes, style)
		if err != nil || len(p.Nodes) != n+2 || p.Width > 1.1*style.MaxWidth {
			t.Errorf("%d nodes: %v, %d placed, %.0f wide", n, err, len(p.Nodes), p.Width)
		}
		t.Logf("%d nodes in %s", n+2, time.Since(start))
	}
}

func FuzzArrange(f *testing.F) {
	f.Add(uint64(1), uint8(20), uint16(300))
	f.Fuzz(func(t *testing.T, seed uint64, most uint8, width uint16) {
		nodes := random(rand.New(rand.NewPCG(seed, 2)), "", 1+int(most)%60, 2)
		s := style
		s.MaxWidth = float64(width)
		p, err := graph.Arrange(nodes, s)
		if err != nil {
			t.Fatal(err)
		}
		check(t, nodes, p)
	})
}
