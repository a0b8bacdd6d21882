package templates

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// The formulas by which drives number their parameters. Each result is 0-based, as on the wire.
const (
	danfoss = "danfoss"   // register 10 x parameter, 1-based: 16-13 is holding:16129 (Danfoss FC design guides, "parameter handling")
	abb16   = "abb-16bit" // register 100 x group + index, 1-based: 01-06 is holding:105 (ABB firmware manuals, embedded fieldbus)
	abb32   = "abb-32bit" // register 20000 + 200 x group + 2 x index, 1-based: 01-27 is holding:20253
)

const lastRegister = 65535

// addressForm is an address of the driver: a table, a number and, of a register, a bit.
var addressForm = regexp.MustCompile(`^(coil|discrete|input|holding):(\d{1,5})(?:\.(\d{1,2}))?$`)

// numbers has the bits of each type that a template may name.
var numbers = map[string]int{"int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "float32": 32, "int64": 64, "uint64": 64, "float64": 64}

// address settles where the tag stands and how many registers it takes.
func (c *checker) address(where string, f *fileTag, t *tag) {
	switch n := &f.Address; n.Kind {
	case yaml.ScalarNode:
		c.written(where, n.Value, f, t)
	case yaml.MappingNode:
		c.computed(where, n, f, t)
	default:
		c.errorf(`%s: an address is holding:100, {param: "16-13"} or {offset: 14}`, where)
	}
}

func (c *checker) written(where, text string, f *fileTag, t *tag) {
	m := addressForm.FindStringSubmatch(text)
	if m == nil {
		c.errorf("%s: address %q; write coil:7, discrete:3, input:20, holding:100 or holding:100.3", where, text)
		return
	}
	t.Address = text
	number, _ := strconv.Atoi(m[2]) // five digits at most
	if bit, _ := strconv.Atoi(m[3]); bit > 15 {
		c.errorf("%s: a register has no bit %d; use 0 (least significant) to 15", where, bit)
	}
	bits := m[1] == "coil" || m[1] == "discrete"
	if bits && m[3] != "" {
		c.errorf("%s: %s is a single bit and has no bit of its own", where, text)
	}
	if bits || m[3] != "" {
		c.oneOf(where+": type of a bit", f.Type, "", "bool")
		c.fits(where, number, 1)
		return
	}
	c.fits(where, number, c.registers(where, f))
}

// computed is an address by the number of a drive's parameter or from the base of a SunSpec model.
func (c *checker) computed(where string, n *yaml.Node, f *fileTag, t *tag) {
	if len(n.Content) != 2 || n.Content[1].Kind != yaml.ScalarNode {
		c.errorf(`%s: write {param: "16-13"} or {offset: 14}`, where)
		return
	}
	words := c.registers(where, f)
	switch key, text := n.Content[0].Value, n.Content[1].Value; key {
	case "param":
		number, err := parameter(c.Formula, text)
		if err != nil {
			c.errorf("%s: %w", where, err)
			return
		}
		t.Address = fmt.Sprintf("holding:%d", number)
		c.fits(where, number, words)
	case "offset":
		offset, err := strconv.ParseUint(text, 10, 16)
		if err != nil || c.Base == nil {
			c.errorf("%s: offset %q; write 0 to 65535, and a base for the template", where, text)
			return
		}
		t.offset, t.words = int(offset), words
		c.fits(where, *c.Base+t.offset, words)
	default:
		c.errorf("%s: an address has no key %q; use param or offset", where, key)
	}
}

// parameter returns the register of a drive's parameter such as 16-13, 0-based.
func parameter(formula, text string) (int, error) {
	left, right, ok := strings.Cut(text, "-")
	g, err1 := strconv.ParseUint(left, 10, 8)
	i, err2 := strconv.ParseUint(right, 10, 8)
	if !ok || err1 != nil || err2 != nil || i > 99 || g > 99 {
		return 0, fmt.Errorf("parameter %q; write group and index, such as 16-13", text)
	}
	n := -1
	switch formula {
	case danfoss:
		n = 10*int(100*g+i) - 1
	case abb16:
		n = int(100*g+i) - 1
	case abb32:
		n = 20000 + int(200*g+2*i) - 1
	default:
		return 0, fmt.Errorf("parameter %q has no formula; name one for the template: %s, %s or %s", text, danfoss, abb16, abb32)
	}
	if n < 0 {
		return 0, fmt.Errorf("parameter %q has no register", text)
	}
	return n, nil
}

// registers returns how many registers a value takes.
func (c *checker) registers(where string, f *fileTag) int {
	if f.Type == "string" {
		c.within(where+": length", f.Length, 1, 250)
		return (f.Length + 1) / 2
	}
	if f.Length != 0 {
		c.errorf("%s: only a string has a length", where)
	}
	if numbers[f.Type] == 0 {
		c.errorf("%s: type %q is not known; use int16, uint16, int32, uint32, float32, int64, uint64, float64 or string", where, f.Type)
	}
	return numbers[f.Type] / 16
}

func (c *checker) fits(where string, number, words int) {
	if number+max(words, 1)-1 > lastRegister {
		c.errorf("%s: register %d with %d registers ends behind %d", where, number, words, lastRegister)
	}
}

// invalidOf turns the values that mean "not available" into decimal text of the tag's type, before scaling: 0x8000
// of an int16 becomes -32768, so that no reader needs to know the width.
func (c *checker) invalidOf(where, typ string, values []string) string {
	if len(values) > 16 {
		c.errorf("%s: 16 values at most", where)
		return ""
	}
	out := make([]string, 0, len(values))
	for _, v := range values {
		s, ok := invalidValue(typ, strings.TrimSpace(v))
		if !ok {
			c.errorf("%s: %q is no %s; write numbers like 65535 or 0x8000, or NaN for a float", where, v, typ)
			continue
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
}

func invalidValue(typ, text string) (string, bool) {
	bits := numbers[typ]
	if bits == 0 {
		return "", false
	}
	if strings.HasPrefix(typ, "float") {
		x, err := strconv.ParseFloat(text, bits)
		return strconv.FormatFloat(x, 'g', -1, bits), err == nil && !math.IsInf(x, 0)
	}
	if u, err := strconv.ParseUint(text, 0, bits); err == nil {
		if strings.HasPrefix(typ, "uint") {
			return strconv.FormatUint(u, 10), true
		}
		return strconv.FormatInt(int64(u)<<(64-bits)>>(64-bits), 10), strings.HasPrefix(text, "0x") || u>>(bits-1) == 0
	}
	i, err := strconv.ParseInt(text, 0, bits)
	return strconv.FormatInt(i, 10), err == nil && strings.HasPrefix(typ, "int")
}
