package web

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/values"
)

// example is a plant of four devices some minutes after the start; trouble "outage" takes its uplink away.
func example(now time.Time, trouble string) *Snapshot {
	since := now.Truncate(time.Hour).Add(-5 * time.Minute)
	secs := uint64(now.Sub(since).Seconds())
	hours := 41.3
	s := &Snapshot{Gateway: "press-shop", Version: "0.1.0", Epoch: "6f1c02d9a4b7e310", Started: since, Now: now,
		Certificates: []Certificate{{Kind: "destination", Owner: "cloud", Name: "broker.example", NotAfter: now.AddDate(1, 0, 0)},
			{Kind: "device", Owner: "cnc-1", Own: true, Name: "pki/own/millrace.der", NotAfter: now.AddDate(10, 0, 0)}},
		Buffer: Buffer{Path: "/var/lib/millrace", Bytes: 151 << 20, MaxBytes: 2 << 30, Segments: 5, TailBytes: 45 << 10, Commits: 301,
			BytesWritten: 3 << 20, NextSeq: 4812, Health: HealthOK, OutageHours: &hours},
		Commands: []Commands{{Refused: 4}, {Device: "press-1", Done: 3, Refused: 2, Failed: 1}},
		Process:  Process{Goroutines: 31, HeapBytes: 4 << 20, RSSBytes: 19 << 20, CPUSeconds: 2.4, OpenFiles: 18},
		Destinations: []Destination{{Name: "cloud", URL: "mqtts://broker.example:8883", State: StateConnected, Since: since, Sent: secs * 2, Acked: secs * 2, Bytes: 1 << 20,
			AckLatency: 4200 * time.Microsecond, AckMax: 180 * time.Millisecond}},
	}
	for i, d := range []struct {
		name, driver, url string
		rate              uint64
	}{
		{"meter-1", "modbus", "tcp://192.168.1.10:502", 4}, {"press-1", "modbus", "tcp://192.168.1.11:502", 21},
		{"tank-1", "modbus", "tcp://192.168.1.12:502", 2}, {"cnc-1", "opcua", "opc.tcp://192.168.1.20:4840", 12},
	} {
		n := secs*d.rate + secs/7*d.rate
		dev := Device{Name: d.name, Driver: d.driver, URL: d.url, Connected: true, Since: since, Polled: n, Suppressed: n / 5, Accepted: n - n/5,
			Groups: []Group{{Name: "fast", Interval: time.Second, Tags: int(d.rate), Polls: secs, LastPoll: 3 * time.Millisecond, LastAt: now.Add(-300 * time.Millisecond)}}}
		a := Account{Destination: "cloud", Delivered: n - n/5 - 2, InFlight: 2}
		if trouble == "outage" {
			kept := min(secs*uint64(i+1), a.Delivered/2)
			a.Delivered -= kept
			a.Buffered = kept
			s.Destinations[0].BacklogReadings += kept
		}
		dev.Accounts = []Account{a}
		if d.driver == "modbus" {
			dev.Connects = &Connects{Attempts: secs/60 + 1, Failed: uint64(i), IdleCloses: secs / 60}
		}
		if d.name == "press-1" {
			dev.Learned = []string{`forbidden: "holding:40-49, holding:60"`, "max_registers: 50"}
			dev.Notes = []string{"it is not asked for its history before 14:00"}
			dev.Path, dev.SparePaths = "tcp://192.168.2.11:502", []string{d.url}
		}
		s.Devices = append(s.Devices, dev)
	}
	if trouble == "outage" {
		d := &s.Destinations[0]
		d.State, d.Since, d.LastError, d.OldestAge = "connecting", now.Add(-192*time.Second), "dial tcp 203.0.113.9:8883: connect: connection refused", 193*time.Second
		d.BacklogRecords = d.BacklogReadings / 12
		s.Devices[2].Reason, s.Devices[2].Since = "no answer within 1s", now.Add(-40*time.Second)
		s.Devices[2].Groups[0].Failed = 41
		s.Devices[2].Accounts[0].Delivered -= 12
		s.Devices[2].Accounts[0].Dropped.Rejected = 12
	}
	if trouble == "refused" {
		s.Absent = []Absent{{Name: "old-cloud", Records: 812, Readings: 9744}}
		s.Destinations[0].Held = 96
		s.Destinations[0].Breakers = []Breaker{{Device: "press-1", Topic: "telemetry/press-shop/press-1/fast", State: "open", Since: now.Add(-90 * time.Second),
			Held: 96, NextTry: now.Add(30 * time.Second), Reason: "not authorised"}}
	}
	return s
}

// showing is a gateway that has only a snapshot to show.
type showing func() *Snapshot

func (f showing) Snapshot() *Snapshot {
	s := f()
	s.Judge()
	return s
}
func (f showing) Stalled() (string, []Stall) {
	return "press-shop", []Stall{{Kind: "store", Name: "/data", What: "writing its files", Since: time.Unix(1e9, 0), Limit: 10 * time.Second}}
}
func (f showing) Acts() *atomic.Uint64                                       { return new(atomic.Uint64) }
func (f showing) ResetLearned(string, string) ([]string, error)              { return nil, nil }
func (f showing) Ack(string) (Seen, error)                                   { return Seen{}, nil }
func (f showing) Buffer() *buffer.Buffer                                     { return nil }
func (f showing) Values() *values.Table                                      { return values.New() }
func (f showing) Reload(context.Context) (*Change, error)                    { return nil, errors.New("no config") }
func (f showing) BeginReading(string) (step, end func())                     { return func() {}, func() {} }
func (f showing) Trace(_ context.Context, _ string) (<-chan Exchange, error) { return nil, nil }

func (f showing) Ask(_ context.Context, _, _ string, _ []byte) (*Asked, error) { return &Asked{}, nil }

func (f showing) Write(_ context.Context, _, _, _ string) (*Written, error) {
	return nil, errors.New("not allowed")
}

func (f showing) Call(context.Context, string, string, []string) (*Called, error) {
	return nil, errors.New("not allowed")
}

// grow adds copies of the devices until there are n.
func grow(s *Snapshot, n int) {
	for i := len(s.Devices); i < n; i++ {
		d := s.Devices[i%4]
		d.Name = fmt.Sprintf("device-%d", i)
		d.Connected = i%100 != 7
		s.Devices = append(s.Devices, d)
	}
}

// TestPreview serves the example for a person to look at, for as long as MILLRACE_PREVIEW says.
func TestPreview(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv("MILLRACE_PREVIEW"))
	if err != nil {
		t.Skip("set MILLRACE_PREVIEW=10m to look at the page in a browser; MILLRACE_TROUBLE=outage or refused for one in trouble, many for 1000 devices")
	}
	handler := Handler(showing(func() *Snapshot {
		s := example(time.Now(), os.Getenv("MILLRACE_TROUBLE"))
		if os.Getenv("MILLRACE_TROUBLE") == "many" {
			grow(s, 1000)
		}
		return s
	}), 0)
	l, err := Listen(context.Background(), "127.0.0.1:8471", Bounds{}, mute)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	t.Log("look at http://127.0.0.1:8471/")
	if err := Run(ctx, l, handler, mute); err != nil {
		t.Fatal(err)
	}
}
