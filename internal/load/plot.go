package load

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Measures of the plot in its own units; an SVG takes them as pixels.
const (
	plotWidth, plotHeight = 720, 420
	plotLeft, plotRight   = 65, 85
	plotTop, plotBottom   = 66, 45
	titleLine, legendLine = 22, 42
	wordSize, titleSize   = 12, 15
	dotRadius, dotEdge    = 3.5, 1.0
	dashOn, dashOff       = 6, 4
	mostTitle             = 70 // characters
)

// Title heads a plot: the id of an endpoint and its display name, "" = none.
type Title struct{ ID, Name string }

// String leaves out control characters, which XML has no way to write.
func (t Title) String() string {
	s := "Load of " + t.ID
	if t.Name != "" {
		s += " (" + t.Name + ")"
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return -1
	}, s)
	if utf8.RuneCountInString(s) > mostTitle {
		s = string([]rune(s)[:mostTitle-1]) + "…"
	}
	return s
}

// canvas is what a plot is drawn on: an SVG, or the pixels of a PNG.
type canvas interface {
	// line goes through points.
	line(points []point, p pen)
	dot(d dot)
	text(at point, words string, a anchor, t face)
}

type point struct{ x, y float64 }

// pen draws lines.
type pen struct {
	colour color.NRGBA
	width  float64
	dashed bool
}

// dot is a measured value. A hollow one did not hold.
type dot struct {
	at     point
	colour color.NRGBA
	hollow bool
	about  string // shown where a pointer rests on it
}

// anchor is the place of words that their point names.
type anchor int

const (
	start anchor = iota
	middle
	end
)

// face is how words look.
type face struct {
	size   float64
	colour color.NRGBA
	bold   bool // where there is a bold font
}

// palette has the colours of a plot.
type palette struct{ paper, ink, faint, grid, limit, knee, p50, p99 color.NRGBA }

func colours() palette {
	grey := func(v uint8) color.NRGBA { return color.NRGBA{R: v, G: v, B: v, A: 255} }
	return palette{
		paper: grey(255), ink: grey(0x22), faint: grey(0x55), grid: grey(0xdd), limit: grey(0x88),
		knee: color.NRGBA{R: 0x1e, G: 0x84, B: 0x49, A: 255},
		p50:  color.NRGBA{R: 0x24, G: 0x71, B: 0xa3, A: 255}, p99: color.NRGBA{R: 0xc0, G: 0x39, B: 0x2b, A: 255},
	}
}

// axis maps a range onto a plot, by logarithm.
type axis struct{ least, most, from, to float64 }

func (a axis) at(v float64) float64 {
	if a.most <= a.least {
		return (a.from + a.to) / 2
	}
	return a.from + (a.to-a.from)*math.Log(v/a.least)/math.Log(a.most/a.least)
}

// enoughMarks lets values between two marks be read.
const enoughMarks = 5

// marks are the round numbers on an axis: the fewest in each power of ten that are enough.
func (a axis) marks() []float64 {
	var out []float64
	for _, digits := range [][]float64{{1}, {1, 3}, {1, 2, 5}, {1, 1.5, 2, 3, 4, 5, 7}, {1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5}} {
		out = out[:0]
		for e := math.Floor(math.Log10(a.least)); e <= math.Ceil(math.Log10(a.most)); e++ {
			for _, d := range digits {
				if v := d * math.Pow(10, e); v >= a.least*0.999 && v <= a.most*1.001 {
					out = append(out, v)
				}
			}
		}
		if len(out) >= enoughMarks {
			break
		}
	}
	return out
}

// draw shows p50 and p99 by rate, both by logarithm. Steps that did not hold are
// hollow, and the lines leave them out.
func (r *Result) draw(c canvas, title Title) {
	of := colours()
	c.text(point{plotLeft, titleLine}, title.String(), start, face{size: titleSize, colour: of.ink, bold: true})
	steps := slices.DeleteFunc(slices.Clone(r.Steps), func(s Step) bool { return s.Answered == 0 })
	if len(steps) == 0 {
		c.text(point{plotLeft, legendLine}, "no request was answered", start, face{size: wordSize, colour: of.faint})
		return
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.Rate, b.Rate) })
	legend(c, of)
	x, y := r.axes(steps)
	grid(c, x, y, of)
	r.bounds(c, x, y, of)
	curve(c, steps, x, y, of.p99, "p99", func(s Step) time.Duration { return s.P99 })
	curve(c, steps, x, y, of.p50, "p50", func(s Step) time.Duration { return s.P50 })
}

func (r *Result) axes(steps []Step) (x, y axis) {
	x = axis{least: steps[0].Rate * 0.9, most: steps[len(steps)-1].Rate * 1.1, from: plotLeft, to: plotWidth - plotRight}
	y = axis{least: math.Inf(1), from: plotHeight - plotBottom, to: plotTop}
	for _, s := range steps {
		y.least = math.Min(y.least, ms(s.P50)*0.8)
		y.most = math.Max(y.most, ms(s.P99)*1.2)
	}
	y.most = math.Max(y.most, ms(r.Limit)*1.2)
	return x, y
}

// ms is for an axis by logarithm, where 0 has no place.
func ms(d time.Duration) float64 { return math.Max(millis(d), 1e-3) }

// legend stands above the plot, out of the way of what is measured.
func legend(c canvas, of palette) {
	const text = 10 // from a dot to its name
	at := point{plotLeft + 4, legendLine - 4}
	for _, e := range []struct {
		name  string
		d     dot
		width float64
	}{{"p99", dot{colour: of.p99}, 50}, {"p50", dot{colour: of.p50}, 50}, {"did not hold", dot{colour: of.faint, hollow: true}, 0}} {
		e.d.at, e.d.about = at, e.name
		c.dot(e.d)
		c.text(point{at.x + text, legendLine}, e.name, start, face{size: wordSize, colour: of.ink})
		at.x += e.width
	}
}

func grid(c canvas, x, y axis, of palette) {
	words := face{size: wordSize, colour: of.ink}
	for _, v := range x.marks() {
		c.line([]point{{x.at(v), y.from}, {x.at(v), y.to}}, pen{colour: of.grid, width: 1})
		c.text(point{x.at(v), y.from + 17}, strconv.FormatFloat(v, 'f', -1, 64), middle, words)
	}
	for _, v := range y.marks() {
		c.line([]point{{x.from, y.at(v)}, {x.to, y.at(v)}}, pen{colour: of.grid, width: 1})
		c.text(point{x.from - 7, y.at(v) + 4}, mark(v), end, words)
	}
	c.line([]point{{x.from, y.to}, {x.from, y.from}, {x.to, y.from}}, pen{colour: of.limit, width: 1})
	c.text(point{(x.from + x.to) / 2, plotHeight - 8}, "requests a second", middle, words)
}

// mark names a round time of milliseconds.
func mark(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v/1000, 'g', 3, 64) + " s"
	case v < 1:
		return strconv.FormatFloat(v*1000, 'g', 3, 64) + " µs"
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + " ms"
}

// bounds draws the limit and the knee. Their names are outside of the axes, where no
// value can be below them.
func (r *Result) bounds(c canvas, x, y axis, of palette) {
	limit := y.at(ms(r.Limit))
	c.line([]point{{x.from, limit}, {x.to, limit}}, pen{colour: of.limit, width: 1, dashed: true})
	c.text(point{x.to + 6, limit + 4}, "limit "+Told(r.Limit), start, face{size: wordSize, colour: of.faint})
	if r.Knee > 0 {
		const half = 45 // of its name
		knee := x.at(r.Knee)
		c.line([]point{{knee, y.from}, {knee, y.to}}, pen{colour: of.knee, width: 2})
		c.text(point{min(max(knee, x.from+half), x.to-half), y.to - 6}, fmt.Sprintf("knee %s/s", Rate(r.Knee)), middle, face{size: wordSize, colour: of.knee, bold: true})
	}
}

// curve draws one value of all steps. The line goes through those that held.
func curve(c canvas, steps []Step, x, y axis, colour color.NRGBA, name string, value func(Step) time.Duration) {
	var held []point
	for _, s := range steps {
		if s.Held() {
			held = append(held, point{x.at(s.Rate), y.at(ms(value(s)))})
		}
	}
	c.line(held, pen{colour: colour, width: 1.5})
	for _, s := range steps {
		c.dot(dot{
			at: point{x.at(s.Rate), y.at(ms(value(s)))}, colour: colour, hollow: !s.Held(),
			about: fmt.Sprintf("%s at %s/s: %s", name, Rate(s.Rate), Told(value(s))),
		})
	}
}
