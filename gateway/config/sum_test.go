package config

import (
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

func TestSumTellsDevicesApart(t *testing.T) {
	fresh := func() *Device {
		return &Device{Name: "press", Driver: "opcua", URL: "opc.tcp://h", Timeout: time.Second, Options: map[string]string{"username": "u", "password": "p"},
			Groups: []Group{{Group: drivers.Group{Name: "g", Interval: time.Second, Tags: []telemetry.Tag{
				{Name: "a", Address: "1", Options: map[string]string{"x": "1", "y": "2"}}, {Name: "b", Address: "2", Scale: 2}}}, Report: []TagReport{{}, {OnChange: true}}}}}
	}
	seen := map[[32]byte]string{fresh().Sum(): "the device"}
	if seen[fresh().Sum()] == "" {
		t.Error("two equal devices have different sums")
	}
	for what, change := range map[string]func(d *Device){
		"name":        func(d *Device) { d.Name = "press2" },
		"driver":      func(d *Device) { d.Driver = "modbus" },
		"url":         func(d *Device) { d.URL = "opc.tcp://i" },
		"timeout":     func(d *Device) { d.Timeout++ },
		"description": func(d *Device) { d.Description = "x" },
		"labels":      func(d *Device) { d.Labels = []telemetry.Label{{Name: "x"}} },
		"retry":       func(d *Device) { d.Retry.Max++ },
		"password":    func(d *Device) { d.Options["password"] = "q" },
		"interval":    func(d *Device) { d.Groups[0].Interval++ },
		"scale":       func(d *Device) { d.Groups[0].Tags[1].Scale = 3 },
		"offset":      func(d *Device) { d.Groups[0].Tags[1].Offset = 3 },
		"unit":        func(d *Device) { d.Groups[0].Tags[1].Unit = "m" },
		"tag options": func(d *Device) { d.Groups[0].Tags[0].Options["y"] = "3" },
		"report":      func(d *Device) { d.Groups[0].Report[0].OnChange = true },
		"deadband":    func(d *Device) { d.Groups[0].Report[1].Deadband = 1 },
		"heartbeat":   func(d *Device) { d.Groups[0].Report[1].Heartbeat = 1 },
		"clamp":       func(d *Device) { d.Groups[0].Clamps = map[int]Range{1: {0, 1}} },
		"formula":     func(d *Device) { d.Groups[0].Derived = []Derived{{Expr: "a"}} },
		"aggregate":   func(d *Device) { d.Groups[0].Aggregates = map[int]Aggregate{0: {"min", 1}} },
		"a tag more":  func(d *Device) { d.Groups[0].Tags = append(d.Groups[0].Tags, telemetry.Tag{Name: "c"}) },
		"a tag moved": func(d *Device) { g := d.Groups[0].Tags; g[0], g[1] = g[1], g[0] },
	} {
		d := fresh()
		change(d)
		if other := seen[d.Sum()]; other != "" {
			t.Errorf("another %s has the same sum as %s", what, other)
		}
		seen[d.Sum()] = what
	}
}
