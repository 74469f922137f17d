//go:build lab

package page

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"slices"
	"testing"
)

// smaller makes a picture with the 256 colours that it has most of, which is
// plenty for a page.
func smaller(t *testing.T, in []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[color.RGBA]int{}
	area := full.Bounds()
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			seen[color.RGBAModel.Convert(full.At(x, y)).(color.RGBA)]++
		}
	}
	var palette color.Palette
	for c := range seen {
		palette = append(palette, c)
	}
	slices.SortFunc(palette, func(a, b color.Color) int { return seen[b.(color.RGBA)] - seen[a.(color.RGBA)] })
	few := image.NewPaletted(area, palette[:min(len(palette), 256)])
	draw.Draw(few, area, full, area.Min, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, few); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
