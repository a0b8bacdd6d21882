package main

import (
	"fmt"
	"os"
	"strings"
)

// plot is the geometry of one of the stacked plots.
const (
	plotWidth, plotHeight, plotLeft, plotGap = 860, 140, 90, 46
)

// writeSVG draws what a run looked like over time: readings delivered a second, bytes on disk, memory.
// Grey bands are the outage.
func writeSVG(path string, r *result) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="#fff"/>`,
		plotLeft+plotWidth+20, 3*(plotHeight+plotGap)+30)
	series := []struct {
		name, unit, colour string
		value              func(i int) float64
	}{
		{"delivered", "readings/s", "#1b6ca8", func(i int) float64 { return rateAt(r.Points, i) }},
		{"store on disk", "MB", "#b3541e", func(i int) float64 { return float64(r.Points[i].Disk) / 1e6 }},
		{"resident memory", "MB", "#2e7d32", func(i int) float64 { return float64(r.Points[i].RSS) / 1e6 }},
	}
	for k, s := range series {
		drawPlot(&b, r, 30+k*(plotHeight+plotGap), s.name+", "+s.unit, s.colour, s.value)
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func rateAt(p []point, i int) float64 {
	if i == 0 || p[i].At <= p[i-1].At {
		return 0
	}
	return float64(p[i].Delivered-p[i-1].Delivered) / (p[i].At - p[i-1].At)
}

func drawPlot(b *strings.Builder, r *result, top int, title, colour string, value func(int) float64) {
	if len(r.Points) < 2 {
		return
	}
	first, last, most := r.Points[0].At, r.Points[len(r.Points)-1].At, 1e-9
	for i := range r.Points {
		most = max(most, value(i))
	}
	x := func(at float64) float64 { return plotLeft + (at-first)/(last-first)*plotWidth }
	y := func(v float64) float64 { return float64(top+plotHeight) - v/most*plotHeight }
	for i := 0; i+1 < len(r.Marks); i += 2 {
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#eee"/>`, x(r.Marks[i]), top, x(r.Marks[i+1])-x(r.Marks[i]), plotHeight)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%.4g</text><text x="%d" y="%d" text-anchor="end">0</text>`,
		plotLeft, top-8, title, plotLeft-8, top+10, most, plotLeft-8, top+plotHeight)
	fmt.Fprintf(b, `<path d="M%d %dv%dh%d" fill="none" stroke="#999"/><polyline fill="none" stroke="%s" stroke-width="1.5" points="`, plotLeft, top, plotHeight, plotWidth, colour)
	for i := range r.Points {
		fmt.Fprintf(b, "%.1f,%.1f ", x(r.Points[i].At), y(value(i)))
	}
	fmt.Fprintf(b, `"/><text x="%d" y="%d" text-anchor="end">%.0f s</text>`, plotLeft+plotWidth, top+plotHeight+16, last-first)
}
