package importer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// kepwareTypes are Kepware's names of data types in ours. Those that are missing have no counterpart.
var kepwareTypes = map[string]string{"short": "int16", "word": "uint16", "long": "int32", "dword": "uint32", "float": "float32",
	"double": "float64", "llong": "int64", "qword": "uint64", "bcd": "bcd16", "lbcd": "bcd32", "string": "string", "boolean": "bool", "default": "uint16", "": "uint16"}

// kepwareCodes are the numbers that a JSON project has for them.
var kepwareCodes = map[int]string{-1: "default", 0: "string", 1: "boolean", 2: "char", 3: "byte", 4: "short", 5: "word", 6: "long",
	7: "dword", 8: "float", 9: "double", 10: "bcd", 11: "lbcd", 12: "date", 13: "llong", 14: "qword"}

// kepwareTag is a tag as both of Kepware's forms have it.
type kepwareTag struct {
	name, address, dataType, unit, description string
	interval                                   time.Duration
	scaling                                    string // "", none, linear or another
	rawLow, rawHigh, low, high                 float64
	clampLow, clampHigh, negate                bool
	first                                      int // what the device calls its first register
}

// kepwareCSV reads the export of a device's tags.
func kepwareCSV(b *builder, data []byte) error {
	t, err := openTable(data, "Tag Name", "Address", "Data Type")
	if err != nil {
		return err
	}
	d := b.device("the file", "", "", 1)
	d.Order = "CDAB"
	b.problem("the file", "it does not say the device's order of words, so Kepware's default CDAB (\"first word low\") was taken; change the order where that was off")
	for {
		line, err := t.next()
		if errors.Is(err, io.EOF) {
			t.sayUnread(b)
			return nil
		}
		if err != nil {
			return err
		}
		k := kepwareTag{name: t.get("Tag Name"), address: t.get("Address"), dataType: t.get("Data Type"), unit: t.get("Eng Units", "Engineering Units"),
			description: t.get("Description"), scaling: t.get("Scaling"), first: 1}
		where := fmt.Sprintf("%s, tag %q", line, k.name)
		ms, ok := t.number("Scan Rate")
		if !ok {
			b.problem(where, "scan rate %q is no number; the default was taken", t.get("Scan Rate"))
		}
		k.interval = millis(ms)
		k.numbers(b, where, t)
		k.add(b, where, d)
	}
}

func (k *kepwareTag) numbers(b *builder, where string, t *table) {
	var ok [4]bool
	k.rawLow, ok[0] = t.number("Raw Low")
	k.rawHigh, ok[1] = t.number("Raw High")
	k.low, ok[2] = t.number("Scaled Low")
	k.high, ok[3] = t.number("Scaled High")
	if ok != [4]bool{true, true, true, true} {
		k.scaling = "unreadable"
	}
	k.clampLow, k.clampHigh = yes(t.get("Clamp Low")), yes(t.get("Clamp High"))
	k.negate = yes(t.get("Negate Value"))
}

func yes(s string) bool {
	return s == "1" || strings.EqualFold(s, "true") || strings.EqualFold(s, "yes")
}

// millis is a time in milliseconds, within the bounds of a poll group; 0 = not said.
func millis(ms float64) time.Duration {
	return time.Duration(min(max(ms, 0), 86_400_000)) * time.Millisecond
}

// arrayForm is the address of a list of values: 400300 [4].
var arrayForm = regexp.MustCompile(`^(\d{5,6}) ?\[(\d{1,3})\]$`)

// elements makes a tag of each element of an array.
func (k *kepwareTag) elements(b *builder, where string, d *Device, address, count string) {
	word, _, _ := strings.Cut(strings.ToLower(k.dataType), " array")
	words := types[kepwareTypes[word]] / 16
	n, _ := strconv.Atoi(count) // three digits at most
	first, _ := strconv.Atoi(address)
	table := strings.TrimLeft(address, "34")
	if words == 0 || n < 1 || n*words > 125 || len(table) != len(address)-1 {
		b.problem(where, "left out: address %q is no array of numbers in 1 to 125 registers; write its elements by hand", k.address)
		return
	}
	b.problem(where, "the array became %d tags, %s[0] and so on", n, k.name)
	for i := range n {
		one := *k
		one.name, one.dataType = fmt.Sprintf("%s[%d]", k.name, i), word
		one.address = fmt.Sprintf("%0*d", len(address), first+i*words)
		one.add(b, where, d)
	}
}

// add translates the tag and puts it into the group of its interval.
func (k *kepwareTag) add(b *builder, where string, d *Device) {
	if m := arrayForm.FindStringSubmatch(k.address); m != nil {
		k.elements(b, where, d, m[1], m[2])
		return
	}
	a, err := parseManual(k.address, k.first)
	if err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	typ, ok := kepwareTypes[strings.ToLower(k.dataType)]
	if !ok {
		b.problem(where, "left out: data type %q has no counterpart; choose a type of drivers/modbus/README.md by hand", k.dataType)
		return
	}
	bits := a.table == "coil" || a.table == "discrete"
	if typ == "bool" && !bits && a.bit < 0 || typ == "string" && a.length == 0 {
		b.problem(where, "left out: address %q has no bit (such as 400101.3) or length (such as 400101.20H) for a %s; write it by hand", k.address, typ)
		return
	}
	tag := Tag{Name: k.name, Type: typ, Unit: k.unit, Description: k.description, Length: a.length}
	if a.length > 0 {
		tag.Type = "string"
		if a.low {
			tag.Order = "BADC"
		}
	}
	k.scale(b, where, &tag)
	if err := tag.settle(a.table, a.number, a.bit); err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	b.add(where, b.group(where, d, "", k.interval), tag)
}

// scale turns two pairs of limits into scale and offset.
func (k *kepwareTag) scale(b *builder, where string, t *Tag) {
	switch strings.ToLower(k.scaling) {
	case "", "none":
	case "linear":
		if k.rawHigh == k.rawLow || k.high == k.low {
			b.problem(where, "its scaling goes from one value to the same; set scale and offset by hand")
			break
		}
		t.Scale = (k.high - k.low) / (k.rawHigh - k.rawLow)
		t.Offset = k.low - k.rawLow*t.Scale
	default:
		b.problem(where, "scaling %q was not translated; values are raw", k.scaling)
	}
	if k.negate {
		t.Scale, t.Offset = -cmp.Or(t.Scale, 1), -t.Offset
		k.low, k.high = 0-k.low, 0-k.high // not -0
	}
	switch {
	case t.Scale == 0 || !strings.EqualFold(k.scaling, "linear") || !k.clampLow && !k.clampHigh:
	case k.clampLow && k.clampHigh:
		t.Clamp = number(min(k.low, k.high)) + ".." + number(max(k.low, k.high))
	default:
		b.problem(where, "values are not clamped, because clamp has two limits and the file one; set clamp by hand")
	}
}

// The parts of a JSON project that matter. Kepware writes properties under dotted names.
type (
	kepwareProject struct {
		Project struct {
			Channels []kepwareChannel `json:"channels"`
		} `json:"project"`
	}
	kepwareChannel struct {
		Name    string          `json:"common.ALLTYPES_NAME"`
		Driver  string          `json:"servermain.MULTIPLE_TYPES_DEVICE_DRIVER"`
		Devices []kepwareDevice `json:"devices"`
	}
	kepwareDevice struct {
		Name      string `json:"common.ALLTYPES_NAME"`
		ID        string `json:"servermain.DEVICE_ID_STRING"`
		Port      *int   `json:"modbus_ethernet.DEVICE_ETHERNET_PORT_NUMBER"`
		ZeroBased *bool  `json:"modbus_ethernet.DEVICE_ZERO_BASED_ADDRESSING"`
		ByteOrder *bool  `json:"modbus_ethernet.DEVICE_MODBUS_BYTE_ORDER"`
		WordLow   *bool  `json:"modbus_ethernet.DEVICE_FIRST_WORD_LOW"`
		DWordLow  *bool  `json:"modbus_ethernet.DEVICE_FIRST_DWORD_LOW"`
		kepwareFolder
	}
	kepwareFolder struct {
		Tags   []kepwareJSONTag     `json:"tags"`
		Groups []kepwareNamedFolder `json:"tag_groups"`
	}
	kepwareNamedFolder struct {
		Name string `json:"common.ALLTYPES_NAME"`
		kepwareFolder
	}
	kepwareJSONTag struct {
		Name        string  `json:"common.ALLTYPES_NAME"`
		Description string  `json:"common.ALLTYPES_DESCRIPTION"`
		Address     string  `json:"servermain.TAG_ADDRESS"`
		Type        *int    `json:"servermain.TAG_DATA_TYPE"`
		Rate        float64 `json:"servermain.TAG_SCAN_RATE_MILLISECONDS"`
		Scaling     int     `json:"servermain.TAG_SCALING_TYPE"`
		RawLow      float64 `json:"servermain.TAG_SCALING_RAW_LOW"`
		RawHigh     float64 `json:"servermain.TAG_SCALING_RAW_HIGH"`
		Low         float64 `json:"servermain.TAG_SCALING_SCALED_LOW"`
		High        float64 `json:"servermain.TAG_SCALING_SCALED_HIGH"`
		ClampLow    bool    `json:"servermain.TAG_SCALING_CLAMP_LOW"`
		ClampHigh   bool    `json:"servermain.TAG_SCALING_CLAMP_HIGH"`
		Negate      bool    `json:"servermain.TAG_SCALING_NEGATE_VALUE"`
		Units       string  `json:"servermain.TAG_SCALING_UNITS"`
	}
)

// kepwareJSON reads a whole project.
func kepwareJSON(b *builder, data []byte) error {
	var p kepwareProject
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	var all any
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	for _, ch := range p.Project.Channels {
		if !strings.Contains(strings.ToLower(ch.Driver), "modbus") {
			b.problem(fmt.Sprintf("channel %q", ch.Name), "left out: its driver is %q, and only Modbus is imported", ch.Driver)
			continue
		}
		for _, d := range ch.Devices {
			d.read(b, fmt.Sprintf("channel %q, device %q", ch.Name, d.Name))
		}
	}
	unread(b, "json", all, p)
	return nil
}

// idForm is a device's ID: <192.168.1.5>.1, or the unit id alone on a serial channel.
var idForm = regexp.MustCompile(`^(?:<([^<>/\s"]{1,253})>\.)?(\d{1,3})$`)

func (k *kepwareDevice) read(b *builder, where string) {
	unit, url := 1, ""
	if m := idForm.FindStringSubmatch(k.ID); m == nil {
		b.problem(where, "ID %q has no unit id; 1 was taken", k.ID)
	} else if unit, _ = strconv.Atoi(m[2]); unit > 255 {
		b.problem(where, "unit id %d is out of range; 1 was taken", unit)
		unit = 1
	} else if m[1] != "" {
		url = "tcp://" + m[1] + ":" + strconv.Itoa(k.port(b, where))
	}
	d := b.device(where, k.Name, url, unit)
	d.Order = k.order(b, where)
	k.walk(b, where, d, "", k.first(), maxDepth)
}

func (k *kepwareDevice) port(b *builder, where string) int {
	if k.Port == nil {
		return 502
	}
	if *k.Port < 1 || *k.Port > 65535 {
		b.problem(where, "port %d is out of range; 502 was taken", *k.Port)
		return 502
	}
	return *k.Port
}

// first is what the device calls its first register; Kepware subtracts 1 unless told otherwise.
func (k *kepwareDevice) first() int {
	if k.ZeroBased != nil && !*k.ZeroBased {
		return 0
	}
	return 1
}

// order translates Kepware's switches, all on by default.
func (k *kepwareDevice) order(b *builder, where string) string {
	on := func(p *bool) bool { return p == nil || *p }
	if on(k.WordLow) != on(k.DWordLow) {
		b.problem(where, "\"first word low\" and \"first dword low\" differ, which none of ABCD, BADC, CDAB and DCBA says; set the order of 64 bit tags by hand")
	}
	switch {
	case on(k.ByteOrder) && on(k.WordLow):
		return "CDAB"
	case on(k.ByteOrder):
		return "ABCD"
	case on(k.WordLow):
		return "DCBA"
	}
	return "BADC"
}

// walk reads a folder of tags and those in it; a tag's name begins with those of its folders.
func (f *kepwareFolder) walk(b *builder, where string, d *Device, prefix string, first, depth int) {
	for i := range f.Tags {
		f.Tags[i].add(b, where, d, prefix, first)
	}
	if depth == 0 && len(f.Groups) > 0 {
		b.problem(where, "left out: the tag groups under %q, which nest over %d deep; write their tags by hand", prefix, maxDepth)
		return
	}
	for i := range f.Groups {
		g := &f.Groups[i]
		g.walk(b, where, d, prefix+g.Name+".", first, depth-1)
	}
}

func (j *kepwareJSONTag) add(b *builder, where string, d *Device, prefix string, first int) {
	code := -1
	if j.Type != nil {
		code = *j.Type
	}
	typ, ok := kepwareCodes[code]
	if !ok {
		if typ, ok = kepwareCodes[code-20]; ok && code >= 20 {
			typ += " array"
		} else {
			typ = fmt.Sprintf("number %d", code)
		}
	}
	scaling, ok := map[int]string{0: "none", 1: "linear", 2: "square root"}[j.Scaling]
	if !ok {
		scaling = fmt.Sprintf("number %d", j.Scaling)
	}
	k := kepwareTag{name: prefix + j.Name, address: j.Address, dataType: typ, unit: j.Units, description: j.Description, interval: millis(j.Rate),
		scaling: scaling, rawLow: j.RawLow, rawHigh: j.RawHigh, low: j.Low, high: j.High, clampLow: j.ClampLow, clampHigh: j.ClampHigh, negate: j.Negate, first: first}
	k.add(b, fmt.Sprintf("%s, tag %q", where, k.name), d)
}
