package report

import (
	"bytes"
	"fmt"
	"image/color"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// shade is a colour with its counterpart for a dark page.
type shade struct{ light, dark color.RGBA }

func rgb(v uint32) color.RGBA { return color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 0xff} }

// A colour-blind-safe palette: blue, orange and red. The reader has the boldest colour, and the peers are grey.
var (
	paper   = shade{rgb(0xfefefe), rgb(0x0d1117)}
	ink     = shade{rgb(0x1f2328), rgb(0xe6edf3)}
	axis    = shade{rgb(0x6e7781), rgb(0x8b949e)}
	grid    = shade{rgb(0xd8dee4), rgb(0x30363d)}
	reader  = shade{rgb(0x0969da), rgb(0x58a6ff)}
	lighter = shade{rgb(0x7fb5f0), rgb(0x2f6bb5)}
	gateway = shade{rgb(0xbc4c00), rgb(0xf0883e)}
	peer    = shade{rgb(0xafb8c1), rgb(0x6e7681)}
	failed  = shade{rgb(0xcf222e), rgb(0xff7b72)}
	bands   = []shade{{rgb(0xddf0ff), rgb(0x0c2d5b)}, {rgb(0xc2e2fe), rgb(0x123f7a)}, {rgb(0xa6d3fd), rgb(0x194f96)}, {rgb(0x8cc4fb), rgb(0x205fb0)}}

	shades = append([]shade{paper, ink, axis, grid, reader, lighter, gateway, peer, failed}, bands...)
)

// svgCanvas draws text as paths, so that a plot does not depend on the fonts of a machine.
type svgCanvas struct{ *vgsvg.Canvas }

// FillString implements vg.Canvas.
func (c svgCanvas) FillString(face plotfont.Face, at vg.Point, text string) {
	path, err := outline(face, at, text)
	if err != nil {
		c.Canvas.FillString(face, at, text) // a glyph that the font does not have
		return
	}
	if len(path) > 0 {
		c.Fill(path)
	}
}

// outline returns the outline of a text.
func outline(face plotfont.Face, at vg.Point, text string) (vg.Path, error) {
	var buf sfnt.Buffer
	units := fixed.Int26_6(face.Face.UnitsPerEm())
	scale := face.Font.Size / vg.Length(units)
	point := func(p fixed.Point26_6) vg.Point { // glyphs have y pointing down
		return vg.Point{X: at.X + vg.Length(p.X)*scale, Y: at.Y - vg.Length(p.Y)*scale}
	}
	var path vg.Path
	previous := sfnt.GlyphIndex(0)
	for i, r := range text {
		glyph, err := face.Face.GlyphIndex(&buf, r)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			if kern, err := face.Face.Kern(&buf, previous, glyph, units, font.HintingNone); err == nil {
				at.X += vg.Length(kern) * scale
			}
		}
		segments, err := face.Face.LoadGlyph(&buf, glyph, units, nil)
		if err != nil {
			return nil, err
		}
		open := false
		for _, s := range segments {
			switch s.Op {
			case sfnt.SegmentOpMoveTo:
				if open {
					path.Close()
				}
				open = true
				path.Move(point(s.Args[0]))
			case sfnt.SegmentOpLineTo:
				path.Line(point(s.Args[0]))
			case sfnt.SegmentOpQuadTo:
				path.QuadTo(point(s.Args[0]), point(s.Args[1]))
			case sfnt.SegmentOpCubeTo:
				path.CubeTo(point(s.Args[0]), point(s.Args[1]), point(s.Args[2]))
			}
		}
		if open {
			path.Close()
		}
		advance, err := face.Face.GlyphAdvance(&buf, glyph, units, font.HintingNone)
		if err != nil {
			return nil, err
		}
		at.X += vg.Length(advance) * scale
		previous = glyph
	}
	return path, nil
}

// render draws on a page and returns it as SVG. The page follows the reader's colour scheme.
func render(title string, width, height vg.Length, paint func(draw.Canvas)) ([]byte, error) {
	svg := vgsvg.New(width, height)
	canvas := draw.NewCanvas(svgCanvas{svg}, width, height)
	canvas.SetColor(paper.light)
	canvas.Fill(canvas.Rectangle.Path())
	paint(draw.Crop(canvas, edge, -edge, edge, -edge))
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		return nil, err
	}
	before, after, ok := strings.Cut(b.String(), "xlink\">\n")
	if !ok {
		return nil, fmt.Errorf("the SVG has no header")
	}
	return []byte(before + "xlink\" role=\"img\">\n<title>" + title + "</title>\n" + darkStyle() + after), nil
}

// darkStyle returns a style that replaces the colours on a dark page. The canvas writes colours into style
// attributes, which only an !important rule overrides.
func darkStyle() string {
	var b strings.Builder
	b.WriteString("<style>@media (prefers-color-scheme: dark) {\n")
	for _, s := range shades {
		for _, property := range []string{"fill", "stroke"} {
			fmt.Fprintf(&b, "[style*=\"%s:%s\"] { %s: %s !important }\n", property, hex(s.light), property, hex(s.dark))
		}
	}
	b.WriteString("}</style>\n")
	return b.String()
}

// hex formats a colour with the rounding of the canvas, which the selectors of darkStyle have to match.
func hex(c color.RGBA) string {
	r, g, b, a := c.RGBA()
	scale := 255.0 / float64(a)
	return fmt.Sprintf("#%02X%02X%02X", int(float64(r)*scale), int(float64(g)*scale), int(float64(b)*scale))
}
