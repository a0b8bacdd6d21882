package importer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kepwareTypes are Kepware's names of data types in ours. Those that are missing have no counterpart.
var kepwareTypes = map[string]string{"short": "int16", "word": "uint16", "long": "int32", "dword": "uint32", "float": "float32",
	"double": "float64", "llong": "int64", "qword": "uint64", "bcd": "bcd16", "lbcd": "bcd32", "string": "string", "boolean": "bool"}

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
	access, scaledType                         string
	notNumber                                  string // a limit that is none
	device                                     *kepwareManner
}

// kepwareManner is how a device counts and orders; the zero value is not Kepware's default, kepwareDefault is.
type kepwareManner struct {
	first       int    // what the first register is called
	firstBit    int    // what the first bit of a register is called
	bitsAround  bool   // bit 0 is the most significant
	order       string // of numbers of several registers
	no64        bool   // the order of 64 bits is none that the driver has
	decimalLong bool   // Long and DWord are two registers of four decimal digits
}

var kepwareDefault = kepwareManner{first: 1, order: "CDAB"}

// kepwareCSV reads the export of a device's tags.
func kepwareCSV(b *builder, data []byte) error {
	t, err := openTable(b, data, "Tag Name", "Address", "Data Type")
	if err != nil {
		return err
	}
	var d *Device
	for {
		line, err := t.next()
		if errors.Is(err, io.EOF) {
			t.sayUnread()
			return nil
		}
		if err != nil {
			return err
		}
		if d == nil {
			d = b.device("the file", "", "", b.unit("the file"))
			d.Order = kepwareDefault.order
			b.problem("the file", "it does not say how the device orders words and counts, so Kepware's defaults were taken: CDAB (\"first word low\"), the first register is 400001, the first bit .0; "+
				"change order and addresses where that was off")
		}
		k := kepwareTag{name: t.get("Tag Name"), address: t.get("Address"), dataType: t.get("Data Type"), unit: t.get("Eng Units", "Engineering Units"),
			description: t.get("Description"), scaling: t.get("Scaling"), access: t.get("Client Access"), scaledType: t.get("Scaled Data Type"), device: &kepwareDefault}
		where := fmt.Sprintf("%s, tag %q", line, k.name)
		ms, ok := t.number("Scan Rate")
		if !ok {
			b.problem(where, "scan rate %q is no number; the default was taken", t.get("Scan Rate"))
		}
		k.interval = millis(ms)
		k.numbers(t)
		k.add(b, where, d)
	}
}

func (k *kepwareTag) numbers(t *table) {
	for _, c := range []struct {
		name string
		x    *float64
	}{{"Raw Low", &k.rawLow}, {"Raw High", &k.rawHigh}, {"Scaled Low", &k.low}, {"Scaled High", &k.high}} {
		var ok bool
		if *c.x, ok = t.number(c.name); !ok {
			k.notNumber = c.name + " " + strconv.Quote(clip(t.get(c.name), 60))
		}
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
	if access := strings.ToUpper(k.access); access == "WO" {
		b.problem(where, "left out: it can only be written (Client Access WO)")
		return
	} else if strings.Contains(access, "W") {
		b.count(writable)
	}
	a, err := parseManual(k.address, k.device.first)
	if err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	tag := Tag{Name: k.name, Unit: k.unit, Description: k.description, Length: a.length}
	if err := k.typed(b, where, &tag, &a); err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	k.scale(b, where, &tag)
	if err := tag.settle(a.table, a.number, a.bit); err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	b.add(where, b.group(where, d, "", k.interval), tag)
}

// typed sets the type of the tag, and its order and bit as the device has them.
func (k *kepwareTag) typed(b *builder, where string, tag *Tag, a *manual) error {
	word := strings.ToLower(k.dataType)
	bits := a.table == "coil" || a.table == "discrete"
	switch typ, ok := kepwareTypes[word]; {
	case a.length > 0:
		tag.Type = "string"
		if a.low {
			tag.Order = "BADC"
		}
		return nil
	case bits || a.bit >= 0:
		tag.Type = "bool"
	case word == "" || word == "default":
		tag.Type = "uint16"
		b.problem(where, "its data type is %s, so Kepware's own for a register, Word, was taken (uint16); set type where the device has another", cmp.Or(k.dataType, "empty"))
	case !ok:
		return fmt.Errorf("data type %q has no counterpart; choose a type of drivers/modbus/README.md by hand", k.dataType)
	case typ == "bool" || typ == "string":
		return fmt.Errorf("address %q has no bit (such as 400101.3) or length (such as 400101.20H) for a %s; write it by hand", k.address, typ)
	default:
		tag.Type = typ
	}
	if a.bit >= 0 {
		if a.bit -= k.device.firstBit; a.bit < 0 || a.bit > 15 {
			return fmt.Errorf("address %q has no bit of a register whose bits are %d to %d; write it by hand", k.address, k.device.firstBit, k.device.firstBit+15)
		}
		if k.device.bitsAround {
			a.bit = 15 - a.bit
		}
	}
	if k.device.decimalLong && (word == "long" || word == "dword") {
		return errors.New("the device holds it as registers of four decimal digits each; write it by hand, with type mod10k32")
	}
	if k.device.no64 && types[tag.Type] == 64 {
		return errors.New("\"first word low\" and \"first dword low\" of the device differ, which none of ABCD, BADC, CDAB and DCBA says; write two tags of 32 bits by hand")
	}
	if bits {
		return nil
	}
	err := tag.setOrder(k.device.order, &a.bit)
	tag.Order = "" // the device's
	return err
}

// scale turns two pairs of limits into scale and offset.
func (k *kepwareTag) scale(b *builder, where string, t *Tag) {
	switch scaling := strings.ToLower(k.scaling); {
	case scaling == "" || scaling == "none":
	case scaling == "linear" && k.notNumber != "":
		b.problem(where, "%s is no number, so values are raw; set scale and offset by hand", k.notNumber)
	case scaling == "linear":
		if k.rawHigh == k.rawLow || k.high == k.low {
			b.problem(where, "its scaling goes from one value to the same; set scale and offset by hand")
			break
		}
		if whole := strings.ToLower(k.scaledType); whole != "" && whole != "float" && whole != "double" {
			b.count(fmt.Sprintf("scaled to whole numbers there (Scaled Data Type %s), with decimals here", clip(k.scaledType, 60)))
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

// The parts of a JSON project that matter. Kepware writes properties under dotted names, of which the first part is the
// driver's: modbus_ethernet and others, here all modbus.
type (
	kepwareProject struct {
		Project *struct {
			Channels []kepwareChannel `json:"channels"`
		} `json:"project"`
	}
	kepwareChannel struct {
		Name    string          `json:"common.ALLTYPES_NAME"`
		Driver  string          `json:"servermain.MULTIPLE_TYPES_DEVICE_DRIVER"`
		Devices []kepwareDevice `json:"devices"`
	}
	kepwareDevice struct {
		Name      string  `json:"common.ALLTYPES_NAME"`
		ID        string  `json:"servermain.DEVICE_ID_STRING"`
		Collected *bool   `json:"servermain.DEVICE_DATA_COLLECTION"`
		Simulated bool    `json:"servermain.DEVICE_SIMULATED"`
		ScanMode  int     `json:"servermain.DEVICE_SCAN_MODE"`
		ScanRate  float64 `json:"servermain.DEVICE_SCAN_MODE_RATE_MS"`
		Timeout   float64 `json:"servermain.DEVICE_REQUEST_TIMEOUT_MILLISECONDS"`
		Delay     float64 `json:"servermain.DEVICE_INTER_REQUEST_DELAY_MILLISECONDS"`
		Port      *int    `json:"modbus.DEVICE_ETHERNET_PORT_NUMBER"`
		Protocol  *int    `json:"modbus.DEVICE_ETHERNET_IP_PROTOCOL"` // 0 UDP, 1 TCP
		ZeroBased *bool   `json:"modbus.DEVICE_ZERO_BASED_ADDRESSING"`
		ZeroBits  *bool   `json:"modbus.DEVICE_ZERO_BASED_BIT_ADDRESSING"`
		ByteOrder *bool   `json:"modbus.DEVICE_MODBUS_BYTE_ORDER"`
		WordLow   *bool   `json:"modbus.DEVICE_FIRST_WORD_LOW"`
		DWordLow  *bool   `json:"modbus.DEVICE_FIRST_DWORD_LOW"`
		BitOrder  bool    `json:"modbus.DEVICE_MODICON_BIT_ORDER"`
		Decimal   bool    `json:"modbus.DEVICE_TREAT_LONGS_AS_DOUBLE_PRECISION_UNSIGNED_DECIMAL"`
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
		Access      any     `json:"servermain.TAG_READ_WRITE_ACCESS"` // 0 or false: it is only read
		Rate        float64 `json:"servermain.TAG_SCAN_RATE_MILLISECONDS"`
		Scaling     int     `json:"servermain.TAG_SCALING_TYPE"`
		RawLow      float64 `json:"servermain.TAG_SCALING_RAW_LOW"`
		RawHigh     float64 `json:"servermain.TAG_SCALING_RAW_HIGH"`
		ScaledType  *int    `json:"servermain.TAG_SCALING_SCALED_DATA_TYPE"`
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
	all, err := fromJSON(data)
	if err != nil {
		return err
	}
	oneDriver(all)
	var p kepwareProject
	doc, err := fill(b, "json", all, &p)
	if err != nil {
		return err
	}
	if p.Project == nil {
		return errors.New("it has no project, as a project that Kepware saved as JSON has; save the whole project (File, Save As, JSON)")
	}
	for _, ch := range p.Project.Channels {
		if !strings.Contains(strings.ToLower(ch.Driver), "modbus") {
			b.problem(fmt.Sprintf("channel %q", ch.Name), "left out: its driver is %q, and only Modbus is imported", ch.Driver)
			continue
		}
		for _, d := range ch.Devices {
			d.read(b, fmt.Sprintf("channel %q, device %q", ch.Name, d.Name), ch.Driver)
		}
	}
	doc.sayStrays()
	return nil
}

// driverKey is a property of a device of one of the Modbus drivers.
var driverKey = regexp.MustCompile(`^modbus\w*\.(DEVICE_\w+)$`)

// oneDriver gives the properties that are read the same names with all Modbus drivers, wherever they stand.
func oneDriver(v any) {
	properties, device := &document{tag: "json"}, reflect.ValueOf(kepwareDevice{})
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			oneDriver(one)
		}
	case map[string]any:
		for _, key := range slices.Collect(maps.Keys(v)) {
			oneDriver(v[key])
			if m := driverKey.FindStringSubmatch(key); m != nil && properties.field(device, "modbus."+m[1]).IsValid() {
				one := v[key]
				delete(v, key)
				v["modbus."+m[1]] = one
			}
		}
	}
}

// idForm is a device's ID: <192.168.1.5>.1, or the unit id alone on a serial channel.
var idForm = regexp.MustCompile(`^(?:<([^<>/\s"]{1,253})>\.)?(\d{1,3})$`)

func (k *kepwareDevice) read(b *builder, where, driver string) {
	unit, url := 1, ""
	if m := idForm.FindStringSubmatch(k.ID); m == nil {
		b.problem(where, "ID %q has no unit id, so 1 was taken; set unit where it is another", k.ID)
	} else if unit, _ = strconv.Atoi(m[2]); unit > 255 {
		b.problem(where, "unit id %d is out of range, so 1 was taken; set unit to one of 0 to 255", unit)
		unit = 1
	} else if m[1] != "" {
		url = k.scheme(driver) + m[1] + ":" + strconv.Itoa(k.port(b, where))
	}
	if url == "" && strings.Contains(strings.ToLower(driver), "serial") {
		b.problem(where, "it stands on a serial line (%s), which was not translated; its url is such as rtu:///dev/ttyUSB0?baud=9600&parity=none", driver)
	}
	d := b.device(where, k.Name, url, unit)
	manner := k.manner()
	d.Order = manner.order
	k.timing(b, where, d)
	k.walk(b, where, d, "", manner, maxDepth)
}

// scheme is that of the url of a device with an address.
func (k *kepwareDevice) scheme(driver string) string {
	driver = strings.ToLower(driver)
	switch udp := k.Protocol != nil && *k.Protocol == 0; {
	case strings.Contains(driver, "ascii"):
		return "asciiovertcp://"
	case strings.Contains(driver, "rtu"):
		return "rtuovertcp://"
	case udp:
		return "udp://"
	}
	return "tcp://"
}

// timing translates how the device is asked, and says what is special about it.
func (k *kepwareDevice) timing(b *builder, where string, d *Device) {
	d.Timeout = millis(k.Timeout)
	around := workarounds{}
	if k.Delay > 0 {
		around.between = millis(k.Delay).String()
	}
	around.set(b, where, d, true)
	if k.Collected != nil && !*k.Collected {
		b.problem(where, "its data collection is off there, and here it is read; delete it where that is not wanted")
	}
	if k.Simulated {
		b.problem(where, "it is simulated there, and here it is read; delete it where that is not wanted")
	}
	if k.ScanMode != 0 {
		b.problem(where, "its scan mode is %d with %g ms, and the scan rates of its tags were taken; compare the intervals", k.ScanMode, k.ScanRate)
	}
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

// manner translates Kepware's switches. Those that are pointers are on by default.
func (k *kepwareDevice) manner() *kepwareManner {
	on := func(p *bool) bool { return p == nil || *p }
	m := &kepwareManner{order: "BADC", bitsAround: k.BitOrder, no64: on(k.WordLow) != on(k.DWordLow), decimalLong: k.Decimal}
	if on(k.ZeroBased) {
		m.first = 1 // Kepware subtracts 1
	}
	if !on(k.ZeroBits) {
		m.firstBit = 1
	}
	switch {
	case on(k.ByteOrder) && on(k.WordLow):
		m.order = "CDAB"
	case on(k.ByteOrder):
		m.order = "ABCD"
	case on(k.WordLow):
		m.order = "DCBA"
	}
	return m
}

// walk reads a folder of tags and those in it; a tag's name begins with those of its folders.
func (f *kepwareFolder) walk(b *builder, where string, d *Device, prefix string, manner *kepwareManner, depth int) {
	for i := range f.Tags {
		f.Tags[i].add(b, where, d, prefix, manner)
	}
	if depth == 0 && len(f.Groups) > 0 {
		b.problem(where, "left out: the tag groups under %q, which nest over %d deep; write their tags by hand", prefix, maxDepth)
		return
	}
	for i := range f.Groups {
		g := &f.Groups[i]
		g.walk(b, where, d, prefix+g.Name+".", manner, depth-1)
	}
}

func (j *kepwareJSONTag) add(b *builder, where string, d *Device, prefix string, manner *kepwareManner) {
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
		scaling: scaling, rawLow: j.RawLow, rawHigh: j.RawHigh, low: j.Low, high: j.High, clampLow: j.ClampLow, clampHigh: j.ClampHigh, negate: j.Negate, device: manner}
	if j.ScaledType != nil {
		k.scaledType = kepwareCodes[*j.ScaledType]
	}
	if j.Access != nil && j.Access != false && j.Access != int64(0) {
		k.access = "R/W"
	}
	k.add(b, fmt.Sprintf("%s, tag %q", where, k.name), d)
}
