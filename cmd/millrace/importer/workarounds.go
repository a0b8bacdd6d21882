package importer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/telemetry"
)

// workarounds are what Telegraf, and benthos-umh after it, do for the sake of a device.
type workarounds struct {
	afterConnect, between string
	closeAfter            bool
	location              string // of a character in a register: lower, upper, both or ""
	registers             int    // the most of a request, 0 = not said
}

// options returns those that are options of ours.
func (w *workarounds) options(b *builder, where string) [][2]string {
	var out [][2]string
	for _, o := range []struct {
		name, text string
		most       time.Duration
	}{{"pause_after_connect", w.afterConnect, 30 * time.Second}, {"pause_between_requests", w.between, 10 * time.Second}} {
		d := duration(b, where, o.text)
		if d > o.most {
			b.problem(where, "%s %s became %s, which is the most", o.name, o.text, telemetry.Short(o.most))
			d = o.most
		}
		if d > 0 {
			out = append(out, [2]string{o.name, telemetry.Short(d)})
		}
	}
	if w.registers > 0 && w.registers < 125 {
		out = append(out, [2]string{"max_registers", strconv.Itoa(w.registers)})
	}
	if w.closeAfter {
		out = append(out, [2]string{"close_after_poll", "true"})
	}
	return out
}

// set gives a device its options; an older one keeps its own.
func (w *workarounds) set(b *builder, where string, d *Device, fresh bool) {
	if fresh {
		d.Options = w.options(b, where)
	} else if !slices.Equal(d.Options, w.options(&builder{result: &Result{}}, where)) {
		b.problem(where, "its workarounds differ from those of the same device above, which were taken; compare them")
	}
}

// fits says why a string cannot be translated.
func (w *workarounds) fits(t *Tag) error {
	if t.Type != "string" || w.location == "" || strings.EqualFold(w.location, "both") {
		return nil
	}
	return fmt.Errorf("its characters are in one byte of each register only (string register location %q); %s", w.location, eachCharacter)
}

// eachCharacter is what to do about a string that no type of the driver is.
const eachCharacter = "write a tag of type uint8 for each character, with byte: high where it stands in the high byte"
