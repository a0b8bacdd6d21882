package importer

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

const lastRegister = 65535

// types has the bits of the registers of each type of the driver.
var types = map[string]int{"int8": 16, "uint8": 16, "uint16": 16, "int16": 16, "float16": 16, "bcd16": 16, "bcd32": 32, "uint32": 32, "int32": 32, "float32": 32, "uint64": 64, "int64": 64, "float64": 64}

var tables = map[byte]string{'0': "coil", '1': "discrete", '3': "input", '4': "holding"}

// manualForm is an address of manuals: 400101, 40101, 400101.3 (a bit), 400101.20H (a string of 20 bytes).
var manualForm = regexp.MustCompile(`^([0134])(\d{4,5})(?:\.(\d{1,3})([HLhl]?))?$`)

// manual is such an address taken apart. Its number is 0-based.
type manual struct {
	table  string
	number int
	bit    int // -1 = none
	length int // of a string, 0 = none
	low    bool
}

// parseManual reads an address of manuals. first is what the first register is called: 1, or 0 on devices whose
// numbers are those of the wire.
func parseManual(text string, first int) (manual, error) {
	m := manualForm.FindStringSubmatch(text)
	if m == nil {
		return manual{}, fmt.Errorf("address %q is not of the form 400101, 400101.3 or 400101.20H; write it by hand", text)
	}
	n, _ := strconv.Atoi(m[2]) // five digits at most
	a := manual{table: tables[m[1][0]], number: n - first, bit: -1}
	if a.number < 0 || a.number > lastRegister {
		return manual{}, fmt.Errorf("address %q is outside of its table of 65536; write it by hand", text)
	}
	if m[3] == "" {
		return a, nil
	}
	n, _ = strconv.Atoi(m[3])
	bits := a.table == "coil" || a.table == "discrete"
	switch {
	case bits:
		return manual{}, fmt.Errorf("address %q has a bit, and a coil has none; write it by hand", text)
	case m[4] != "" && n >= 1 && n <= 250:
		a.length, a.low = n, strings.EqualFold(m[4], "l")
	case m[4] == "" && n <= 15:
		a.bit = n
	default:
		return manual{}, fmt.Errorf("address %q: a bit is 0 to 15 and a string 1 to 250 bytes; write it by hand", text)
	}
	return a, nil
}

// unscale takes the scaling away from a tag that can have none.
func (t *Tag) unscale() {
	t.unscaled = t.Scale != 0 && t.Scale != 1 || t.Offset != 0 || t.Clamp != ""
	t.Scale, t.Offset, t.Clamp = 0, 0, ""
}

// settle fills in where the tag stands and checks that its type fits there.
func (t *Tag) settle(table string, number, bit int) error {
	if number < 0 || number > lastRegister {
		return fmt.Errorf("register %d is out of range; use 0 to %d", number, lastRegister)
	}
	t.Address = fmt.Sprintf("%s:%d", table, number)
	if table == "coil" || table == "discrete" {
		t.Type, t.Order = "", ""
		t.unscale()
		return nil
	}
	if bit >= 0 {
		if bit > 15 {
			return fmt.Errorf("a register has no bit %d; use 0 to 15", bit)
		}
		t.Address += fmt.Sprintf(".%d", bit)
		t.Type, t.Order = "", ""
		t.unscale()
		return nil
	}
	words := types[t.Type] / 16
	if t.Type == "string" || t.Type == "bytes" {
		t.unscale()
		if t.Length < 1 || t.Length > 250 {
			return fmt.Errorf("a length of %d bytes is out of range; use 1 to 250", t.Length)
		}
		words = (t.Length + 1) / 2
	}
	if words == 0 {
		return fmt.Errorf("type %q is not known to the driver; write the tag by hand", t.Type)
	}
	if number+words-1 > lastRegister {
		return fmt.Errorf("its %d registers from %d on end behind the last, %d; write it by hand", words, number, lastRegister)
	}
	if words == 1 {
		t.Order = ""
	}
	return nil
}
