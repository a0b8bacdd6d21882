package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// options are the settings of a run; each scenario has its own, and flags override them.
type options struct {
	Scenario string        `json:"scenario"`
	Target   string        `json:"target"`   // millrace, floor, or a command line
	Driver   string        `json:"driver"`   // modbus or opcua
	Mode     string        `json:"mode"`     // of opcua: read or subscribe
	Security string        `json:"security"` // of opcua: none, sign or sign-and-encrypt
	Devices  int           `json:"devices"`
	Tags     int           `json:"tags"` // a device
	Dead     int           `json:"dead"` // devices that accept and never answer
	Line     bool          `json:"line"` // all are unit ids on one serial line of 38400 baud
	Interval time.Duration `json:"interval"`
	Kind     string        `json:"type"`
	For      time.Duration `json:"for"`
	Warm     time.Duration `json:"warm"`
	Outage   time.Duration `json:"outage"`
	Kills    int           `json:"kills"`
	Reloads  int           `json:"reloads"` // after the measured time
	Commit   time.Duration `json:"commit_interval"`
	MaxSize  string        `json:"max_size"`
	Order    string        `json:"order"`
	Profile  string        `json:"-"`

	// Of millrace only, as the unit file and the config set them.
	Slack      time.Duration `json:"timer_slack"` // 0 = the system's
	Processors int           `json:"processors"`  // 0 = all of the machine
}

// unitSlack is TimerSlackNSec in configs/millrace.service.
const unitSlack = 5 * time.Millisecond

// scenarios are the named settings, in the order of the help.
var scenarios = []struct {
	help string
	options
}{
	{"10 devices × 1,000 tags × 100 ms: cost, memory and latency at 100,000 readings/s",
		options{Scenario: "steady", Devices: 10, Tags: 1000, Interval: 100 * time.Millisecond, For: 20 * time.Second}},
	{"11 devices × 1,000 tags × 10 ms: 1,100,000 readings/s offered",
		options{Scenario: "million", Devices: 11, Tags: 1000, Interval: 10 * time.Millisecond, For: 60 * time.Second}},
	{"steady load doubled until readings are late or missing",
		options{Scenario: "saturate", Devices: 10, Tags: 1000, Interval: 100 * time.Millisecond, For: 10 * time.Second}},
	{"10 × 100 × 100 ms: latency at 10,000 readings/s",
		options{Scenario: "latency", Devices: 10, Tags: 100, Interval: 100 * time.Millisecond, For: 20 * time.Second}},
	{"10 × 100 × 100 ms with the uplink cut: buffer, memory, drain, nothing lost",
		options{Scenario: "outage", Devices: 10, Tags: 100, Interval: 100 * time.Millisecond, For: 20 * time.Second, Outage: 60 * time.Second}},
	{"ten minutes of outage at 10,000 readings/s, then the drain",
		options{Scenario: "drain", Devices: 10, Tags: 100, Interval: 100 * time.Millisecond, For: 20 * time.Second, Outage: 600 * time.Second}},
	{"the gateway killed with -9 again and again",
		options{Scenario: "kill9", Devices: 10, Tags: 100, Interval: 100 * time.Millisecond, For: 5 * time.Second, Kills: 10}},
	{"1,000 devices × 10 tags × 1 s on 1,000 connections",
		options{Scenario: "small", Devices: 1000, Tags: 10, Interval: time.Second, For: 30 * time.Second}},
	{"10 devices × 1,000 tags × 1 s",
		options{Scenario: "fat", Devices: 10, Tags: 1000, Interval: time.Second, For: 20 * time.Second}},
	{"50 devices × 1,000 tags × 1 s: 50,000 tags",
		options{Scenario: "tags50k", Devices: 50, Tags: 1000, Interval: time.Second, For: 30 * time.Second}},
	{"the same and then reloads: memory after each",
		options{Scenario: "reload50k", Devices: 50, Tags: 1000, Interval: time.Second, For: 10 * time.Second, Reloads: 4}},
	{"1 device × 100 tags × 1 s: what an idle gateway costs",
		options{Scenario: "idle", Devices: 1, Tags: 100, Interval: time.Second, For: 60 * time.Second}},
	{"50 devices × 20 tags × 100 ms, one of them dead: the others keep their interval",
		options{Scenario: "dead", Devices: 50, Tags: 20, Interval: 100 * time.Millisecond, For: 20 * time.Second, Dead: 1}},
	{"32 units × 20 tags × 1 s on one RTU line of 38400 baud, four fifths of its time",
		options{Scenario: "line", Devices: 32, Tags: 20, Interval: time.Second, For: 60 * time.Second, Line: true}},
}

func scenarioNames() string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.Scenario)
	}
	return strings.Join(names, ", ")
}

func scenarioHelp() string {
	var b strings.Builder
	for _, s := range scenarios {
		fmt.Fprintf(&b, "  %-9s %s\n", s.Scenario, s.help)
	}
	return b.String()
}

func (o *options) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.Target, "target", "millrace", "millrace, floor, or the command line of another gateway; {broker} and {devices} are replaced")
	f.StringVar(&o.Driver, "driver", "modbus", "what the simulated devices speak: modbus or opcua")
	f.StringVar(&o.Mode, "mode", "read", "how OPC UA values are taken: read or subscribe")
	f.StringVar(&o.Security, "security", "none", "of OPC UA: none, sign or sign-and-encrypt (Basic256Sha256)")
	f.IntVar(&o.Devices, "devices", 0, "simulated devices")
	f.IntVar(&o.Tags, "tags", 0, "tags a device")
	f.IntVar(&o.Dead, "dead", 0, "devices that accept and never answer")
	f.DurationVar(&o.Interval, "interval", 0, "poll interval")
	f.StringVar(&o.Kind, "type", "uint16", "uint16 or float32")
	f.DurationVar(&o.For, "for", 0, "measured time")
	f.DurationVar(&o.Warm, "warm", 3*time.Second, "time before the measurement")
	f.DurationVar(&o.Outage, "outage", 0, "length of the uplink's outage")
	f.IntVar(&o.Kills, "kills", 0, "how many times to kill -9")
	f.IntVar(&o.Reloads, "reloads", 0, "how many times to reload the config; at every other one each device has changed (target millrace)")
	f.DurationVar(&o.Commit, "commit-interval", time.Second, "the gateway's commit_interval")
	f.StringVar(&o.MaxSize, "max-size", "8GiB", "the gateway's max_size")
	f.StringVar(&o.Order, "order", "live-first", "the destination's order")
	f.DurationVar(&o.Slack, "slack", unitSlack, "how late the kernel may wake the gateway, as configs/millrace.service sets it; 0 = as the system does (target millrace)")
	f.IntVar(&o.Processors, "processors", 0, "the gateway's processors; 0 = all of the machine (target millrace)")
	f.StringVar(&o.Profile, "cpuprofile", "", "write the gateway's CPU profile to this file (target millrace)")
}

// settingsFor returns the scenario's settings with the flags that were given on top.
func settingsFor(name string, cmd *cobra.Command, flags options) (options, error) {
	for _, s := range scenarios {
		if s.Scenario != name {
			continue
		}
		o := s.options
		o.Target, o.Driver, o.Mode, o.Kind, o.Warm, o.Commit, o.MaxSize, o.Order, o.Profile = flags.Target, flags.Driver, flags.Mode, flags.Kind, flags.Warm, flags.Commit, flags.MaxSize, flags.Order, flags.Profile
		o.Security = flags.Security
		o.Slack, o.Processors = flags.Slack, flags.Processors
		overrideInt(cmd, "devices", &o.Devices, flags.Devices)
		overrideInt(cmd, "tags", &o.Tags, flags.Tags)
		overrideInt(cmd, "dead", &o.Dead, flags.Dead)
		overrideInt(cmd, "kills", &o.Kills, flags.Kills)
		overrideInt(cmd, "reloads", &o.Reloads, flags.Reloads)
		for flag, v := range map[string][2]*time.Duration{"interval": {&o.Interval, &flags.Interval}, "for": {&o.For, &flags.For}, "outage": {&o.Outage, &flags.Outage}} {
			if cmd.Flags().Changed(flag) {
				*v[0] = *v[1]
			}
		}
		if o.Kind != "uint16" && o.Kind != "float32" {
			return o, fmt.Errorf("type %q is unknown; use uint16 or float32", o.Kind)
		}
		if o.Driver != "modbus" && (o.Driver != "opcua" || o.Target == "floor" || o.Dead > 0) {
			return o, fmt.Errorf("driver %q: use modbus, or opcua without --dead and not with the floor", o.Driver)
		}
		if o.Mode != "read" && o.Mode != "subscribe" {
			return o, fmt.Errorf("mode %q is unknown; use read or subscribe", o.Mode)
		}
		if o.Security != "none" && (o.Driver != "opcua" || o.Security != "sign" && o.Security != "sign-and-encrypt") {
			return o, fmt.Errorf("security %q: use none, or sign or sign-and-encrypt with --driver opcua", o.Security)
		}
		if o.Line && (o.Driver != "modbus" || o.Target != "millrace") {
			return o, fmt.Errorf("scenario %q is of driver modbus and target millrace", o.Scenario)
		}
		return o, nil
	}
	return options{}, fmt.Errorf("scenario %q is unknown; there are %s", name, scenarioNames())
}

func overrideInt(cmd *cobra.Command, flag string, dst *int, v int) {
	if cmd.Flags().Changed(flag) {
		*dst = v
	}
}
