package modbustool

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/configs/templates"
	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
)

// stretch is the registers, or bits, of one value.
type stretch struct {
	table       string
	first, last int // last is the one after it
}

// widths are the registers of each type that templates use.
var widths = map[string]int{"": 1, "bool": 1, "bits": 1, "int8": 1, "uint8": 1, "int16": 1, "uint16": 1, "float16": 1, "bcd16": 1, "int32": 2, "uint32": 2, "float32": 2, "bcd32": 2,
	"unix32": 2, "mod10k32": 2, "int48": 3, "uint48": 3, "mod10k48": 3, "int64": 4, "uint64": 4, "float64": 4, "bcd64": 4, "mod10k64": 4, "unix64": 4, "unixms64": 4}

func stretchOf(t *testing.T, tag *telemetry.Tag) stretch {
	t.Helper()
	table, rest, _ := strings.Cut(tag.Address, ":")
	number, _, _ := strings.Cut(rest, ".")
	first, err := strconv.ParseInt(number, 0, 32)
	if err != nil {
		t.Fatalf("%q: %v", tag.Address, err)
	}
	n, known := widths[tag.Type]
	if length, err := strconv.Atoi(tag.Options["length"]); err == nil {
		n, known = (length+1)/2, true
	}
	if !known {
		t.Fatalf("%q has the type %q", tag.Address, tag.Type)
	}
	return stretch{table, int(first), int(first) + n}
}

// telegraf is the plan of its optimization max_insert: sorted by address, each value joins the request before it as long as no more
// than gap registers lie between and the request does not become too long.
func telegraf(list []stretch, gap, most int) (plan []stretch) {
	slices.SortFunc(list, func(a, b stretch) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last))
	})
	for _, s := range list {
		most := most
		if s.table == "coil" || s.table == "discrete" {
			most *= 16
		}
		if n := len(plan); n > 0 && plan[n-1].table == s.table && s.first <= plan[n-1].last+gap && max(s.last, plan[n-1].last)-plan[n-1].first <= most {
			plan[n-1].last = max(s.last, plan[n-1].last)
			continue
		}
		plan = append(plan, s)
	}
	return plan
}

// rtuTime is how long requests take on a line of 9600 baud with parity: 13 characters and the values at 11 bits each, twice the
// pause of 3.5, and 5 ms in which the device answers.
func rtuTime(requests, values int) time.Duration {
	const character = 11 * time.Second / 9600
	return time.Duration(requests)*(20*character+5*time.Millisecond) + time.Duration(values)*character
}

func timeOf(plan []stretch) time.Duration { return rtuTime(len(plan), valuesOf(plan)) }

// valuesOf is how many bytes of values the answers have.
func valuesOf(plan []stretch) (values int) {
	for _, s := range plan {
		if s.table == "coil" || s.table == "discrete" {
			values += (s.last - s.first + 7) / 8
		} else {
			values += 2 * (s.last - s.first)
		}
	}
	return values
}

// planned is what the driver makes of a list.
func planned(t *testing.T, url string, options map[string]string, list []telemetry.Tag) drivers.Cost {
	t.Helper()
	dev := drivers.Device{Name: "d", URL: url, Timeout: time.Second, Options: options, Groups: []drivers.Group{{Name: "g", Interval: time.Second, Tags: list}}}
	d, err := modbus.Protocol().New(drivers.Connection{URL: url, Devices: []drivers.Device{dev}})
	if err != nil {
		t.Fatal(err)
	}
	return d.(drivers.Coster).Cost(drivers.Ref{})
}

// TestPlannerOnRealLists plans the tag lists of all templates, each of its groups and all tags at once, and compares with Telegraf's
// max_insert of 50, with our defaults: on a network never more requests nor more registers, on a serial line never more time, and less
// wherever the plans differ.
func TestPlannerOnRealLists(t *testing.T) {
	var total, one, less, same, fewer int
	var saved float64
	for _, name := range templates.List() {
		c := templateDevice(t, name, "tcp")
		options := c.Devices[0].Options
		most := 125
		if n, err := strconv.Atoi(options["max_registers"]); err == nil {
			most = n
		}
		var lists [][]telemetry.Tag
		var all []telemetry.Tag
		for _, g := range c.Devices[0].Groups {
			lists, all = append(lists, g.Tags), append(all, g.Tags...)
		}
		if len(lists) > 1 {
			lists = append(lists, all)
		}
		for _, list := range lists {
			var stretches []stretch
			for i := range list {
				stretches = append(stretches, stretchOf(t, &list[i]))
			}
			theirs := telegraf(stretches, 50, most)
			byDefault := maps.Clone(options)
			delete(byDefault, "max_gap")
			network := planned(t, "tcp://h", byDefault, list)
			if theirBytes := 21*len(theirs) + valuesOf(theirs); network.Requests > len(theirs) || network.Bytes > theirBytes {
				t.Errorf("%s: %d requests and %d bytes on a network, Telegraf makes %d and %d", name, network.Requests, network.Bytes, len(theirs), theirBytes)
			} else if network.Bytes < theirBytes {
				fewer++
			}
			ours := planned(t, "rtu:///dev/x?baud=9600", byDefault, list)
			if got := rtuTime(ours.Requests, ours.Bytes-13*ours.Requests); (got - ours.Time).Abs() > time.Duration(ours.Requests)*time.Microsecond {
				t.Errorf("%s: a plan of %+v takes %v", name, ours, got)
			}
			total++
			switch usual := timeOf(theirs); {
			case len(theirs) == 1 && ours.Requests == 1:
				one++
			case ours.Time < usual-time.Microsecond*time.Duration(len(theirs)):
				less++
				saved += 1 - ours.Time.Seconds()/usual.Seconds()
			case ours.Time > usual+time.Microsecond*time.Duration(len(theirs)):
				t.Errorf("%s: %v on the line, Telegraf takes %v", name, ours.Time, usual)
			default:
				same++
			}
		}
	}
	t.Logf("%d templates, %d lists: %d are one request; of the others less bus time for %d, by %.0f %% on average, and the same for %d; on a network never more requests, and %d take fewer or shorter ones",
		len(templates.List()), total, one, less, 100*saved/float64(max(less, 1)), same, fewer)
	if total < 10 || less <= same {
		t.Errorf("less bus time for %d of %d lists only", less, total-one)
	}
}
