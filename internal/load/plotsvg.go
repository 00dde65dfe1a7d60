package load

import (
	"fmt"
	"html"
	"image/color"
	"strings"
)

// svg draws as text.
type svg struct{ b strings.Builder }

// SVG is the plot of p50 and p99 by rate.
func (r *Result) SVG(title Title) string {
	c := &svg{}
	fmt.Fprintf(&c.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" role="img">`,
		plotWidth, plotHeight, plotWidth, plotHeight)
	fmt.Fprintf(&c.b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"%s\"/>\n", html.EscapeString(title.String()), hex(colours().paper))
	r.draw(c, title)
	c.b.WriteString("</svg>\n")
	return c.b.String()
}

func hex(c color.NRGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

func (c *svg) line(points []point, p pen) {
	if len(points) == 0 {
		return
	}
	words := make([]string, len(points))
	for i, at := range points {
		words[i] = fmt.Sprintf("%.1f,%.1f", at.x, at.y)
	}
	dashes := ""
	if p.dashed {
		dashes = fmt.Sprintf(` stroke-dasharray="%d %d"`, dashOn, dashOff)
	}
	fmt.Fprintf(&c.b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%g"%s/>`+"\n", strings.Join(words, " "), hex(p.colour), p.width, dashes)
}

func (c *svg) dot(d dot) {
	fill := hex(d.colour)
	if d.hollow {
		fill = hex(colours().paper)
	}
	fmt.Fprintf(&c.b, `<circle cx="%.1f" cy="%.1f" r="%g" stroke="%s" stroke-width="%g" fill="%s"><title>%s</title></circle>`+"\n",
		d.at.x, d.at.y, dotRadius, hex(d.colour), dotEdge, fill, html.EscapeString(d.about))
}

func (c *svg) text(at point, words string, a anchor, f face) {
	weight := ""
	if f.bold {
		weight = ` font-weight="bold"`
	}
	fmt.Fprintf(&c.b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%g" fill="%s"%s>%s</text>`+"\n",
		at.x, at.y, [...]string{start: "start", middle: "middle", end: "end"}[a], f.size, hex(f.colour), weight, html.EscapeString(words))
}
