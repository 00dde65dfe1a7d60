package load

import (
	"bytes"
	"encoding/xml"
	"flag"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden plot")

// drawing is what the tests read of an SVG.
type drawing struct {
	Circles []struct {
		X      float64 `xml:"cx,attr"`
		Y      float64 `xml:"cy,attr"`
		Stroke string  `xml:"stroke,attr"`
		Fill   string  `xml:"fill,attr"`
	} `xml:"circle"`
	Lines []struct {
		Points string `xml:"points,attr"`
		Stroke string `xml:"stroke,attr"`
		Dashes string `xml:"stroke-dasharray,attr"`
	} `xml:"polyline"`
	Words []string `xml:"text"`
}

// plotted is a search with everything that a plot shows.
func plotted() *Result {
	r := &Result{Alone: Alone{Requests: 100, P50: 8 * time.Millisecond, P99: 12 * time.Millisecond}, Limit: 36 * time.Millisecond, Knee: 186, Beyond: 195, Confirmed: true}
	for _, s := range []struct{ rate, p50, p99 float64 }{{25, 8.1, 12}, {50, 8.2, 13}, {100, 9, 15}, {150, 10, 18}, {175, 11, 24}, {186, 12.5, 33}, {195, 35, 140}, {300, 373, 746}} {
		step := Step{Rate: s.rate, Sent: 100, Answered: 100, Good: 100, P50: time.Duration(s.p50 * 1e6), P99: time.Duration(s.p99 * 1e6)}
		if s.rate > r.Knee {
			step.Why = "p99 is above 36ms"
		}
		r.Steps = append(r.Steps, step)
	}
	slices.Reverse(r.Steps) // steps are not tried in the order of their rates
	return r
}

// TestPlot compares the plot with one that was looked at.
func TestPlot(t *testing.T) {
	t.Parallel()
	text := plotted().SVG(Title{ID: "7001", Name: "<slow & new>"})
	golden := filepath.Join("testdata", "plot.svg")
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("the plot is\n%s\nwant\n%s(go test ./internal/load -run TestPlot -update, and look at it)", text, want)
	}
}

// TestPicture looks for what the SVG has in the pixels of the PNG.
func TestPicture(t *testing.T) {
	t.Parallel()
	r, title := plotted(), Title{ID: "7001", Name: "slow"}
	var b bytes.Buffer
	if err := r.PNG(&b, title); err != nil {
		t.Fatal(err)
	}
	if to := os.Getenv("TATEGU_TEST_PLOT"); to != "" {
		if err := os.WriteFile(to, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	picture, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	if size := picture.Bounds().Size(); size.X != 1200 || size.Y != 700 {
		t.Fatalf("it has %v pixels", size)
	}
	pixel := func(x, y float64) string {
		c, _ := color.NRGBAModel.Convert(picture.At(int(x*pixels), int(y*pixels))).(color.NRGBA)
		return hex(c)
	}
	var d drawing
	if err := xml.Unmarshal([]byte(r.SVG(title)), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Circles) != 3+2*len(r.Steps) {
		t.Errorf("%d circles", len(d.Circles))
	}
	for _, c := range d.Circles {
		if got := pixel(c.X, c.Y); got != c.Fill {
			t.Errorf("the middle of a dot at %g, %g is %s, want %s", c.X, c.Y, got, c.Fill)
		}
		if got := pixel(c.X+dotRadius, c.Y); !near(got, c.Stroke) {
			t.Errorf("the edge of a dot at %g, %g is %s, want %s", c.X, c.Y, got, c.Stroke)
		}
	}
	of := colours()
	found := map[string]bool{}
	for _, l := range d.Lines {
		ends := points(t, l.Points)
		if l.Stroke == hex(of.grid) || l.Dashes != "" {
			continue
		}
		for i := 1; i < len(ends); i++ {
			at := between(ends[i-1], ends[i], 0.4) // where no other line is
			if got := pixel(at.x, at.y); near(got, l.Stroke) {
				found[l.Stroke] = true
			} else {
				t.Errorf("a line of %s is %s at %v", l.Stroke, got, at)
			}
		}
	}
	for _, c := range []color.NRGBA{of.p50, of.p99, of.knee, of.limit} {
		if !found[hex(c)] {
			t.Errorf("no line has the colour %s", hex(c))
		}
	}
}

func points(t *testing.T, list string) []point {
	t.Helper()
	var out []point
	for pair := range strings.FieldsSeq(list) {
		x, y, _ := strings.Cut(pair, ",")
		var at point
		var err error
		if at.x, err = strconv.ParseFloat(x, 64); err != nil {
			t.Fatal(err)
		}
		if at.y, err = strconv.ParseFloat(y, 64); err != nil {
			t.Fatal(err)
		}
		out = append(out, at)
	}
	return out
}

// near reports whether a pixel has a colour, half of it at least: a thin line may lie
// between two.
func near(pixel, colour string) bool {
	var a, b [3]int64
	for i := range 3 {
		a[i], _ = strconv.ParseInt(pixel[1+2*i:3+2*i], 16, 32)
		b[i], _ = strconv.ParseInt(colour[1+2*i:3+2*i], 16, 32)
		if a[i] < b[i]-2 || a[i] > (b[i]+255)/2+2 {
			return false
		}
	}
	return true
}

// TestPictureOfOddResults draws what has little to draw.
func TestPictureOfOddResults(t *testing.T) {
	t.Parallel()
	one := Step{Rate: 100, Answered: 1, Sent: 1}
	for name, r := range map[string]*Result{
		"nothing": {}, "one step of no time": {Steps: []Step{one}}, "a knee at the edge": {Steps: []Step{one, {Rate: 90, Answered: 1, P50: 1, P99: time.Hour}}, Knee: 90, Limit: 1},
		"no answer": {Steps: []Step{{Rate: 5, Sent: 5, Why: "failed"}}},
	} {
		title := Title{ID: "7", Name: "長\x01\x1b[0m" + strings.Repeat("い名", 60)}
		var b bytes.Buffer
		if err := r.PNG(&b, title); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := png.Decode(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		text := r.SVG(title)
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || !strings.HasSuffix(text, "</svg>\n") || !strings.Contains(text, "Load of 7 (長") {
			t.Errorf("%s: %s", name, text)
		}
		if err := xml.Unmarshal([]byte(text), &drawing{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		least, most float64
		want        string
	}{
		{1, 20000, "1 10 100 1000 10000"},
		{22.5, 330, "30 40 50 70 100 150 200 300"},
		{8, 330, "10 20 50 100 200"},
		{135, 330, "140 160 180 200 250 300"},
		{0.1, 0.2, "0.1 0.12 0.14 0.16 0.18 0.2"},
	} {
		var words []string
		for _, v := range (axis{least: tt.least, most: tt.most}).marks() {
			words = append(words, strconv.FormatFloat(v, 'g', 6, 64))
		}
		if got := strings.Join(words, " "); got != tt.want {
			t.Errorf("marks from %g to %g are %s, want %s", tt.least, tt.most, got, tt.want)
		}
	}
}
