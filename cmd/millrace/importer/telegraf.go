package importer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The parts of a Telegraf config that matter: the three styles of inputs.modbus.
type (
	telegrafFile struct {
		Agent struct {
			Interval string `toml:"interval"`
		} `toml:"agent"`
		Inputs struct {
			Modbus *[]telegrafModbus `toml:"modbus"`
		} `toml:"inputs"`
	}
	telegrafModbus struct {
		Name       string            `toml:"name"`
		Interval   string            `toml:"interval"`
		SlaveID    *int              `toml:"slave_id"`
		Timeout    string            `toml:"timeout"`
		Controller string            `toml:"controller"`
		BaudRate   int               `toml:"baud_rate"`
		Parity     string            `toml:"parity"`
		StopBits   int               `toml:"stop_bits"`
		DataBits   int               `toml:"data_bits"`
		Style      string            `toml:"configuration_type"` // seen by what there is
		Mode       string            `toml:"transmission_mode"`
		Discrete   []telegrafField   `toml:"discrete_inputs"`
		Coils      []telegrafField   `toml:"coils"`
		Holding    []telegrafField   `toml:"holding_registers"`
		Input      []telegrafField   `toml:"input_registers"`
		Requests   []telegrafRequest `toml:"request"`
		Metrics    []telegrafRequest `toml:"metric"`
		Around     struct {
			AfterConnect string `toml:"pause_after_connect"`
			Between      string `toml:"pause_between_requests"`
			Close        bool   `toml:"close_connection_after_gather"`
			Location     string `toml:"string_register_location"`
			Registers    int    `toml:"max_word_registers_per_request"`
		} `toml:"workarounds"`
		devices []*Device // that came of it
	}
	telegrafRequest struct {
		SlaveID     *int            `toml:"slave_id"`
		ByteOrder   string          `toml:"byte_order"`
		Register    string          `toml:"register"`
		Measurement string          `toml:"measurement"`
		Fields      []telegrafField `toml:"fields"`
	}
	telegrafField struct {
		Name      string  `toml:"name"`
		Address   any     `toml:"address"` // a list in the register style, a number in the others
		Register  string  `toml:"register"`
		ByteOrder string  `toml:"byte_order"`
		DataType  string  `toml:"data_type"`
		Type      string  `toml:"type"`
		Scale     float64 `toml:"scale"`
		Length    int     `toml:"length"`
		Bit       *int    `toml:"bit"`
		Omit      bool    `toml:"omit"`
	}
)

// wordOrders are the names of orders that others use, in ours.
var wordOrders = map[string]string{"": "", "AB": "ABCD", "BA": "DCBA", "ABCD": "ABCD", "CDAB": "CDAB", "BADC": "BADC", "DCBA": "DCBA",
	"MSW-BE": "ABCD", "MSW": "ABCD", "MSW-LE": "BADC", "LSW-BE": "CDAB", "LSW-LE": "DCBA", "LSW": "DCBA", "ABCDEFGH": "ABCD", "GHEFCDAB": "CDAB", "BADCFEHG": "BADC", "HGFEDCBA": "DCBA"}

var telegrafTypes = map[string]string{"INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64",
	"FLOAT32": "float32", "FLOAT64": "float64", "FLOAT32-IEEE": "float32", "FLOAT64-IEEE": "float64", "STRING": "string", "BIT": "bool",
	"FLOAT16": "float16", "FLOAT16-IEEE": "float16", "INT8L": "int8", "INT8H": "int8", "UINT8L": "uint8", "UINT8H": "uint8"}

// telegraf reads the inputs.modbus of a Telegraf config.
func telegraf(b *builder, data []byte) error {
	all, err := fromTOML(data)
	if err != nil {
		return err
	}
	var f telegrafFile
	doc, err := fill(b, "toml", all, &f)
	if err != nil {
		return err
	}
	if f.Inputs.Modbus == nil {
		return errors.New("it has no [[inputs.modbus]], as a config of Telegraf for Modbus has; see whether it is the right file")
	}
	for i := range *f.Inputs.Modbus {
		m := &(*f.Inputs.Modbus)[i]
		m.Interval = cmp.Or(m.Interval, f.Agent.Interval)
		m.read(b, fmt.Sprintf("inputs.modbus %d %q", i+1, m.Name))
	}
	doc.sayStrays()
	return nil
}

func (m *telegrafModbus) read(b *builder, where string) {
	for _, l := range []struct {
		table  string
		fields []telegrafField
	}{{"discrete", m.Discrete}, {"coil", m.Coils}, {"holding", m.Holding}, {"input", m.Input}} {
		if len(l.fields) == 0 {
			continue
		}
		unit := slaveID(b, where, m.SlaveID)
		for i := range l.fields {
			m.add(b, where, unit, l.table, "", "", &l.fields[i], true)
		}
	}
	for i, r := range append(m.Requests, m.Metrics...) {
		unit := slaveID(b, fmt.Sprintf("%s, request or metric %d", where, i+1), r.SlaveID)
		for i := range r.Fields {
			f := &r.Fields[i]
			m.add(b, where, unit, cmp.Or(f.Register, r.Register, "holding"), r.ByteOrder, r.Measurement, f, false)
		}
	}
}

// slaveID is a unit id, which is 0 in Telegraf where it does not stand.
func slaveID(b *builder, where string, id *int) int {
	if id != nil {
		return *id
	}
	b.problem(where, "it has no slave_id, so 0 was taken, as Telegraf does; set unit where the device has another")
	return 0
}

func (m *telegrafModbus) add(b *builder, where string, unit int, table, order, group string, f *telegrafField, listed bool) {
	if f.Omit {
		return // a gap that the request reads across
	}
	at := fmt.Sprintf("%s, field %q", where, f.Name)
	tag, number, bit, err := f.tag(listed, table, cmp.Or(f.ByteOrder, order))
	if err == nil {
		err = tag.settle(table, number, bit)
	}
	if err == nil {
		err = m.around().fits(&tag)
	}
	if err == nil && (unit < 0 || unit > 255) {
		err = fmt.Errorf("unit id %d is out of range; use 0 to 255", unit)
	}
	if err == nil && table != "coil" && table != "discrete" && table != "input" && table != "holding" {
		err = fmt.Errorf("there is no register %q; use holding, input, coil or discrete", table)
	}
	if err != nil {
		b.problem(at, "left out: %v", err)
		return
	}
	countBool(b, &tag)
	d := m.device(b, where, unit)
	b.add(at, b.group(at, d, group, duration(b, where, m.Interval)), tag)
}

// device is the device of a unit id; what its url needs is said once, when it is made.
func (m *telegrafModbus) device(b *builder, where string, unit int) *Device {
	url, remarks := controllerURL(m.Controller, m.BaudRate, m.Parity, m.StopBits, m.DataBits, m.Mode)
	before := len(b.result.Devices)
	d := b.device(where, m.Name, url, unit)
	if len(b.result.Devices) > before {
		for _, remark := range remarks {
			b.problem(where, "%s", remark)
		}
		d.Timeout = duration(b, where, m.Timeout)
		m.around().set(b, where, d, true)
		m.devices = append(m.devices, d)
	} else if !slices.Contains(m.devices, d) {
		m.around().set(b, where, d, false)
		m.devices = append(m.devices, d)
	}
	return d
}

func (m *telegrafModbus) around() *workarounds {
	a := &m.Around
	return &workarounds{a.AfterConnect, a.Between, a.Close, a.Location, a.Registers}
}

// duration reads a duration as Telegraf writes it; 0 = not said.
func duration(b *builder, where, text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		b.problem(where, "duration %q was not understood; the default was taken", text)
		return 0
	}
	return d
}

// controllerURL turns controller settings into a url, and says what it could not.
func controllerURL(controller string, baud int, parity string, stop, data int, mode string) (url string, remarks []string) {
	scheme, rest, _ := strings.Cut(controller, "://")
	mode = strings.ToUpper(mode)
	if !slices.Contains([]string{"", "AUTO", "TCP", "RTU", "ASCII", "RTUOVERTCP", "ASCIIOVERTCP"}, mode) {
		remarks = append(remarks, fmt.Sprintf("transmission mode %q is not known and was not translated; change the url where it is off", mode))
	}
	switch {
	case controller == "":
		return "", remarks
	case scheme == "tcp" && (mode == "RTUOVERTCP" || mode == "RTU"):
		return "rtuovertcp://" + rest, remarks
	case scheme == "tcp" && mode == "ASCIIOVERTCP":
		return "asciiovertcp://" + rest, remarks
	case scheme == "tcp":
		return controller, remarks
	case scheme == "file":
		word, known := map[string]string{"N": "none", "E": "even", "O": "odd"}[strings.ToUpper(parity)]
		if baud == 0 || !known {
			remarks = append(remarks, fmt.Sprintf("it has no baud_rate, or no parity of N, E or O (%q), so 9600 and none stand in the url for what is missing; compare with the device", parity))
		}
		framing := "rtu"
		if mode == "ASCII" {
			framing = "ascii"
		}
		return fmt.Sprintf("%s://%s?baud=%d&parity=%s&stop=%d&data=%d", framing, rest, cmp.Or(baud, 9600), cmp.Or(word, "none"), cmp.Or(stop, 1), cmp.Or(data, 8)), remarks
	}
	return "", append(remarks, fmt.Sprintf("controller %q was not understood; put the device's url in place of that below", controller))
}

// tag translates a field; listed is the register style, whose address is the list of the registers.
func (f *telegrafField) tag(listed bool, table, order string) (tag Tag, number, bit int, err error) {
	addresses, err := f.addresses()
	if err != nil {
		return tag, 0, 0, err
	}
	tag = Tag{Name: f.Name, Scale: f.Scale, Length: f.Length}
	word := strings.ToUpper(cmp.Or(f.DataType, f.Type))
	if table == "coil" || table == "discrete" {
		return tag, addresses[0], -1, onlyBit(f.Bit, "COIL")
	}
	switch {
	case word == "":
		return tag, 0, 0, errors.New("it has no type; write it by hand")
	case word == "FIXED" || word == "UFIXED": // an integer as wide as its registers
		word = strings.Replace(word, "FIXED", fmt.Sprintf("INT%d", 16*len(addresses)), 1)
	case word == "FLOAT32" && listed:
		return tag, 0, 0, errors.New("type FLOAT32 is Telegraf's old fixed point, not a float; choose the type by hand")
	}
	if bit, err = tag.typed(word, f.Bit); err != nil {
		return tag, 0, 0, err
	}
	if listed && tag.Type == "string" {
		tag.Length = 2 * len(addresses)
	} else if tag.Type == "string" {
		tag.Length = 2 * min(f.Length, 1000) // registers
	} else {
		tag.Length = 0
	}
	if listed && tag.Type != "string" && tag.Type != "bool" && len(addresses) != types[tag.Type]/16 {
		return tag, 0, 0, fmt.Errorf("its %d registers do not fit its type %s; write it by hand", len(addresses), tag.Type)
	}
	return tag, addresses[0], bit, tag.setOrder(order, &bit)
}

// typed sets the type that Telegraf and benthos-umh call so; bit is that of a bool, -1 of all others.
func (t *Tag) typed(word string, given *int) (bit int, err error) {
	if t.Type = telegrafTypes[word]; t.Type == "" {
		return 0, fmt.Errorf("type %q has no counterpart; choose a type of drivers/modbus/README.md by hand", word)
	}
	if strings.HasSuffix(word, "8H") {
		t.Byte = "high"
	}
	if t.Type != "bool" {
		return -1, onlyBit(given, word)
	}
	if given == nil {
		return 0, errors.New("type BIT needs a bit; write it by hand")
	}
	if *given < 0 || *given > 15 {
		return 0, fmt.Errorf("a register has no bit %d; use 0 to 15", *given)
	}
	return *given, nil
}

// onlyBit refuses a bit where there is none: nobody can know which of the two was meant.
func onlyBit(bit *int, word string) error {
	if bit == nil || *bit == 0 {
		return nil
	}
	if word == "COIL" {
		return fmt.Errorf("it has bit %d, and a coil or discrete input has none; write it by hand", *bit)
	}
	return fmt.Errorf("it has bit %d and type %s, and only type BIT has a bit; write it by hand, as a number or as the bit", *bit, word)
}

// countBool counts a tag whose values are 1 and 0 in Telegraf and benthos-umh.
func countBool(b *builder, t *Tag) {
	if t.Type == "" { // settled as a bit
		b.count("true and false here, 1 and 0 there unless its output is BOOL; see to it where the values are used")
	}
}

// swapsOne is what no type of the driver does.
const swapsOne = "swaps the bytes of its one register, which no type here does; write two tags of type uint8, one with byte: high"

// setOrder translates the name of an order. One that swaps the bytes of a register does so in one register, too.
func (t *Tag) setOrder(name string, bit *int) error {
	order, ok := wordOrders[strings.ToUpper(name)]
	if !ok {
		return fmt.Errorf("byte order %q is not known; choose an order by hand", name)
	}
	swapped := order == "BADC" || order == "DCBA"
	switch {
	case t.Type == "bool" && swapped && *bit >= 0 && *bit <= 15:
		*bit ^= 8
	case t.Type == "bool":
	case t.Type == "int8" || t.Type == "uint8":
		if swapped {
			t.Byte = map[string]string{"": "high", "high": ""}[t.Byte]
		}
	case t.Type == "string":
		t.Order = map[bool]string{true: "BADC", false: ""}[swapped]
	case types[t.Type] == 16 && swapped:
		return fmt.Errorf("byte order %q %s", name, swapsOne)
	default:
		t.Order = order
	}
	return nil
}

// addresses returns the registers of a field, which must follow each other.
func (f *telegrafField) addresses() ([]int, error) {
	list, ok := f.Address.([]any)
	if !ok && f.Address != nil {
		list = []any{f.Address}
	}
	if len(list) == 0 || len(list) > 125 {
		return nil, fmt.Errorf("it has %d addresses, and a tag has 1 to 125; write it by hand", len(list))
	}
	var out []int
	for _, a := range list {
		n, ok := a.(int64)
		if !ok {
			return nil, fmt.Errorf("its address is %s, and a register is a whole number; write it by hand", kindOf(a))
		}
		if n < 0 || n > lastRegister {
			return nil, fmt.Errorf("its address %d is out of range; a register is 0 to %d, as on the wire", n, lastRegister)
		}
		if len(out) > 0 && int(n) != out[len(out)-1]+1 {
			return nil, errors.New("its registers do not follow each other; write the tag by hand")
		}
		out = append(out, int(n))
	}
	return out, nil
}
