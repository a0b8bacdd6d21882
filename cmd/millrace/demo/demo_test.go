package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/opcua"
)

// short returns the options of a demo that a test can wait for, with its data where the test can look.
func short(t *testing.T, out *bytes.Buffer) Options {
	t.Setenv("TMPDIR", t.TempDir())
	return Options{For: 3 * time.Second, JSON: true, Out: out, Log: slog.New(slog.DiscardHandler),
		Protocols: []drivers.Protocol{modbus.Protocol(), opcua.Protocol()}, Version: "test"}
}

// TestDemo runs the whole line through an outage: everything served arrives, once and in order.
func TestDemo(t *testing.T) {
	var out bytes.Buffer
	o := short(t, &out)
	o.Outage = time.Second
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if r.Served < 100 || r.Received != r.Delivered || r.Outages != 1 || r.OutageSeconds < 0.5 || r.PeakBacklog == 0 || r.Suppressed == 0 {
		t.Errorf("unlikely result %+v", *r)
	}
	drivers := map[string]int{}
	for _, d := range r.Devices {
		drivers[d.Driver]++
	}
	if drivers["modbus"] != 3 || drivers["opcua"] != 1 {
		t.Errorf("devices by driver: %v", drivers)
	}
	var printed Result
	if err := json.Unmarshal(out.Bytes(), &printed); err != nil || printed.Received != r.Received {
		t.Errorf("printed %q: %v", out.String(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
		t.Errorf("the demo leaves %v", left)
	}
}

// TestDemoNoticesALoss takes one message away before the cloud books it: the demo must fail.
func TestDemoNoticesALoss(t *testing.T) {
	var out bytes.Buffer
	o := short(t, &out)
	o.For = 2 * time.Second
	o.lose = func(n int) bool { return n == 5 }
	r, err := Run(context.Background(), o)
	if !errors.Is(err, ErrLost) || r == nil || r.Lost == 0 || r.MissingRecords != 1 {
		t.Errorf("a lost message gives %v, %+v", err, r)
	}
}

// TestDemoAsText runs the demo without a terminal and ends it as Ctrl-C does.
func TestDemoAsText(t *testing.T) {
	var out bytes.Buffer
	o := short(t, &out)
	o.For, o.JSON = 0, false
	ctx, cancel := context.WithTimeout(context.Background(), 2500*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, o); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{" received, ", "uplink connected", "meter-1 voltage_l1 2", "Every reading arrived, in order."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("escape sequences without a terminal")
	}
}

func TestOptionsCheck(t *testing.T) {
	for _, c := range []struct {
		o  Options
		ok bool
	}{
		{Options{}, true}, {Options{For: 20 * time.Second, Outage: 8 * time.Second}, true}, {Options{Outage: time.Second}, true},
		{Options{For: time.Second, Outage: time.Second}, false}, {Options{For: -1}, false}, {Options{Outage: -1}, false},
	} {
		if err := c.o.Check(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}
