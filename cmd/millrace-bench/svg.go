package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// panel is one of the stacked plots of a run over time.
type panel struct {
	title  string
	log    bool
	colour color.RGBA
	value  func(i int) float64 // NaN: nothing to draw at that point
}

// writeSVG draws what a run looked like over time. Grey bands are the outage.
func writeSVG(path string, r *result) error {
	panels := []panel{
		{"delivered, readings/s", false, color.RGBA{27, 108, 168, 255}, func(i int) float64 { return rateAt(r.Points, i) }},
		{"latency of live readings, p99, ms", true, color.RGBA{123, 31, 162, 255}, func(i int) float64 { return r.Points[i].orNothing() }},
		{"buffer on disk, MiB", false, color.RGBA{179, 84, 30, 255}, func(i int) float64 { return float64(r.Points[i].Disk) / (1 << 20) }},
		{"resident memory, MiB", false, color.RGBA{46, 125, 50, 255}, func(i int) float64 { return float64(r.Points[i].RSS) / (1 << 20) }},
	}
	var column [][]*plot.Plot
	for _, p := range panels {
		drawn, err := p.draw(r)
		if err != nil {
			return fmt.Errorf("draw %q: %w", p.title, err)
		}
		column = append(column, []*plot.Plot{drawn})
	}
	column[len(column)-1][0].X.Label.Text = "seconds since the start"
	canvas := vgsvg.New(24*vg.Centimeter, vg.Length(len(panels))*5*vg.Centimeter)
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadX: vg.Centimeter, PadY: vg.Centimeter / 2, PadTop: vg.Centimeter / 4, PadRight: vg.Centimeter / 2}
	for i, cells := range plot.Align(column, tiles, draw.New(canvas)) {
		column[i][0].Draw(cells[0])
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	if _, err := canvas.WriteTo(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("write the plot %q: %w", path, err)
	}
	return f.Close()
}

func (p *panel) draw(r *result) (*plot.Plot, error) {
	out := plot.New()
	out.Title.Text, out.X.Tick.Marker, out.Y.Tick.Marker = p.title, wholeTicks{}, wholeTicks{}
	low, high := math.Inf(1), math.Inf(-1)
	var stretch plotter.XYs
	var lines []plotter.XYs
	for i := range r.Points {
		v := p.value(i)
		if math.IsNaN(v) {
			lines, stretch = append(lines, stretch), nil
			continue
		}
		low, high = min(low, v), max(high, v)
		stretch = append(stretch, plotter.XY{X: r.Points[i].At, Y: v})
	}
	out.Y.Min, out.Y.Max = 0, max(1.1*high, 1e-9)
	if p.log {
		out.Y.Min, out.Y.Max = max(low, 1e-3)/2, max(2*high, 1e-2)
		out.Y.Scale, out.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	for i := 0; i+1 < len(r.Marks); i += 2 {
		from, to := r.Marks[i], r.Marks[i+1]
		band, err := plotter.NewPolygon(plotter.XYs{{X: from, Y: out.Y.Min}, {X: to, Y: out.Y.Min}, {X: to, Y: out.Y.Max}, {X: from, Y: out.Y.Max}})
		if err != nil {
			return nil, err
		}
		band.Color, band.LineStyle.Width = color.Gray{232}, 0
		out.Add(band)
	}
	out.Add(plotter.NewGrid())
	for _, xy := range append(lines, stretch) {
		if len(xy) == 0 {
			continue
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = p.colour, 1.5
		out.Add(line)
	}
	if n := len(r.Points); n > 1 {
		out.X.Min, out.X.Max = r.Points[0].At, r.Points[n-1].At
	}
	return out, nil
}

// wholeTicks labels the usual ticks without trailing zeros.
type wholeTicks struct{}

// Ticks returns the marks between low and high.
func (wholeTicks) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = strconv.FormatFloat(ticks[i].Value, 'f', -1, 32)
		}
	}
	return ticks
}

// rateAt returns the readings a second between the point before and this one.
func rateAt(p []point, i int) float64 {
	if i == 0 || p[i].At <= p[i-1].At {
		return math.NaN()
	}
	return float64(p[i].Delivered-p[i-1].Delivered) / (p[i].At - p[i-1].At)
}

// orNothing returns the latency, or NaN when no live reading arrived.
func (p point) orNothing() float64 {
	if p.P99 == 0 {
		return math.NaN()
	}
	return p.P99
}
