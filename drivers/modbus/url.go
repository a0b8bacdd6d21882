package modbus

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
)

// framing is how a request and its answer are packed.
type framing uint8

const (
	mbap  framing = iota // MBAP header with a transaction id (Modbus TCP)
	rtu                  // unit, PDU, CRC-16 (Modbus over Serial Line V1.02, 2.5.1)
	ascii                // colon, hex digits, LRC, CR LF (2.5.2)
)

// network is what carries the frames.
type network uint8

const (
	netTCP network = iota
	netTLS
	netUDP
	netSerial
	netListen // the device makes the TCP connection
)

// transports are the schemes of the urls of Modbus devices.
var transports = map[string]struct {
	network
	framing
	port string
}{
	"tcp":          {netTCP, mbap, "502"}, // registered for Modbus TCP
	"tcp+tls":      {netTLS, mbap, "802"}, // registered for Modbus/TCP Security
	"udp":          {netUDP, mbap, "502"},
	"rtu":          {netSerial, rtu, ""},
	"rtuovertcp":   {netTCP, rtu, "502"},
	"rtuoverudp":   {netUDP, rtu, "502"},
	"ascii":        {netSerial, ascii, ""},
	"asciiovertcp": {netTCP, ascii, "502"},
	"asciioverudp": {netUDP, ascii, "502"},
	"tcp-listen":   {netListen, mbap, "502"},
	"rtu-listen":   {netListen, rtu, "502"},
}

// endpoint is where a line is and what is spoken there.
type endpoint struct {
	scheme  string
	network network
	framing framing
	address string // host:port, or the path of a serial device
	serial  serialMode
}

// serialMode is how characters go over a serial line. The defaults are those of Modbus over Serial Line V1.02, 2.5.
type serialMode struct {
	baud   int
	parity string // none, odd, even
	data   int
	stop   int
}

// character is how long one character takes on the line.
func (m serialMode) character() time.Duration {
	bits := 1 + m.data + m.stop
	if m.parity != "none" {
		bits++
	}
	return time.Duration(bits) * time.Second / time.Duration(m.baud)
}

// silence is the 3.5 characters between two frames, fixed at 1.75 ms over 19200 baud (2.5.1.1).
func (m serialMode) silence() time.Duration {
	if m.baud > 19200 {
		return 1750 * time.Microsecond
	}
	return 7 * m.character() / 2
}

const (
	useNet    = "use tcp://host or tcp://host:port (default port 502)"
	useSerial = "use rtu:///dev/ttyUSB0?baud=19200&parity=even&stop=1"
	useScheme = "use tcp, tcp+tls, udp, rtu, rtuovertcp, rtuoverudp, ascii, asciiovertcp, asciioverudp, tcp-listen or rtu-listen"
)

// parseURL returns the endpoint that a url names.
func parseURL(text string) (endpoint, *mistake) {
	u, err := url.Parse(text)
	if err != nil || !strings.Contains(text, "://") {
		return endpoint{}, &mistake{"it is not the address of a Modbus device", useNet}
	}
	t, ok := transports[u.Scheme]
	if !ok {
		return endpoint{}, &mistake{fmt.Sprintf("there is no transport %q", u.Scheme), useScheme}
	}
	e := endpoint{scheme: u.Scheme, network: t.network, framing: t.framing}
	if t.network == netSerial {
		return e, e.parseSerial(u)
	}
	return e, e.parseHost(u, t.port)
}

func (e *endpoint) parseHost(u *url.URL, port string) *mistake {
	listens := e.network == netListen
	if u.Host == "" && listens {
		u.Host = "127.0.0.1" // what is open to others must be written
	}
	if u.Host == "" {
		return &mistake{"it is not the address of a Modbus device", useNet}
	}
	if u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return &mistake{"only a host and a port belong there", useNet}
	}
	if u.Port() != "" {
		port = u.Port()
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || u.Hostname() == "" && !listens {
		return &mistake{"the host or the port is wrong", useNet}
	}
	if drivers.NoHost(u.Hostname()) {
		return &mistake{fmt.Sprintf("%q is no address and can be no name", u.Hostname()), drivers.HostMend}
	}
	e.address = net.JoinHostPort(strings.ToLower(u.Hostname()), strconv.Itoa(n))
	return nil
}

// parseSerial reads rtu:///dev/ttyUSB0?baud=9600&parity=none&data=8&stop=2.
func (e *endpoint) parseSerial(u *url.URL) *mistake {
	e.address, e.serial = path.Clean(u.Path), serialMode{baud: 19200, parity: "even", data: 8, stop: 1}
	if e.framing == ascii {
		e.serial.data = 7
	}
	if u.Host != "" || u.Path == "" || u.Path == "/" || u.User != nil || u.Fragment != "" {
		return &mistake{"it names no serial device", useSerial}
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return &mistake{"what stands after the question mark cannot be read", useSerial}
	}
	for name, values := range options {
		if !e.serial.set(name, values[0]) || len(values) > 1 {
			return &mistake{fmt.Sprintf("%s=%s is not a setting of a serial line", name, strings.Join(values, ",")),
				"use baud (300 to 4000000), parity (none, odd, even), data (7, 8) and stop (1, 2)"}
		}
	}
	return nil
}

func (m *serialMode) set(name, value string) bool {
	n, _ := strconv.Atoi(value)
	switch name {
	case "baud":
		m.baud = n
		return n >= 300 && n <= 4000000
	case "parity":
		m.parity = value
		return value == "none" || value == "odd" || value == "even"
	case "data":
		m.data = n
		return n == 7 || n == 8
	case "stop":
		m.stop = n
		return n == 1 || n == 2
	}
	return false
}

// line is the one form of all urls of a line. A serial line is its device, whatever is said of its speed.
func (e *endpoint) line() string { return e.scheme + "://" + e.address }

// Normal returns the one form of all urls that lead to the same line, "tcp://h:502" for "tcp://H" and "rtu:///dev/ttyS0" for
// every speed of that port, so that devices behind them share one connection; a url that is wrong comes back as it is.
func Normal(text string) string {
	e, m := parseURL(text)
	if m != nil {
		return text
	}
	return e.line()
}
