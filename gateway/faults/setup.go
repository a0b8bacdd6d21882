package faults

import (
	"fmt"
	"os"
	"strings"
)

// deviceTimeout is every device's time-out where a Setup names none: long, so that an answer is not late on a busy machine.
const deviceTimeout = "5s"

// Setup is a config of the gateway under test; zero fields are left out, so that the gateway's own default
// holds.
type Setup struct {
	Gateway  string // "faults" when empty
	Path     string // of the buffer
	Scheme   string // of the broker's url; "mqtt" when empty
	Broker   string // host:port
	Web      string // host:port
	Commit   string // commit_interval
	MaxSize  string
	Memory   string
	Order    string
	ClientID string
	Interval string   // of every group; "100ms" when empty
	Timeout  string   // of every device; "5s" when empty
	Words    int      // tags w0, w1 … that the checker compares; a device may have more
	Extra    []string // further lines of the destination, such as "username: me"
	Others   string   // further destinations, as YAML list items with two spaces of indentation
	Devices  []*Device
	More     string // further devices, as YAML list items with two spaces of indentation
}

// Write writes the config to a file.
func (s *Setup) Write(file string) error {
	return os.WriteFile(file, []byte(s.String()), 0o644)
}

// String returns the config's YAML.
func (s *Setup) String() string {
	var b strings.Builder
	line := func(indent int, key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%*s%s: %s\n", indent, "", key, value)
		}
	}
	line(0, "gateway", or(s.Gateway, "faults"))
	fmt.Fprintf(&b, "web:\n  listen: %s\n", s.Web)
	b.WriteString("buffer:\n")
	line(2, "path", s.Path)
	line(2, "commit_interval", s.Commit)
	line(2, "max_size", s.MaxSize)
	line(2, "memory", s.Memory)
	fmt.Fprintf(&b, "destinations:\n  - name: cloud\n    url: %s://%s\n", or(s.Scheme, "mqtt"), s.Broker)
	line(4, "order", s.Order)
	line(4, "client_id", s.ClientID)
	for _, x := range s.Extra {
		fmt.Fprintf(&b, "    %s\n", x)
	}
	b.WriteString(s.Others)
	b.WriteString("devices:\n")
	for _, d := range s.Devices {
		fmt.Fprintf(&b, "  - name: %s\n    driver: modbus\n    url: tcp://%s\n    unit: 1\n    timeout: %s\n    groups:\n", d.Name, d.Addr(), or(s.Timeout, deviceTimeout))
		fmt.Fprintf(&b, "      - name: all\n        interval: %s\n        tags:\n", or(s.Interval, "100ms"))
		b.WriteString("          - {name: scan, address: \"holding:0\", type: uint32}\n")
		for i := range d.words {
			fmt.Fprintf(&b, "          - {name: w%d, address: \"holding:%d\", type: uint16}\n", i, 2+i)
		}
	}
	b.WriteString(s.More)
	return b.String()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
