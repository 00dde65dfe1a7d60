package load

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// pixels of a unit of the plot: 1200 x 700 in all.
const pixels = 5.0 / 3

// raster draws on an image. The vectors and the font are those of golang.org/x/image.
type raster struct {
	image *image.NRGBA
	edges *vector.Rasterizer
	font  *sfnt.Font
	err   error // the first
	// shapes are polygons to be filled. All turn the same way, so that where they
	// overlap they add up.
	shapes [][]point
}

// PNG writes the plot of p50 and p99 by rate, 1200 x 700 pixels. A display name that
// its font has no signs for (it knows Latin, Greek and Cyrillic) is left out.
func (r *Result) PNG(w io.Writer, title Title) error {
	f, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return fmt.Errorf("font of the plot: %w", err)
	}
	size := image.Rect(0, 0, plotWidth*pixels, plotHeight*pixels)
	c := &raster{image: image.NewNRGBA(size), edges: &vector.Rasterizer{}, font: f}
	draw.Draw(c.image, size, image.NewUniform(colours().paper), image.Point{}, draw.Src)
	if !c.knows(title.Name) {
		title.Name = ""
	}
	r.draw(c, title)
	if c.err != nil {
		return fmt.Errorf("words of the plot: %w", c.err)
	}
	return png.Encode(w, c.image)
}

// knows reports whether the font has a sign for each character.
func (c *raster) knows(words string) bool {
	var b sfnt.Buffer
	for _, char := range words {
		if i, err := c.font.GlyphIndex(&b, char); err != nil || i == 0 {
			return false
		}
	}
	return true
}

// fill paints the shapes, within the box that they take.
func (c *raster) fill(colour color.NRGBA) {
	box := image.Rectangle{}
	for _, shape := range c.shapes {
		for _, at := range shape {
			x, y := int(math.Floor(at.x*pixels)), int(math.Floor(at.y*pixels))
			box = box.Union(image.Rect(x, y, x+1, y+1))
		}
	}
	c.edges.Reset(box.Dx(), box.Dy())
	for _, shape := range c.shapes {
		for i, at := range shape {
			x, y := float32(at.x*pixels-float64(box.Min.X)), float32(at.y*pixels-float64(box.Min.Y))
			if i == 0 {
				c.edges.MoveTo(x, y)
			} else {
				c.edges.LineTo(x, y)
			}
		}
		c.edges.ClosePath()
	}
	c.edges.Draw(c.image, box, image.NewUniform(colour), image.Point{})
	c.shapes = c.shapes[:0]
}

func (c *raster) line(points []point, p pen) {
	for i := 1; i < len(points); i++ {
		from, to := points[i-1], points[i]
		if p.dashed {
			length := math.Hypot(to.x-from.x, to.y-from.y)
			for at := 0.0; at < length; at += dashOn + dashOff {
				c.stroke(between(from, to, at/length), between(from, to, min(1, (at+dashOn)/length)), p.width)
			}
			continue
		}
		c.stroke(from, to, p.width)
		if i > 1 {
			c.disc(from, p.width/2) // a round joint
		}
	}
	c.fill(p.colour)
}

func between(a, b point, share float64) point {
	return point{a.x + (b.x-a.x)*share, a.y + (b.y-a.y)*share}
}

// stroke adds a straight line.
func (c *raster) stroke(from, to point, width float64) {
	length := math.Hypot(to.x-from.x, to.y-from.y)
	if length == 0 {
		return
	}
	x, y := (to.y-from.y)/length*width/2, (from.x-to.x)/length*width/2
	c.shapes = append(c.shapes, []point{{from.x + x, from.y + y}, {to.x + x, to.y + y}, {to.x - x, to.y - y}, {from.x - x, from.y - y}})
}

// disc adds a circle, as a polygon whose sides are shorter than a pixel.
func (c *raster) disc(at point, radius float64) {
	shape := make([]point, 48)
	for i := range shape {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(len(shape)))
		shape[i] = point{at.x + radius*cos, at.y + radius*sin}
	}
	c.shapes = append(c.shapes, shape)
}

func (c *raster) dot(d dot) {
	c.disc(d.at, dotRadius+dotEdge/2)
	c.fill(d.colour)
	if d.hollow {
		c.disc(d.at, dotRadius-dotEdge/2)
		c.fill(colours().paper)
	}
}

func (c *raster) text(at point, words string, a anchor, f face) {
	made, err := opentype.NewFace(c.font, &opentype.FaceOptions{Size: f.size * pixels, DPI: 72})
	if err != nil {
		c.err = err
		return
	}
	d := font.Drawer{Dst: c.image, Src: image.NewUniform(f.colour), Face: made}
	x := fixed.Int26_6(at.x * pixels * 64)
	switch width := d.MeasureString(words); a {
	case start:
	case middle:
		x -= width / 2
	case end:
		x -= width
	}
	d.Dot = fixed.Point26_6{X: x, Y: fixed.Int26_6(at.y * pixels * 64)}
	d.DrawString(words)
	if err := made.Close(); err != nil && c.err == nil {
		c.err = err
	}
}
