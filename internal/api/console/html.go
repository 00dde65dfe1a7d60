package console

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"
)

// What templates write in more than one word. They are compiled (*.templ, by `make
// generate`): html/template finds methods by name while it runs, for which the linker
// keeps every method of the program.

func iso(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// px is a length in the picture.
func px(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// code sets what is between backquotes as code.
func code(text string) string {
	var b strings.Builder
	for i, s := range strings.Split(text, "`") {
		s = templ.EscapeString(s)
		if i%2 == 1 {
			s = "<code>" + s + "</code>"
		}
		b.WriteString(s)
	}
	return b.String()
}

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" }

func (d pageData) head() templ.Component {
	if d.Refresh {
		return refresh("2")
	}
	return templ.NopComponent
}

// where says what is selected, and in what it is.
func (v panelView) where() string {
	if v.Around == "" {
		return v.Kind
	}
	return v.Kind + " in " + v.Around
}

// why is the cause and the exit code, as far as they are known.
func (f *failureView) why() string {
	text := ""
	if f.Cause != "" {
		text = "cause: " + f.Cause
	}
	if f.Exit != "" {
		text += " · exit code " + f.Exit
	}
	return text
}

// failed goes on after the name of what failed.
func (f *failureView) failed() string {
	if f.Cause != "" {
		return "failed · " + f.why()
	}
	return "failed" + f.why()
}

// whole is the address of the whole log.
func (l *logPane) whole() string {
	return "/tategu/v1/logs?" + url.Values{"resource": {l.Name}, "workload": {l.Workload}}.Encode()
}

func (r *roundsView) column() string {
	if r.What == "iterations" {
		return "Iteration"
	}
	return "In"
}

// value is what iteration i is of, "" where nothing was noted.
func (r *roundsView) value(i int) string {
	if i < len(r.Values) {
		return r.Values[i]
	}
	return ""
}

// box is the view box, with a margin for borders.
func (p pictureView) box() string {
	return "-6 -6 " + strconv.Itoa(p.Width) + " " + strconv.Itoa(p.Height)
}

// spoken is how a screen reader tells a step.
func (n nodeView) spoken() string {
	if n.Text == n.Label {
		return n.Title + ": " + n.Label
	}
	return n.Title + ": " + n.Label + ", " + n.Text
}

// ifOpen chooses a length.
func (n nodeView) ifOpen(open, shut string) string {
	if n.Open {
		return open
	}
	return shut
}

// sign is the minus of what can be closed, or the plus of what can be opened.
func (n nodeView) sign() string {
	at := "M" + px(n.W-25)
	if n.Open {
		return at + " 21h10"
	}
	return at + " 25h10m-5 -5v10"
}

// after follows the name of failed task i.
func (p *runPage) after(i int) string {
	switch {
	case i < len(p.MoreFailed)-1:
		return ","
	case p.NotNamed > 0:
		return ", and " + amount(p.NotNamed) + " more in the list"
	default:
		return ""
	}
}
