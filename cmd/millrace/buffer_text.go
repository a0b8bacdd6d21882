package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/telemetry"
)

// maxNesting is how deep arrays in arrays are written out.
const maxNesting = 31

// valueText writes a value without losing a bit of a number. "" is no value.
func valueText(v telemetry.Value, nesting int) string {
	switch v.Kind {
	case telemetry.KindBool:
		return strconv.FormatBool(v.Bits != 0)
	case telemetry.KindInt:
		return strconv.FormatInt(int64(v.Bits), 10)
	case telemetry.KindUint:
		return strconv.FormatUint(v.Bits, 10)
	case telemetry.KindFloat32:
		return floatText(float64(math.Float32frombits(uint32(v.Bits))), 32)
	case telemetry.KindFloat64:
		return floatText(math.Float64frombits(v.Bits), 64)
	case telemetry.KindString:
		return strings.ToValidUTF8(v.Text, "\uFFFD")
	case telemetry.KindTime:
		return v.AsTime().Format(time.RFC3339Nano)
	case telemetry.KindArray:
		if nesting < maxNesting {
			return arrayText(v, nesting)
		}
	}
	return ""
}

// floatText writes a number as JSON does, with an exponent only where it is very large or very small.
func floatText(x float64, bits int) string {
	if size := math.Abs(x); size != 0 && (size < 1e-6 || size >= 1e21) {
		return strconv.FormatFloat(x, 'g', -1, bits)
	}
	return strconv.FormatFloat(x, 'f', -1, bits)
}

func arrayText(v telemetry.Value, nesting int) string {
	var out strings.Builder
	out.WriteByte('[')
	n := 0
	v.Elements(func(e telemetry.Value) bool {
		if n++; n > 1 {
			out.WriteByte(',')
		}
		if e.Kind == telemetry.KindString {
			out.WriteString(strconv.Quote(e.Text))
		} else {
			out.WriteString(valueText(e, nesting+1))
		}
		return true
	})
	out.WriteByte(']')
	return out.String()
}

// progress tells a person at a terminal how far long work is, on standard error.
type progress struct {
	verb  string
	shown bool // something was
	quiet bool
	last  time.Time
}

func newProgress(verb string) *progress {
	return &progress{verb: verb, quiet: !isTerminal(os.Stderr), last: time.Now()}
}

// bytes tells of bytes done.
func (p *progress) bytes(done, total int64) {
	if p.due() {
		p.show(fmt.Sprintf("%s of %s", size(float64(done)), size(float64(total))), float64(done)/float64(max(total, 1)))
	}
}

// records tells of records done.
func (p *progress) records(done, total uint64) {
	if p.due() {
		p.show(fmt.Sprintf("record %d of %d", done, total), float64(done)/float64(max(total, 1)))
	}
}

func (p *progress) due() bool {
	return !p.quiet && time.Since(p.last) >= 200*time.Millisecond
}

func (p *progress) show(text string, part float64) {
	const width = 30
	p.last, p.shown = time.Now(), true
	full := int(min(max(part, 0), 1) * width)
	fmt.Fprintf(os.Stderr, "\r%s [%s%s] %3.0f %%, %s\x1b[K", p.verb, strings.Repeat("=", full), strings.Repeat(" ", width-full), 100*part, text)
}

// end takes the line away again.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}
