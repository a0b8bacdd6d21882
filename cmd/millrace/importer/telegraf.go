package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// The parts of a Telegraf config that matter: the three styles of inputs.modbus.
type (
	telegrafFile struct {
		Agent struct {
			Interval string `toml:"interval"`
		} `toml:"agent"`
		Inputs struct {
			Modbus []telegrafModbus `toml:"modbus"`
		} `toml:"inputs"`
	}
	telegrafModbus struct {
		Name       string            `toml:"name"`
		Interval   string            `toml:"interval"`
		SlaveID    int               `toml:"slave_id"`
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
		} `toml:"workarounds"`
		devices []*Device // that came of it
	}
	telegrafRequest struct {
		SlaveID     int             `toml:"slave_id"`
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
	"ABCDEFGH": "ABCD", "GHEFCDAB": "CDAB", "BADCFEHG": "BADC", "HGFEDCBA": "DCBA"}

var telegrafTypes = map[string]string{"INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64",
	"FLOAT32": "float32", "FLOAT64": "float64", "FLOAT32-IEEE": "float32", "FLOAT64-IEEE": "float64", "STRING": "string", "BIT": "bool",
	"FLOAT16": "float16", "INT8L": "int8", "INT8H": "int8", "UINT8L": "uint8", "UINT8H": "uint8"}

// telegraf reads the inputs.modbus of a Telegraf config.
func telegraf(b *builder, data []byte) error {
	var f telegrafFile
	if err := toml.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("read TOML: %w", err)
	}
	for i := range f.Inputs.Modbus {
		m := &f.Inputs.Modbus[i]
		where := fmt.Sprintf("inputs.modbus %d %q", i+1, m.Name)
		m.Interval = cmp.Or(m.Interval, f.Agent.Interval)
		m.read(b, where)
	}
	var all any
	if err := toml.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("read TOML: %w", err)
	}
	unread(b, "toml", all, f)
	return nil
}

func (m *telegrafModbus) read(b *builder, where string) {
	for _, l := range []struct {
		table  string
		fields []telegrafField
	}{{"discrete", m.Discrete}, {"coil", m.Coils}, {"holding", m.Holding}, {"input", m.Input}} {
		for i := range l.fields {
			m.add(b, where, m.SlaveID, l.table, "", "", &l.fields[i], true)
		}
	}
	for _, r := range append(m.Requests, m.Metrics...) {
		for i := range r.Fields {
			f := &r.Fields[i]
			m.add(b, where, r.SlaveID, cmp.Or(f.Register, r.Register, "holding"), r.ByteOrder, r.Measurement, f, false)
		}
	}
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
	d := m.device(b, where, unit)
	b.add(at, b.group(at, d, group, duration(b, where, m.Interval)), tag)
}

// device is the device of a unit id; what its url needs is said once, when it is made.
func (m *telegrafModbus) device(b *builder, where string, unit int) *Device {
	url, remark := controllerURL(m.Controller, m.BaudRate, m.Parity, m.StopBits, m.DataBits, m.Mode)
	before := len(b.result.Devices)
	d := b.device(where, m.Name, url, unit)
	if len(b.result.Devices) > before {
		if remark != "" {
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
	return &workarounds{a.AfterConnect, a.Between, a.Close, a.Location}
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

// controllerURL turns controller settings into a url of ours.
func controllerURL(controller string, baud int, parity string, stop, data int, mode string) (url, remark string) {
	scheme, rest, _ := strings.Cut(controller, "://")
	mode = strings.ToUpper(mode)
	switch {
	case controller == "":
		return "", ""
	case scheme == "tcp" && (mode == "RTUOVERTCP" || mode == "RTU"):
		return "rtuovertcp://" + rest, ""
	case scheme == "tcp" && mode == "ASCIIOVERTCP":
		return "asciiovertcp://" + rest, ""
	case scheme == "tcp":
		return controller, ""
	case scheme == "file":
		word := map[string]string{"N": "none", "E": "even", "O": "odd"}[strings.ToUpper(parity)]
		framing := "rtu"
		if mode == "ASCII" {
			framing = "ascii"
		}
		return fmt.Sprintf("%s://%s?baud=%d&parity=%s&stop=%d&data=%d", framing, rest, cmp.Or(baud, 9600), cmp.Or(word, "none"), cmp.Or(stop, 1), cmp.Or(data, 8)), ""
	}
	return "", fmt.Sprintf("controller %q was not understood; put the device's url in place of that below", controller)
}

// tag translates a field; listed is the register style, whose address is the list of the registers.
func (f *telegrafField) tag(listed bool, table, order string) (tag Tag, number, bit int, err error) {
	addresses, err := f.addresses()
	if err != nil {
		return tag, 0, 0, err
	}
	tag, bit = Tag{Name: f.Name, Scale: f.Scale, Length: f.Length}, -1
	if table == "coil" || table == "discrete" {
		return tag, addresses[0], bit, nil
	}
	word := strings.ToUpper(cmp.Or(f.DataType, f.Type, "UINT16"))
	switch {
	case word == "FIXED" || word == "UFIXED": // an integer as wide as its registers
		word = strings.Replace(word, "FIXED", fmt.Sprintf("INT%d", 16*len(addresses)), 1)
	case word == "FLOAT32" && listed:
		return tag, 0, 0, fmt.Errorf("type FLOAT32 is Telegraf's old fixed point, not a float; choose the type by hand")
	}
	if tag.Type = telegrafTypes[word]; tag.Type == "" {
		return tag, 0, 0, fmt.Errorf("type %q has no counterpart; choose a type of drivers/modbus/README.md by hand", word)
	}
	if tag.Type == "bool" && f.Bit == nil {
		return tag, 0, 0, fmt.Errorf("type BIT needs a bit; write it by hand")
	}
	if tag.Type == "bool" {
		bit = *f.Bit
	}
	if strings.HasSuffix(word, "8H") {
		tag.Byte = "high"
	}
	if listed && tag.Type == "string" {
		tag.Length = 2 * len(addresses)
	} else if tag.Type == "string" {
		tag.Length = 2 * f.Length // registers
	} else {
		tag.Length = 0
	}
	if listed && tag.Type != "string" && tag.Type != "bool" && len(addresses) != types[tag.Type]/16 {
		return tag, 0, 0, fmt.Errorf("its %d registers do not fit its type %s; write it by hand", len(addresses), tag.Type)
	}
	return tag, addresses[0], bit, tag.setOrder(order, &bit)
}

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
		return fmt.Errorf("byte order %q swaps the bytes of its one register, which no type here does; write two tags of type uint8, one with byte: high", name)
	default:
		t.Order = order
	}
	return nil
}

// addresses returns the registers of a field, which must follow each other.
func (f *telegrafField) addresses() ([]int, error) {
	if n, ok := f.Address.(int64); ok && n >= 0 && n <= lastRegister {
		return []int{int(n)}, nil
	}
	list, ok := f.Address.([]any)
	if !ok || len(list) == 0 || len(list) > 125 {
		return nil, fmt.Errorf("its address is neither a register of 0 to 65535 nor a list of 1 to 125; write it by hand")
	}
	var out []int
	for i, a := range list {
		n, ok := a.(int64)
		if !ok || n < 0 || n > lastRegister || i > 0 && int(n) != out[i-1]+1 {
			return nil, fmt.Errorf("its registers do not follow each other; write the tag by hand")
		}
		out = append(out, int(n))
	}
	return out, nil
}
