package importer

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var neuronTypes = map[string]string{"int16": "int16", "uint16": "uint16", "word": "uint16", "int32": "int32", "uint32": "uint32", "dword": "uint32",
	"int64": "int64", "uint64": "uint64", "lword": "uint64", "float": "float32", "double": "float64", "string": "string", "bytes": "bytes", "bit": "bool", "bool": "bool"}

// neuronOrders are the suffixes of an address. The first letter is the order of the words, the second that of the bytes.
var neuronOrders = map[string]string{"BB": "ABCD", "BL": "BADC", "LB": "CDAB", "LL": "DCBA"}

// Lengths in addresses: D and E are a character in the high or low byte of each register.
var (
	lengthAlone = regexp.MustCompile(`\.\d+$`)
	oneByte     = regexp.MustCompile(`\.\d+[DEde]$`)
)

// neuronCSV reads the tags of a node as Neuron exports them, saved as CSV.
func neuronCSV(b *builder, data []byte) error {
	t, err := openTable(b, data, "group", "name", "address", "type")
	if err != nil {
		return err
	}
	saidOrder, saidFirst := false, false
	for {
		line, err := t.next()
		if errors.Is(err, io.EOF) {
			t.sayUnread()
			return nil
		}
		if err != nil {
			return err
		}
		where := fmt.Sprintf("%s, tag %q", line, t.get("name"))
		ms, ok := t.number("interval")
		group, node := t.get("group"), t.get("node")
		tag, unit, a, err := neuronTag(t)
		if err == nil {
			err = neuronAccess(b, t.get("attribute"))
		}
		if err == nil {
			err = tag.settle(a.table, a.number, a.bit)
		}
		if err != nil {
			b.problem(where, "left out: %v", err)
			continue
		}
		if !saidFirst {
			b.problem("the file", "it does not say what the node calls its first register, so Neuron's default was taken, 1; where its start address is 0 add 1 to each address")
			saidFirst = true
		}
		if !saidOrder && types[tag.Type] > 16 && tag.Order == "" {
			b.problem("the file", "it does not say the node's order of bytes, so ABCD was taken; change the order where the node has another")
			saidOrder = true
		}
		if !ok {
			b.problem(where, "interval %q is no number; the default was taken", t.get("interval"))
		}
		d := b.device("the file", node, "", unit)
		b.add(where, b.group(where, d, group, millis(ms)), tag)
	}
}

// neuronAttributes are the bits of an attribute that is a number, and their names.
var neuronAttributes = []string{"read", "write", "subscribe", "static"}

// neuronAccess says what a tag's attribute means here, or why it is none that is read.
func neuronAccess(b *builder, text string) error {
	has := map[string]bool{}
	if n, err := strconv.ParseUint(text, 0, 4); err == nil {
		for bit, name := range neuronAttributes {
			has[name] = n>>bit&1 == 1
		}
	} else {
		for _, word := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return strings.ContainsRune(" ,;|/&+\n", r) }) {
			if !slices.Contains(neuronAttributes, word) {
				return fmt.Errorf("its attribute %q is none of Read, Write, Subscribe and Static; write it by hand", text)
			}
			has[word] = true
		}
	}
	switch {
	case has["static"]:
		return errors.New("a static tag has a fixed value and is read from no device")
	case has["write"] && !has["read"] && !has["subscribe"]:
		return errors.New("it can only be written (attribute Write)")
	case !has["read"] && !has["subscribe"]:
		b.count("without an attribute and taken as tags to read; delete what is none")
	}
	if has["write"] {
		b.count(writable)
	}
	if has["subscribe"] {
		b.count("sent there when changed (Subscribe) and here after each poll; set report: on-change where that is wanted")
	}
	return nil
}

// neuronTag reads a row: the address is 1!400001, 1!400001.4, 1!400001.20H or 1!400001#BB.
func neuronTag(t *table) (tag Tag, unit int, a manual, err error) {
	tag = Tag{Name: t.get("name"), Description: t.get("description"), Unit: t.get("unit")}
	typ := strings.ToLower(t.get("type"))
	if tag.Type = neuronTypes[typ]; tag.Type == "" {
		return tag, 0, a, fmt.Errorf("type %q has no counterpart; choose a type of drivers/modbus/README.md by hand", t.get("type"))
	}
	station, rest, ok := strings.Cut(t.get("address"), "!")
	if unit, err = strconv.Atoi(station); !ok || err != nil || unit < 0 || unit > 255 {
		return tag, 0, a, fmt.Errorf("address %q does not begin with a unit id of 0 to 255, such as 1!; write it by hand", t.get("address"))
	}
	text, suffix, hasSuffix := strings.Cut(rest, "#")
	long := tag.Type == "string" || tag.Type == "bytes"
	if long && oneByte.MatchString(text) {
		return tag, 0, a, fmt.Errorf("address %q has a character in one byte of each register only; %s", rest, eachCharacter)
	}
	if long && lengthAlone.MatchString(text) {
		text += "H" // Neuron's default
	}
	if a, err = parseManual(text, 1); err != nil {
		return tag, 0, a, err
	}
	if hasSuffix {
		if tag.Order, ok = neuronOrders[strings.ToUpper(suffix)]; !ok && !(strings.EqualFold(suffix, "B")) {
			return tag, 0, a, fmt.Errorf("the order #%.20q is not known; choose an order by hand", suffix)
		}
	}
	if swapped := tag.Order == "BADC" || tag.Order == "DCBA"; swapped && types[tag.Type] == 16 {
		return tag, 0, a, fmt.Errorf("the order #%s %s", suffix, swapsOne)
	}
	if tag.Length = a.length; a.length > 0 && a.low {
		tag.Order = "BADC"
	}
	bits := a.table == "coil" || a.table == "discrete"
	if tag.Type == "bool" && !bits && a.bit < 0 {
		return tag, 0, a, fmt.Errorf("address %q has no bit for a bool, such as 400001.4; write it by hand", rest)
	}
	if long != (a.length > 0) {
		return tag, 0, a, errors.New("a length such as .20H belongs to the address of a string or of bytes, and of nothing else; write the tag by hand")
	}
	return tag, unit, a, neuronScale(t, &tag)
}

func neuronScale(t *table, tag *Tag) error {
	var ok [2]bool
	if tag.Scale, ok[0] = t.number("decimal"); !ok[0] {
		return fmt.Errorf("its decimal %q is no number; write the tag with scale by hand", clip(t.get("decimal"), 60))
	}
	if tag.Offset, ok[1] = t.number("bias"); !ok[1] {
		return fmt.Errorf("its bias %q is no number; write the tag with offset by hand", clip(t.get("bias"), 60))
	}
	return nil
}
