// Package importer turns the tag lists of other gateways (Kepware, Neuron, Telegraf, benthos-umh, OpenModbusSpecs) into devices of a
// millrace config. It promises to invent nothing: what it cannot translate is left out and named, and what the file
// does not say is named too. It reads bytes and writes YAML; the command `millrace import` calls it.
package importer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of what is read and kept.
const (
	maxInput    = 32 << 20
	maxTags     = 100_000
	maxProblems = 1000
	maxDepth    = 16 // of nested tag groups
)

var errInput = fmt.Errorf("the file has over %d MiB; split it", maxInput>>20)

// Options is what the user knows and the file may not say.
type Options struct {
	Device   string        // name of the device where the file has none, "" = imported
	URL      string        // where it is, "" = a placeholder that `check` accepts and nobody answers at
	Unit     *int          // unit id of the device where the file has none, 0 to 255; nil = 1, which is then said
	Interval time.Duration // of the groups where the file has none, 0 = 1s, which is then said
}

// Result is what was understood, and Problems is the rest.
type Result struct {
	Devices  []*Device
	Tags     int // translated
	Problems []Problem
	Unnamed  int // problems beyond the first 1000
}

// Device is one device of the config. Devices with the same URL share a connection.
type Device struct {
	Name    string
	URL     string
	Unit    int    // 0 to 255
	Order   string // byte order of its numbers, "" = each tag says its own
	Timeout time.Duration
	Options [][2]string // further options of the driver
	Groups  []*Group
}

// Group is one poll group.
type Group struct {
	Name     string
	Interval time.Duration
	Tags     []Tag
	names    map[string]int // how often each was wanted
}

// Tag is one tag in the words of the config.
type Tag struct {
	Name, Address, Type, Unit, Description string
	Expr                                   string  // instead of an address: worked out from others
	Scale, Offset                          float64 // Scale 0 = 1
	Order                                  string
	Byte                                   string // of int8 and uint8: high, "" = low
	Clamp                                  string // a range of scaled values
	Invalid                                string // raw values that mean "not available", as the driver takes them
	Length                                 int    // of a string, in bytes
	unscaled                               bool   // it had a scaling that its type cannot have
}

// Problem is something that was not translated, or not wholly.
type Problem struct {
	Where string // such as: line 7, tag "speed"
	What  string // what is missing and what to do
}

// String returns the problem as one line.
func (p Problem) String() string { return p.Where + ": " + p.What }

var formats = map[string]func(*builder, []byte) error{
	"kepware-csv": kepwareCSV, "kepware-json": kepwareJSON, "neuron-csv": neuronCSV, "telegraf": telegraf, "benthos-umh": umh,
	"openmodbus": openModbus,
}

// Formats returns the names that Import takes, in order.
func Formats() []string {
	var names []string
	for name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Import translates a file. An error means that nothing of it could be read; what is wrong with single tags stands in
// Result.Problems. It reads 32 MiB and 100,000 tags at most.
func Import(format string, data []byte, o Options) (*Result, error) {
	if formats[format] == nil {
		return nil, fmt.Errorf("there is no format %q; use one of %s", format, strings.Join(Formats(), ", "))
	}
	if len(data) > maxInput {
		return nil, errInput
	}
	b := newBuilder(o)
	err := read(b, format, data)
	if err == nil {
		b.sayTallies()
		return b.result, nil
	}
	for _, other := range Formats() {
		if other != format && read(newBuilder(o), other, data) == nil {
			cause, _, _ := strings.Cut(err.Error(), ";")
			return nil, fmt.Errorf("%s; the file looks like %s, so write millrace import %s", cause, other, other)
		}
	}
	return nil, err
}

// read translates a file of that format. One that holds nothing of the format is an error.
func read(b *builder, format string, data []byte) error {
	var err error
	switch csv := strings.HasSuffix(format, "-csv"); {
	case csv && isWorkbook(data):
		data, err = fromWorkbook(data)
	case csv:
		data, err = asText(b, data, true)
	default:
		data, err = asText(b, data, false)
	}
	if err != nil {
		return err
	}
	if err := formats[format](b, data); err != nil {
		return err
	}
	if b.result.Tags == 0 && len(b.result.Problems) == 0 {
		return errors.New("the file holds no tags; see whether it is the right one")
	}
	return nil
}
