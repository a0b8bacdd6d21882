package modbus

import (
	"fmt"
	"strconv"
	"strings"
)

// table is one of the four tables of the Modbus data model.
type table uint8

const (
	coil table = iota
	discrete
	input
	holding
)

var tableNames = [...]string{coil: "coil", discrete: "discrete", input: "input", holding: "holding"}

func (t table) String() string { return tableNames[t] }

// bits reports whether the table holds single bits, not registers.
func (t table) bits() bool { return t == coil || t == discrete }

// lastRegister is the highest address of a table (Modbus Application Protocol V1.1b3, 4.4).
const lastRegister = 65535

// address is where a tag begins.
type address struct {
	number uint32 // 0-based, as on the wire
	table  table
	bit    int8 // 0 (least significant) to 15 of a register, -1 = the whole register
	last   int8 // the last of several bits, bit for one
}

func (a address) String() string {
	if a.last > a.bit {
		return fmt.Sprintf("%s:%d.%d-%d", a.table, a.number, a.bit, a.last)
	}
	if a.bit >= 0 {
		return fmt.Sprintf("%s:%d.%d", a.table, a.number, a.bit)
	}
	return fmt.Sprintf("%s:%d", a.table, a.number)
}

// mistake is what is wrong with one word of the config, and how to mend it.
type mistake struct{ what, mend string }

// parseAddress reads "holding:100", "holding:100.3" (0-based, as on the wire) and "40101", "400101",
// "40101.3" (1-based, the data model of Modicon: 40101 is holding 100).
func parseAddress(text string) (address, *mistake) {
	word, rest, ok := strings.Cut(text, ":")
	if !ok {
		return parseModicon(text)
	}
	t, ok := parseTable(word)
	if !ok {
		return address{}, unknownTable(word, rest)
	}
	number, bitText, hasBit := strings.Cut(rest, ".")
	a := address{table: t, bit: -1, last: -1}
	n, ok := parseNumber(number)
	if !ok {
		return address{}, &mistake{fmt.Sprintf("%q is not a register number", number), fmt.Sprintf("write it like %s:100", t)}
	}
	if n > lastRegister {
		return address{}, &mistake{fmt.Sprintf("register %s is over %d", number, lastRegister), fmt.Sprintf("use 0 to %d", lastRegister)}
	}
	a.number = n
	return withBit(a, bitText, hasBit)
}

func parseTable(word string) (table, bool) {
	for t, name := range tableNames {
		if word == name {
			return table(t), true
		}
	}
	return 0, false
}

// parseNumber reads a decimal or 0x number; a number too large for a register comes back as one that is.
func parseNumber(text string) (uint32, bool) {
	base := 10
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		text, base = hex, 16
	}
	if text == "" || strings.Trim(text, "0123456789abcdefABCDEF") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, base, 32)
	if err != nil && strings.Trim(text, "0123456789") == "" {
		return lastRegister + 1, true
	}
	return uint32(n), err == nil
}

func withBit(a address, text string, hasBit bool) (address, *mistake) {
	if !hasBit {
		return a, nil
	}
	if a.table.bits() {
		return address{}, &mistake{fmt.Sprintf("%s is a single bit and has no bit %s", a, text), "did you mean " + a.String() + "?"}
	}
	low, high, ranged := strings.Cut(text, "-")
	if !ranged {
		high = low
	}
	n, ok := parseNumber(low)
	last, ok2 := parseNumber(high)
	if !ok || !ok2 || n > 15 || last > 15 || ranged && last == n {
		return address{}, &mistake{fmt.Sprintf("a register has no bit %q", text), "use bit 0 (least significant) to 15, or several like 0-3"}
	}
	a.bit, a.last = int8(min(n, last)), int8(max(n, last))
	return a, nil
}

// parseModicon reads the five and six digit numbers of the 1-based data model.
func parseModicon(text string) (address, *mistake) {
	digits, bitText, hasBit := strings.Cut(text, ".")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return address{}, &mistake{"it names no table", "write coil:7, discrete:3, input:20, holding:100 or a number like 40101"}
	}
	if len(digits) != 5 && len(digits) != 6 {
		return address{}, &mistake{"it names no table", fmt.Sprintf("did you mean holding:%s? Numbers of the 40101 kind have five or six digits", text)}
	}
	tables := map[byte]table{'0': coil, '1': discrete, '3': input, '4': holding}
	t, ok := tables[digits[0]]
	if !ok {
		return address{}, &mistake{fmt.Sprintf("no table begins with %c", digits[0]), "use 0 for coils, 1 for discrete inputs, 3 for input and 4 for holding registers"}
	}
	n, _ := strconv.Atoi(digits[1:])
	zeros := strings.Repeat("0", len(digits)-2)
	if n == 0 {
		return address{}, &mistake{"numbers of this kind begin at 1", fmt.Sprintf("the first is %c%s1, which is %s:0", digits[0], zeros, t)}
	}
	if n > lastRegister+1 {
		return address{}, &mistake{fmt.Sprintf("the last number of its table is %c65536", digits[0]), fmt.Sprintf("it is %s:%d", t, lastRegister)}
	}
	return withBit(address{table: t, number: uint32(n - 1), bit: -1, last: -1}, bitText, hasBit)
}

// tableWords are names that people give the tables elsewhere.
var tableWords = map[string]table{
	"c": coil, "co": coil, "do": coil, "output": coil, "0x": coil,
	"d": discrete, "di": discrete, "contact": discrete, "1x": discrete, "discrete_input": discrete, "discreteinput": discrete,
	"i": input, "ir": input, "ai": input, "3x": input, "input_register": input, "inputregister": input,
	"h": holding, "hr": holding, "r": holding, "reg": holding, "register": holding, "4x": holding,
	"holding_register": holding, "holdingregister": holding,
}

func unknownTable(word, rest string) *mistake {
	m := &mistake{fmt.Sprintf("there is no table %q", word), "use coil, discrete, input or holding"}
	norm := strings.TrimSuffix(strings.ReplaceAll(strings.ToLower(strings.TrimSpace(word)), "-", "_"), "s")
	t, ok := tableWords[norm]
	if !ok {
		name := nearest(norm, tableNames[:])
		if t, ok = parseTable(name); !ok {
			return m
		}
	}
	m.mend = fmt.Sprintf("did you mean %s:%s?", t, strings.TrimSpace(rest))
	return m
}

// nearest returns the candidate within two edits of the word, "" for none.
func nearest(word string, candidates []string) string {
	best, at := "", 3
	for _, c := range candidates {
		if d := edits(word, c); d < at && d < len(c) {
			best, at = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance of two words; words over 32 bytes are simply far apart.
func edits(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
