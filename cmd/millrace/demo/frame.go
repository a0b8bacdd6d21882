package demo

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"millrace/gateway/web"
)

// view is everything one picture of the running demo shows.
type view struct {
	now      time.Time
	elapsed  time.Duration
	span     time.Duration // 0 = until a key is pressed
	panels   []panel
	received uint64
	rate     float64 // readings a second
	kept     uint64  // readings in the buffer
	peak     uint64  // the most there have been
	oldest   time.Duration
	onDisk   int64
	cut      bool
	since    time.Time // when the uplink was cut or mended
	state    string    // what the gateway says of the uplink
	note     string    // the last line the gateway logged
	page     string    // where the operator's page is
	keys     bool      // a person can press keys
}

// panel is one device in the cloud's live table.
type panel struct {
	device, about string
	rows          []row
}

// row is the newest reading of one tag.
type row struct {
	tag, unit string
	shown     shown
}

// ink colours text, or leaves it as it is.
type ink bool

func (i ink) paint(code, text string) string {
	if !i || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (i ink) bold(s string) string   { return i.paint("1", s) }
func (i ink) dim(s string) string    { return i.paint("2", s) }
func (i ink) good(s string) string   { return i.paint("32", s) }
func (i ink) warn(s string) string   { return i.paint("33", s) }
func (i ink) bad(s string) string    { return i.paint("31;1", s) }
func (i ink) water(s string) string  { return i.paint("36", s) }
func (i ink) strong(s string) string { return i.paint("1;36", s) }

// The screen is drawn for at least 60 columns; wider ones than 132 are not filled.
const (
	minWidth  = 60
	maxWidth  = 132
	gutter    = 3
	furniture = 10 // lines that are not device panels
)

// frame draws the view as at most height lines of at most width columns.
func (v *view) frame(width, height int, i ink) []string {
	width = max(minWidth, min(width, maxWidth))
	columns := 2
	if width < 76 {
		columns = 1
	}
	lines := []string{v.title(width, i), ""}
	lines = append(lines, v.table(width, columns, height-furniture, i)...)
	lines = append(lines, v.bufferLine(width, i), v.uplinkLine(width, i), i.dim(clip("gateway  "+v.note, width)), "")
	lines = append(lines, v.foot(width, i)...)
	return lines[:min(len(lines), max(height, 1))]
}

func (v *view) title(width int, i ink) string {
	left := "millrace demo"
	middle := fmt.Sprintf("  the cloud's view: %s readings, %.0f/s", web.Thousands(v.received), v.rate)
	right := web.Span(v.elapsed.Truncate(time.Second))
	if v.span > 0 {
		right = fmt.Sprintf("%d of %d s", int(v.elapsed.Seconds()), int(v.span.Seconds()))
	}
	middle = clip(middle, width-len(left)-len(right)-1)
	return i.strong(left) + middle + strings.Repeat(" ", width-len(left)-columns(middle)-len(right)) + i.dim(right)
}

// foot is the keys and where the page is, on one line if it holds both.
func (v *view) foot(width int, i ink) []string {
	const cut, end = " cut or mend the uplink   ", " end and show the account   "
	page := "operator's page " + v.page
	switch {
	case !v.keys:
		return []string{i.dim(clip(page, width))}
	case 2+len(cut)+len(end)+columns(page) <= width:
		return []string{i.bold("o") + cut + i.bold("q") + end + i.dim(page)}
	}
	return []string{i.bold("o") + cut + i.bold("q") + end, i.dim(clip(page, width))}
}

// table lays the panels side by side, row by row, in at most room lines.
func (v *view) table(width, columns, room int, i ink) []string {
	bands := (len(v.panels) + columns - 1) / columns
	if bands == 0 {
		return nil
	}
	each := max(3, room/bands) // a heading, the tags, an empty line
	column := (width - gutter*(columns-1)) / columns
	var lines []string
	for at := 0; at < len(v.panels); at += columns {
		band := v.panels[at:min(at+columns, len(v.panels))]
		var drawn [][]string
		tall := 0
		for k := range band {
			d := v.panel(&band[k], column, each-1, i)
			drawn = append(drawn, d)
			tall = max(tall, len(d))
		}
		for n := range tall {
			lines = append(lines, beside(drawn, n, column))
		}
		lines = append(lines, "")
	}
	return lines
}

// beside joins the n-th line of each panel; every line of a panel is exactly column wide on the screen.
func beside(drawn [][]string, n, column int) string {
	var b strings.Builder
	for k, d := range drawn {
		if k > 0 {
			b.WriteString(strings.Repeat(" ", gutter))
		}
		if n < len(d) {
			b.WriteString(d[n])
		} else if k < len(drawn)-1 {
			b.WriteString(strings.Repeat(" ", column))
		}
	}
	return b.String()
}

func (v *view) panel(p *panel, width, room int, i ink) []string {
	name := clip(p.device, width)
	about := clip("  "+p.about, width-columns(name))
	lines := []string{i.bold(name) + i.dim(about) + strings.Repeat(" ", width-columns(name)-columns(about))}
	for k := range p.rows {
		if len(lines) == room-1 && k < len(p.rows)-1 || len(lines) == room {
			return append(lines, i.dim(fit(fmt.Sprintf("  and %d more", len(p.rows)-k), width)))
		}
		lines = append(lines, v.row(&p.rows[k], width, i))
	}
	return lines
}

// The columns of a reading: two for the mark, then the tag with what is left, value, unit, age.
const (
	valueWidth = 10
	unitWidth  = 6
	ageWidth   = 7
)

func (v *view) row(r *row, width int, i ink) string {
	age := "–"
	if r.shown.at != 0 {
		age = web.Span(v.now.Sub(time.UnixMilli(r.shown.at)))
	}
	tag := width - 2 - valueWidth - unitWidth - ageWidth - 2
	mark, value := i.dim("·"), i.dim(right("waiting", valueWidth))
	switch r.shown.quality {
	case "good":
		mark, value = i.good("●"), i.bold(right(words(r.shown.value), valueWidth))
	case "uncertain":
		mark, value = i.warn("◐"), i.warn(right(words(r.shown.value), valueWidth))
	case "bad":
		mark, value = i.bad("✕"), i.bad(right("bad", valueWidth))
	}
	ageText := right(age, ageWidth)
	if r.shown.at != 0 && v.now.Sub(time.UnixMilli(r.shown.at)) > 3*time.Second {
		ageText = i.warn(ageText)
	} else {
		ageText = i.dim(ageText)
	}
	return mark + " " + fit(r.tag, tag) + " " + value + " " + i.dim(fit(r.unit, unitWidth)) + ageText
}

func (v *view) bufferLine(width int, i ink) string {
	text := fmt.Sprintf("  %s readings kept", web.Thousands(v.kept))
	if v.kept > 0 && v.oldest > time.Second {
		text += ", the oldest for " + web.Span(v.oldest)
	}
	if v.peak > 0 {
		text += fmt.Sprintf(" (most so far %s)", web.Thousands(v.peak))
	}
	bar := max(10, min(30, width-9-columns(text)))
	full := int(uint64(bar) * v.kept / max(v.peak, 100))
	if v.kept > 0 {
		full = max(full, 1)
	}
	drawn := i.water(strings.Repeat("█", full)) + i.dim(strings.Repeat("░", bar-full))
	return "buffer   " + drawn + clip(text, width-9-bar)
}

func (v *view) uplinkLine(width int, i ink) string {
	since := web.Span(v.now.Sub(v.since))
	paint, state, rest := i.good, "● connected", "for "+since
	switch {
	case v.cut:
		paint, state, rest = i.bad, "✕ cut for "+since, " the plant goes on, the buffer fills"
	case v.state != web.StateConnected:
		paint, state, rest = i.warn, "◐ mended, the gateway is", v.state
	case v.kept > caughtUp:
		rest = " the buffer drains"
	}
	return "uplink   " + paint(state) + " " + clip(rest, width-10-columns(state))
}

// words writes a JSON value for a narrow column: numbers with about five figures, texts without quotes and
// without anything a terminal would obey.
func words(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return "?"
	}
	switch v := v.(type) {
	case float64:
		return number(v)
	case bool:
		if v {
			return "on"
		}
		return "off"
	case string:
		return printable(v)
	case []any:
		var each []string
		for _, e := range v {
			if n, ok := e.(float64); ok {
				each = append(each, strconv.FormatFloat(n, 'f', 0, 64))
			}
		}
		return strings.Join(each, " ")
	}
	return printable(string(raw))
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func number(v float64) string {
	size, decimals := max(v, -v), 1
	switch {
	case v == float64(int64(v)) && size < 1e9:
		return strconv.FormatInt(int64(v), 10)
	case size < 0.01 || size >= 1e8:
		return strconv.FormatFloat(v, 'g', 4, 64)
	case size < 10:
		decimals = 3
	case size < 1000:
		decimals = 2
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

func columns(s string) int { return len([]rune(s)) }

// clip cuts s to width columns, fit also fills it up, right fills it from the left.
func clip(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string(r[:width-1]) + "…"
}

func fit(s string, width int) string {
	s = clip(s, width)
	return s + strings.Repeat(" ", max(0, width-columns(s)))
}

func right(s string, width int) string {
	s = clip(s, width)
	return strings.Repeat(" ", max(0, width-columns(s))) + s
}
