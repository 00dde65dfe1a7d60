package load

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// HTML is a page of its own: the plot, what was found and the table.
func (r *Result) HTML(title Title, advice []string) string {
	var b strings.Builder
	name := html.EscapeString(title.String())
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
