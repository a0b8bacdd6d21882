package importer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"millrace/drivers/telemetry"
	"millrace/gateway/web"
)

// Bounds of foreign texts, in bytes. A config takes descriptions of at most 256.
const (
	maxRemark      = 300
	maxDescription = 256
)

// WriteYAML writes the devices as a list that a config can include, with the problems as comments at its top.
func (r *Result) WriteYAML(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "# %s imported", web.Count(uint64(r.Tags), "tag"))
	if n := len(r.Problems) + r.Unnamed; n > 0 {
		fmt.Fprintf(out, "; %s:", web.Count(uint64(n), "remark"))
	}
	fmt.Fprintln(out)
	for _, p := range r.Problems {
		fmt.Fprintf(out, "# %s\n", oneLine(p.String(), maxRemark))
	}
	if r.Unnamed > 0 {
		fmt.Fprintf(out, "# and %d more\n", r.Unnamed)
	}
	for _, d := range r.Devices {
		if d.tags() > 0 {
			d.write(out)
		}
	}
	return out.Flush()
}

func (d *Device) tags() int {
	n := 0
	for _, g := range d.Groups {
		n += len(g.Tags)
	}
	return n
}

func (d *Device) write(out *bufio.Writer) {
	fmt.Fprintf(out, "- name: %s\n  driver: modbus\n  url: %s\n  unit: %d\n", quoted(d.Name), quoted(d.URL), d.Unit)
	if d.Order != "" {
		fmt.Fprintf(out, "  order: %s\n", d.Order)
	}
	if d.Timeout > 0 {
		fmt.Fprintf(out, "  timeout: %s\n", telemetry.Short(d.Timeout))
	}
	for _, o := range d.Options {
		fmt.Fprintf(out, "  %s: %s\n", o[0], o[1])
	}
	fmt.Fprintln(out, "  groups:")
	for _, g := range d.Groups {
		if len(g.Tags) == 0 {
			continue
		}
		fmt.Fprintf(out, "    - name: %s\n      interval: %s\n      tags:\n", quoted(g.Name), telemetry.Short(g.Interval))
		for i := range g.Tags {
			g.Tags[i].write(out)
		}
	}
}

func (t *Tag) write(out *bufio.Writer) {
	if t.Expr != "" {
		fmt.Fprintf(out, "        - {name: %s, expr: %s", quoted(t.Name), quoted(t.Expr))
	} else {
		fmt.Fprintf(out, "        - {name: %s, address: %q", quoted(t.Name), t.Address)
	}
	for _, k := range [][2]string{{"type", t.Type}, {"order", t.Order}} {
		if k[1] != "" {
			fmt.Fprintf(out, ", %s: %s", k[0], k[1])
		}
	}
	if t.Byte != "" {
		fmt.Fprintf(out, ", byte: %s", t.Byte)
	}
	if t.Length > 0 {
		fmt.Fprintf(out, ", length: %d", t.Length)
	}
	if t.Invalid != "" {
		fmt.Fprintf(out, ", invalid: %s", quoted(t.Invalid))
	}
	if t.Scale != 0 && t.Scale != 1 {
		fmt.Fprintf(out, ", scale: %s", number(t.Scale))
	}
	if t.Offset != 0 {
		fmt.Fprintf(out, ", offset: %s", number(t.Offset))
	}
	if t.Clamp != "" {
		fmt.Fprintf(out, ", clamp: %s", t.Clamp)
	}
	if t.Unit != "" {
		fmt.Fprintf(out, ", unit: %s", quoted(t.Unit))
	}
	if d := strings.TrimSpace(oneLine(t.Description, maxDescription)); d != "" {
		fmt.Fprintf(out, ", description: %s", quoted(d))
	}
	fmt.Fprintln(out, "}")
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// quoted is a text in double quotes. JSON's are YAML's; a ${ of a foreign file must not name a variable of ours.
func quoted(s string) string {
	var b, out strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(strings.ReplaceAll(strings.ToValidUTF8(s, "-"), "${", "$${")); err != nil {
		panic("BUG: " + err.Error()) // a string always marshals
	}
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if unprintable(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.WriteRune(r)
		}
	}
	return out.String()
}

// unprintable tells what YAML refuses outside of an escape, and JSON does not escape.
func unprintable(r rune) bool {
	return r >= 0x7f && r <= 0x9f || r == 0xfeff || r == 0xfffe || r == 0xffff
}

// oneLine makes a foreign text one line of at most so many bytes without control characters.
func oneLine(s string, most int) string {
	return clip(strings.Map(func(r rune) rune {
		if r < ' ' || unprintable(r) || r == 0x2028 || r == 0x2029 || r == utf8.RuneError {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "-")), most)
}
