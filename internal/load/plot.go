package load

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"
)

// Measures of the plot, in pixels.
const (
	plotWidth, plotHeight = 760, 420
	plotLeft, plotRight   = 70, 20
	plotTop, plotBottom   = 30, 45
)

// axis maps a range onto pixels, by logarithm.
type axis struct{ least, most, from, to float64 }

func (a axis) at(v float64) float64 {
	if a.most <= a.least {
		return (a.from + a.to) / 2
	}
	return a.from + (a.to-a.from)*math.Log(v/a.least)/math.Log(a.most/a.least)
}

// marks are the round numbers on an axis: 1, 2 and 5 of each power of ten.
func (a axis) marks() []float64 {
	var out []float64
	for e := math.Floor(math.Log10(a.least)); e <= math.Ceil(math.Log10(a.most)); e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); v >= a.least*0.999 && v <= a.most*1.001 {
				out = append(out, v)
			}
		}
	}
	return out
}

// SVG draws p50 and p99 by rate, both by logarithm. Steps that did not hold are
// hollow.
func (r *Result) SVG(title string) string {
	steps := slices.Clone(r.Steps)
	steps = slices.DeleteFunc(steps, func(s Step) bool { return s.Answered == 0 })
	slices.SortStableFunc(steps, func(a, b Step) int {
		return int(math.Copysign(1, a.Rate-b.Rate))
	})
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" role="img">`,
		plotWidth, plotHeight, plotWidth, plotHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", html.EscapeString(title))
	fmt.Fprintf(&b, `<text x="%d" y="18" font-weight="bold">%s</text>`+"\n", plotLeft, html.EscapeString(title))
	if len(steps) > 0 {
		x, y := r.axes(steps)
		r.grid(&b, x, y)
		curve(&b, steps, x, y, "#c0392b", "p99", func(s Step) time.Duration { return s.P99 })
		curve(&b, steps, x, y, "#2471a3", "p50", func(s Step) time.Duration { return s.P50 })
	}
	b.WriteString("</svg>\n")
	return b.String()
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

func (r *Result) grid(b *strings.Builder, x, y axis) {
	line := func(x1, y1, x2, y2 float64, style string) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, style)
	}
	for _, v := range x.marks() {
		line(x.at(v), y.from, x.at(v), y.to, `stroke="#ddd"`)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x.at(v), plotHeight-plotBottom+16, v)
	}
	for _, v := range y.marks() {
		line(x.from, y.at(v), x.to, y.at(v), `stroke="#ddd"`)
		fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="end">%g ms</text>`+"\n", plotLeft-6, y.at(v)+4, v)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">requests a second</text>`+"\n", (plotLeft+plotWidth-plotRight)/2, plotHeight-8)
	line(x.from, y.at(ms(r.Limit)), x.to, y.at(ms(r.Limit)), `stroke="#888" stroke-dasharray="6 4"`)
	fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="end" fill="#555">limit %s</text>`+"\n", plotWidth-plotRight-4, y.at(ms(r.Limit))-5, Told(r.Limit))
	if r.Knee > 0 {
		line(x.at(r.Knee), y.from, x.at(r.Knee), y.to, `stroke="#27ae60" stroke-width="2"`)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="end" fill="#1e8449">knee %s/s</text>`+"\n", x.at(r.Knee)-6, plotTop+14, Rate(r.Knee))
	}
}

// curve draws one value of all steps. The line goes through those that held.
func curve(b *strings.Builder, steps []Step, x, y axis, colour, name string, value func(Step) time.Duration) {
	var points strings.Builder
	for _, s := range steps {
		at := fmt.Sprintf("%.1f,%.1f", x.at(s.Rate), y.at(ms(value(s))))
		fill := "#fff"
		if s.Held() {
			fill = colour
			points.WriteString(at + " ")
		}
		cx, cy, _ := strings.Cut(at, ",")
		fmt.Fprintf(b, `<circle cx="%s" cy="%s" r="3.5" stroke="%s" fill="%s"><title>%s at %s/s: %s</title></circle>`+"\n",
			cx, cy, colour, fill, name, Rate(s.Rate), Told(value(s)))
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.TrimSpace(points.String()), colour)
	last := steps[0]
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="%s">%s</text>`+"\n", x.at(last.Rate)+6, y.at(ms(value(last)))-7, colour, name)
}

// HTML is a page of its own: the plot, what was found and the table.
func (r *Result) HTML(title string, advice []string) string {
	var b strings.Builder
	name := html.EscapeString(title)
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%s</title>\n", name)
	b.WriteString("<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}svg{max-width:100%;height:auto}" +
		"table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}td:last-child,th:last-child{text-align:left}</style></head><body>\n")
	fmt.Fprintf(&b, "<h1>%s</h1>\n%s", name, r.SVG(title))
	for _, line := range slices.Concat(r.Conclude(), advice) {
		fmt.Fprintf(&b, "<p>%s</p>\n", html.EscapeString(line))
	}
	b.WriteString("<table><tr><th>rate/s</th><th>sent</th><th>p50</th><th>p99</th><th>max</th><th>failed</th><th>replicas</th><th>held</th></tr>\n")
	for _, s := range r.Steps {
		held := "yes"
		if !s.Held() {
			held = "no: " + s.Why
		}
		fmt.Fprintf(&b, "<tr><td>%s</td><td>%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%d</td><td>%s</td></tr>\n",
			Rate(s.Rate), s.Sent, Told(s.P50), Told(s.P99), Told(s.Max), failures(s), s.Replicas, html.EscapeString(held))
	}
	b.WriteString("</table></body></html>\n")
	return b.String()
}
