package modbus

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/peer"
)

// The defaults, with their reasons.
const (
	defaultUnit         = 1
	defaultMaxRegisters = 125 // the most that one answer can hold (Modbus Application Protocol V1.1b3, 6.3)
	defaultMaxGap       = 50  // of Ethernet, where a register costs next to nothing; as other gateways have it
	gapBehindSerial     = 16  // where a serial line of unknown speed stands behind a network: at 9600 baud a request costs as much as 13 registers
	defaultRetries      = 1   // one answer lost costs a timeout, not a reading
)

// settings are the options of one device.
type settings struct {
	id                uint8
	maxRegisters      int
	maxBits           int
	maxGap            int
	order             order
	retries           int
	acceptUnit        acceptance
	acceptTransaction acceptance
	page              codePage
	zone              *time.Location
	invalid           map[kind]string
	forbidden         []stretch
	register, request time.Duration // what a register and a request cost on the line, 0 = not known
}

// stretch is registers or bits first to last of a table.
type stretch struct {
	table       table
	first, last uint32
}

// forbids reports whether a forbidden register is among first to last.
func (s *settings) forbids(t table, first, last uint32) bool {
	for _, f := range s.forbidden {
		if f.table == t && f.first <= last && f.last >= first {
			return true
		}
	}
	return false
}

func deviceOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "unit", Example: "1", Default: strconv.Itoa(defaultUnit), Help: fmt.Sprintf("unit id behind the url, 0 to 255; default %d", defaultUnit)},
		{Name: "max_registers", Example: "125", Help: fmt.Sprintf("most registers in one request, 1 to 125; default %d, less is learned", defaultMaxRegisters)},
		{Name: "max_bits", Example: "2000", Help: "most coils or discrete inputs in one request, 1 to 2000; default 16 for each of max_registers, less is learned"},
		{Name: "max_gap", Example: "50", Help: fmt.Sprintf("registers nobody asked for that are read across rather than making another request, 0 to 124; default %d, on a serial line what its speed makes worth it, behind a network with one %d; less is learned", defaultMaxGap, gapBehindSerial)},
		{Name: "forbidden", Example: "holding:40-49", Help: "registers that no request may touch, for example holding:40-49, coil:7"},
		{Name: "order", Example: "ABCD", Help: "byte order of numbers of two or more registers: ABCD, BADC, CDAB or DCBA; default ABCD"},
		{Name: "retries", Example: "1", Help: fmt.Sprintf("how often a request without an answer is made again, 0 to 5, while the device answers otherwise (one that answers nothing any more is asked twice whatever this says); default %d", defaultRetries)},
		{Name: "accept_unit", Example: "any", Help: "unit id, or any, that is taken in answers besides the right one; default none"},
		{Name: "accept_transaction_id", Example: "0", Help: "transaction id, or any, that is taken in answers besides the right one; default none"},
		{Name: "invalid", Example: `"int16:0x8000, float32:nan"`, Help: "raw values that mean not available, by type: int16:0x8000, uint16:0xffff, float32:nan; or sunspec for all of its"},
		{Name: "code_page", Example: "auto", Help: "of strings: auto (UTF-8, else Latin-1), utf-8, latin-1 or windows-1252; default auto"},
		{Name: "time_zone", Example: "Europe/Berlin", Help: "of date-times whose digits are local time, for example Europe/Berlin; default UTC"},
	}
}

// connectionOptions are those of the line, the same for all devices on it.
func connectionOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "pause_after_connect", Example: "500ms", Help: "to wait after a connect before the first request, 0 to 30s; default learned"},
		{Name: "pause_between_requests", Example: "20ms", Help: "to wait after each answer, 0 to 10s; default learned"},
		{Name: "close_after_poll", Example: "true", Help: "true: the connection is closed after each poll, for a device with few slots; default false"},
		{Name: "connections", Example: "4", Help: "TCP connections over which the requests of a poll are spread, 1 to 8, for a device that answers them in parallel; default 1"},
		{Name: "ca_file", Example: "ca.pem", Help: "PEM file of the CAs that a tcp+tls server is checked against; default the system's", Path: true, File: true, Certificates: peer.ReadCA},
		{Name: "cert_file", Example: "client.pem", Help: "PEM file of the client certificate for tcp+tls", Path: true, File: true, Certificates: peer.ReadPair, KeyFile: "key_file"},
		{Name: "key_file", Example: "client.key", Help: "PEM file of its key", Path: true, File: true},
		{Name: "registration", Example: "gw-7", Help: "first packet of a caller of tcp-listen or rtu-listen, a text or 0x and hex digits, 1 to 64 bytes; needed where devices share a port; default none"},
		{Name: "heartbeat_packet", Example: "0xFE", Help: "what such a caller sends now and then of its own accord, likewise; default none"},
		{Name: "allow_from", Example: "10.1.0.0/16", Help: "addresses and networks from which such a caller may come, for example 10.1.0.0/16, 192.168.1.7; default everywhere"},
		{Name: "server_name", Example: "meter.example", Help: "name in the certificate of a tcp+tls server; default the url's host"},
	}
}

func tagOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "order", Example: "ABCD", Help: "byte order: ABCD, BADC, CDAB or DCBA; default the device's. A string: ABCD or BADC, default ABCD"},
		{Name: "length", Example: "16", Help: "length of a string or of bytes, 1 to 250 bytes"},
		{Name: "byte", Example: "high", Help: "of int8 and uint8: high or low byte of the register; default low"},
		{Name: "code_page", Example: "auto", Help: "of a string; default the device's"},
		{Name: "time_zone", Example: "Europe/Berlin", Help: "of a date-time; default the device's"},
		{Name: "invalid", Example: "0x8000", Help: "raw values that mean not available: 0x8000, 9999, 100..200, nan; of a string: texts. Beside those of the device"},
		{Name: "min", Example: "-40", Help: "least plausible value, scaled; one below is uncertain"},
		{Name: "max", Example: "150", Help: "greatest plausible value, scaled; one above is uncertain"},
		{Name: "enum", Example: `"0=off, 1=on"`, Help: "texts of numbers: 0=off, 1=on"},
		{Name: "read_back", Example: "true", Help: "true: a write is read back and is an error unless the device holds it; default false"},
		{Name: "write_function", Example: "23", Help: "function code that writes it: 6, 16, or 23, which reads back in the same exchange; of a coil 5 or 15; default 6 or 5, and 16 or 15 for several registers and where the device does not know those"},
		{Name: "flags", Example: `"0=door open, 3=overheated"`, Help: "texts of bits that are set: 0=door open, 3=overheated"},
	}
}

// reporter gathers mistakes and knows where it is looking.
type reporter struct {
	errs               []error
	device, group, tag int
}

func (r *reporter) add(field, what, mend string) {
	r.errs = append(r.errs, &drivers.ConfigError{Device: r.device, Group: r.group, Tag: r.tag, Field: field, What: what, Mend: mend})
}

// check adds a mistake, if there is one, and reports whether there was none.
func (r *reporter) check(field, text string, m *mistake) bool {
	if m == nil {
		return true
	}
	r.add(field, fmt.Sprintf("%s %q: %s", field, text, m.what), m.mend)
	return false
}

func (r *reporter) err() error { return errors.Join(r.errs...) }

// parseDevice reads a device's options; a mistaken one keeps its default so that the tags are checked too.
func parseDevice(d *drivers.Device, l *link, r *reporter) settings {
	o := d.Options
	s := settings{id: uint8(r.number(o, "unit", defaultUnit, 0, 255)), zone: time.UTC}
	s.register, s.request = l.cost()
	s.maxRegisters = r.number(o, "max_registers", defaultMaxRegisters, 1, 125)
	s.maxBits = r.number(o, "max_bits", 16*s.maxRegisters, 1, 16*defaultMaxRegisters)
	s.maxGap = r.number(o, "max_gap", l.gap(), 0, 124)
	s.retries = r.number(o, "retries", defaultRetries, 0, 5)
	s.acceptUnit = r.acceptance(o, "accept_unit", 255)
	s.acceptTransaction = r.acceptance(o, "accept_transaction_id", 65535)
	s.words(o, r)
	s.parseForbidden(o, r)
	s.parseInvalid(o, r)
	return s
}

// words reads the options that are words.
func (s *settings) words(o map[string]string, r *reporter) {
	if text, ok := o["order"]; ok {
		order, m := parseOrder(text)
		r.check("order", text, m)
		s.order = order
	}
	if text, ok := o["code_page"]; ok {
		page, m := parsePage(text)
		r.check("code_page", text, m)
		s.page = page
	}
	if text, ok := o["time_zone"]; ok {
		s.zone = parseZone(text, r)
	}
}

func (r *reporter) acceptance(o map[string]string, name string, high int) acceptance {
	text, ok := o[name]
	if !ok {
		return acceptance{}
	}
	if text == "any" {
		return acceptance{given: true, value: anyNumber}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > high {
		r.add(name, fmt.Sprintf("%s %q: it is neither any nor a number from 0 to %d", name, text, high), "leave it out to take only right answers")
		return acceptance{}
	}
	return acceptance{given: true, value: n}
}

// parseForbidden reads "holding:40-49, coil:7".
func (s *settings) parseForbidden(o map[string]string, r *reporter) {
	text, ok := o["forbidden"]
	if !ok {
		return
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		a, m := parseAddress(first)
		if !r.check("forbidden", part, m) {
			continue
		}
		f := stretch{a.table, a.number, a.number}
		if ranged {
			n, ok := parseNumber(last)
			if f.last = n; !ok || n > lastRegister || n < a.number || a.bit >= 0 {
				r.add("forbidden", fmt.Sprintf("forbidden %q: it does not say which registers", part), "write it like holding:40-49")
				continue
			}
		}
		s.forbidden = append(s.forbidden, f)
	}
}

// parseInvalid reads "int16:0x8000, float32:nan" or "sunspec".
func (s *settings) parseInvalid(o map[string]string, r *reporter) {
	text, ok := o["invalid"]
	if !ok {
		return
	}
	s.invalid = map[kind]string{}
	if text == "sunspec" {
		s.invalid = sunspec
		return
	}
	for part := range strings.SplitSeq(text, ",") {
		word, value, ok := strings.Cut(strings.TrimSpace(part), ":")
		if !ok {
			r.add("invalid", fmt.Sprintf("invalid %q: it does not say of which type", strings.TrimSpace(part)), "write it like int16:0x8000, uint16:0xffff, float32:nan, or sunspec")
			continue
		}
		k, m := parseKind(word)
		if !r.check("invalid", word, m) || !r.check("invalid", part, (&check{}).parseInvalid(value, k, limitsOf(k, nil))) {
			continue
		}
		if s.invalid[k] != "" {
			value = s.invalid[k] + "," + value
		}
		s.invalid[k] = value
	}
}

func (r *reporter) number(options map[string]string, name string, fallback, low, high int) int {
	text, ok := options[name]
	if !ok {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		r.add(name, fmt.Sprintf("%s %q: it is not a number from %d to %d", name, text, low, high), fmt.Sprintf("the default is %d", fallback))
		return fallback
	}
	return n
}

// parse reads where the line is and what manners its peer wants. The options may stand at the connection or at any device on it, and must not
// contradict each other; nor may the urls.
func (l *link) parse(c *drivers.Connection, r *reporter) {
	e, m := parseURL(c.URL)
	r.check("url", c.URL, m)
	if m == nil {
		l.endpoint = e
	}
	l.several = slices.ContainsFunc(c.Devices, func(d drivers.Device) bool {
		return unitOf(d.Options) != unitOf(c.Devices[0].Options)
	})
	given := map[string]string{}
	maps.Copy(given, c.Options)
	options := connectionOptions()
	for i := range c.Devices {
		r.device = i
		d := &c.Devices[i]
		if other, m2 := parseURL(d.URL); m == nil && d.URL != "" && m2 == nil && other != e {
			r.add("url", fmt.Sprintf("url %q: %q leads to the same line in another way", d.URL, c.URL), "use the same url for all devices on a line")
		}
		for j := range options {
			name := options[j].Name
			text, ok := d.Options[name]
			if before, had := given[name]; ok && had && before != text {
				r.add(name, fmt.Sprintf("%s %q: another device on the same line says %q", name, text, before), "say the same, or say it once")
			} else if ok {
				given[name] = text
			}
		}
	}
	l.setSpares(c, r)
	r.device = 0
	l.set(given, r)
}

// unitOf is the unit of a device as its options write it.
func unitOf(options map[string]string) string {
	return cmp.Or(options["unit"], strconv.Itoa(defaultUnit))
}

func (l *link) set(given map[string]string, r *reporter) {
	p := &l.pace
	p.connect, p.connectGiven = r.duration(given, "pause_after_connect", 30*time.Second)
	p.between, p.betweenGiven = r.duration(given, "pause_between_requests", 10*time.Second)
	switch text, ok := given["close_after_poll"]; {
	case text == "true":
		l.closeAfter = true
	case ok && text != "false":
		r.add("close_after_poll", fmt.Sprintf("close_after_poll %q: it is neither true nor false", text), "the default is false")
	}
	f := peer.Files{CA: given["ca_file"], Cert: given["cert_file"], Key: given["key_file"], ServerName: given["server_name"]}
	l.tls = &peer.TLS{Files: f, Names: peer.Names{Peer: "device", CA: "ca_file", Pair: "cert_file and key_file", ServerName: "server_name", Plain: "tcp://"}}
	if f != (peer.Files{}) && l.network != netTLS {
		r.add("url", "ca_file, cert_file, key_file and server_name need a tcp+tls url", "use tcp+tls://host, or leave them out")
	}
	l.setListen(given, r)
	l.setConnections(given, r)
	if (f.Cert == "") != (f.Key == "") {
		r.add("cert_file", "a client certificate needs both cert_file and key_file", "give both or none")
	}
}

func (r *reporter) duration(given map[string]string, name string, high time.Duration) (time.Duration, bool) {
	text, ok := given[name]
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	if text == "0" {
		d, err = 0, nil
	}
	if err != nil || d < 0 || d > high {
		r.add(name, fmt.Sprintf("%s %q: it is not a time from 0 to %v", name, text, high), "write it like 100ms; without it, what the device needs is learned")
		return 0, false
	}
	return d, true
}
