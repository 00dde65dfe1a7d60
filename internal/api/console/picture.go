package console

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"tategu/internal/graph"
	"tategu/internal/pipeline"
)

// pictureView is the graph of a run as the page draws it.
type pictureView struct {
	Width, Height int
	Nodes         []nodeView
	Lines         []lineView
	Note          string // why there is no picture
}

type nodeView struct {
	X, Y, W, H           float64
	Step, Name, Title    string
	Phase, Label, Text   string
	Kind, Href           string
	Toggle, ToggleLabel  string // opens and closes what is made of tasks
	Open, Loop, Selected bool
}

type lineView struct {
	Path  string
	Arrow bool
}

// Sizes of the picture in pixels.
const (
	nodeWidth, nodeHeight = 196, 50
	mostDrawn             = 1000 // steps; the list has the others
	manyDrawn             = 80
	nameRunes, nodeToggle = 21, 4
	margin                = 6  // for borders, and the cards behind a loop
	mostPictures          = 32 // of one run, kept
)

func styleOf(width float64) graph.Style {
	return graph.Style{MaxWidth: width, GapX: 20, GapY: 34, Lane: 14, Head: 50, Pad: 14}
}

// picture arranges the steps of a run, or takes the arrangement that is known: it
// depends on the pipeline and on what is open, and not on how the run goes.
func (f *feed) picture(l look) (graph.Picture, error) {
	key := fmt.Sprint(l.width, l.open)
	if p, ok := f.pictures[key]; ok {
		return p, nil
	}
	left := mostDrawn
	nodes := f.nodes("", l.open, &left)
	if left < 0 {
		return graph.Picture{}, fmt.Errorf("this pipeline has more than %s steps beside each other, too many for a picture: the list of tasks has them all", amount(mostDrawn))
	}
	width := float64(l.width)
	if n := mostDrawn - left; n > manyDrawn { // as wide as high: short rows would pull what belongs together apart
		width = max(width, math.Sqrt(float64(n)*(nodeWidth+20)*(nodeHeight+34)))
	}
	p, err := graph.Arrange(nodes, styleOf(width))
	if err != nil {
		return p, err
	}
	if len(f.pictures) >= mostPictures {
		clear(f.pictures)
	}
	f.pictures[key] = p
	return p, nil
}

// nodes gives the steps in a graph, with what is in those that are open.
func (f *feed) nodes(at string, open []string, left *int) []graph.Node {
	steps := f.plan.Steps(at)
	if *left -= len(steps); *left < 0 {
		return nil
	}
	out := make([]graph.Node, 0, len(steps))
	for _, s := range steps {
		n := graph.Node{ID: s.Path, Width: nodeWidth, Height: nodeHeight, After: s.After}
		if slices.Contains(open, s.Path) {
			n.Inside = f.nodes(s.Path, open, left)
		}
		out = append(out, n)
	}
	return out
}

// draw gives the picture of a run with how its steps are.
func (f *feed) draw(l look, selected string) pictureView {
	if f.plan == nil {
		return pictureView{Note: "this pipeline cannot be drawn: " + firstLine(f.planErr.Error())}
	}
	p, err := f.picture(l)
	if err != nil {
		return pictureView{Note: err.Error()}
	}
	v := pictureView{Width: int(p.Width) + 2*margin, Height: int(p.Height) + 2*margin}
	kinds := map[string]string{}
	groups := map[string]bool{}
	for _, n := range p.Nodes {
		if _, known := kinds[n.ID]; known {
			continue
		}
		for _, s := range f.plan.Steps(above(n.ID)) {
			kinds[s.Path] = s.Kind
			groups[s.Path] = s.Kind == pipeline.KindGraph || s.Kind == pipeline.KindLoop && len(f.plan.Steps(s.Path)) > 0
		}
	}
	for _, n := range p.Nodes {
		sum := summary{Phase: none}
		if s := f.steps[n.ID]; s != nil {
			sum = s.sum
		}
		name := n.ID[strings.LastIndexByte(n.ID, '/')+1:]
		c := sum.change()
		node := nodeView{
			X: n.X, Y: n.Y, W: n.Width, H: n.Height, Step: n.ID, Name: name, Title: name, Phase: c.Phase, Label: c.Label, Text: c.Text,
			Kind: kinds[n.ID], Href: l.at(n.ID, "").link(), Open: n.Open, Loop: kinds[n.ID] == pipeline.KindLoop, Selected: n.ID == selected,
		}
		most := nameRunes
		if groups[n.ID] {
			most -= nodeToggle
			node.Toggle, node.ToggleLabel = l.toggle(n.ID).link(), "Show the tasks in "+name
			if n.Open {
				node.ToggleLabel = "Hide the tasks in " + name
			}
		}
		node.Name = clip(name, most)
		v.Nodes = append(v.Nodes, node)
	}
	for _, line := range p.Lines {
		v.Lines = append(v.Lines, lineView{Path: curve(line), Arrow: line.Arrow})
	}
	return v
}

func above(path string) string {
	return path[:max(0, strings.LastIndexByte(path, '/'))]
}

// curve writes a line in the language of SVG paths. It ends with what shows its
// direction to an arrow.
func curve(l graph.Line) string {
	p := l.Points
	half := (p[2].Y - p[1].Y) / 2
	path := fmt.Sprintf("M%g %g", p[0].X, p[0].Y)
	if p[1].Y > p[0].Y {
		path += fmt.Sprintf("V%g", p[1].Y)
	}
	path += fmt.Sprintf("C%g %g %g %g %g %g", p[1].X, p[1].Y+half, p[2].X, p[2].Y-half, p[2].X, p[2].Y)
	if p[3].Y > p[2].Y {
		path += fmt.Sprintf("V%g", p[3].Y)
	}
	return path
}
