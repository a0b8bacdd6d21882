package modbus

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
)

// The defaults, with their reasons.
const (
	defaultPort         = "502" // registered for Modbus TCP
	defaultUnit         = 1
	defaultMaxRegisters = 125 // the most that one answer can hold (Modbus Application Protocol V1.1b3, 6.3)
	defaultMaxGap       = 16  // a register takes 2 ms at 9600 baud, a request of its own about 30 ms
)

// settings are the options of one device.
type settings struct {
	unit         uint8
	maxRegisters int
	maxGap       int
	order        order
}

func deviceOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "unit", Help: "unit id behind the url, 0 to 255; default 1"},
		{Name: "max_registers", Help: "most registers in one request, 1 to 125; default 125. Coils and discrete inputs: 16 times as many"},
		{Name: "max_gap", Help: "registers nobody asked for that are read across rather than making another request, 0 to 124; default 16"},
		{Name: "order", Help: "byte order of numbers of two or four registers: ABCD, BADC, CDAB or DCBA; default ABCD"},
	}
}

func tagOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "order", Help: "byte order: ABCD, BADC, CDAB or DCBA; default the device's. A string: ABCD or BADC, default ABCD"},
		{Name: "length", Help: "length of a string in bytes, 1 to 250"},
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
func parseDevice(d *drivers.Device, r *reporter) settings {
	s := settings{
		unit:         uint8(r.number(d.Options, "unit", defaultUnit, 0, 255)),
		maxRegisters: r.number(d.Options, "max_registers", defaultMaxRegisters, 1, 125),
		maxGap:       r.number(d.Options, "max_gap", defaultMaxGap, 0, 124),
	}
	if text, ok := d.Options["order"]; ok {
		o, m := parseOrder(text)
		r.check("order", text, m)
		s.order = o
	}
	return s
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

// parseURL returns host:port of a Modbus TCP url.
func parseURL(text string) (string, *mistake) {
	const use = "use tcp://host or tcp://host:port (default port 502)"
	u, err := url.Parse(text)
	if err != nil || u.Host == "" && u.Scheme != "rtu" || !strings.Contains(text, "://") {
		return "", &mistake{"it is not the address of a Modbus device", use}
	}
	switch u.Scheme {
	case "tcp":
	case "tcp+tls", "udp", "rtu", "rtuovertcp", "rtuoverudp":
		return "", &mistake{fmt.Sprintf("Modbus over %q is not supported yet", u.Scheme), use + ", for example of a gateway before the device"}
	default:
		return "", &mistake{fmt.Sprintf("there is no transport %q", u.Scheme), use}
	}
	if u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", &mistake{"only a host and a port belong there", use}
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || u.Hostname() == "" {
		return "", &mistake{"the host or the port is wrong", use}
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// timeout is what one request may take: the library has one for the connection, so the longest of the
// devices' holds for all of them.
func timeout(c *drivers.Connection) time.Duration {
	longest := time.Duration(0)
	for i := range c.Devices {
		longest = max(longest, c.Devices[i].Timeout)
	}
	if longest <= 0 {
		return time.Second
	}
	return longest
}
