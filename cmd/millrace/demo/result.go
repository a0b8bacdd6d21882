package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"millrace/gateway/web"
)

// ErrLost means that the demo ran and readings were lost or came out of order. The account is printed.
var ErrLost = errors.New("readings were lost or came out of order")

// Result is the account at the end: what the simulators served, the gateway's ledger, and what the cloud
// received, each from its own counters. All figures are readings unless they say otherwise.
type Result struct {
	Served     uint64 `json:"served"`
	Polled     uint64 `json:"polled"`
	Suppressed uint64 `json:"suppressed"`
	Delivered  uint64 `json:"delivered"`
	Buffered   uint64 `json:"buffered"`
	InFlight   uint64 `json:"in_flight"`
	Dropped    uint64 `json:"dropped"`
	Received   uint64 `json:"received"`   // each reading once, bad ones too
	Lost       uint64 `json:"lost"`       // served or polled, not suppressed, and not received
	Duplicates uint64 `json:"duplicates"` // received again, known by epoch and sequence number
	Inversions uint64 `json:"inversions"` // messages that came after a later one of their device

	Bad            uint64         `json:"bad"`             // of the received ones
	Imbalance      int64          `json:"imbalance"`       // polled readings that the ledger does not explain
	MissingRecords uint64         `json:"missing_records"` // sequence numbers that never came
	Garbled        uint64         `json:"garbled"`         // messages that the cloud could not read
	Outages        int            `json:"outages"`
	OutageSeconds  float64        `json:"outage_seconds"`
	PeakBacklog    uint64         `json:"peak_backlog"`
	FirstReading   float64        `json:"first_reading_seconds"` // after the start of the demo
	Devices        []DeviceResult `json:"devices"`
}

// DeviceResult is the account of one device.
type DeviceResult struct {
	Name       string `json:"name"`
	Driver     string `json:"driver"`
	Served     uint64 `json:"served"`
	Polled     uint64 `json:"polled"`
	Suppressed uint64 `json:"suppressed"`
	Delivered  uint64 `json:"delivered"`
	Received   uint64 `json:"received"`
	Lost       uint64 `json:"lost"`
	Duplicates uint64 `json:"duplicates"`
	Inversions uint64 `json:"inversions"`
}

// settle compares the three accounts. served is by device.
func settle(served map[string]uint64, s *web.Snapshot, a *account) *Result {
	t := a.totals()
	r := &Result{Duplicates: t.duplicates, Inversions: t.inversions, Bad: t.bad, MissingRecords: t.missing, Garbled: t.garbled}
	for i := range s.Devices {
		d := &s.Devices[i]
		one := DeviceResult{Name: d.Name, Driver: d.Driver, Served: served[d.Name], Polled: d.Polled, Suppressed: d.Suppressed}
		for j := range d.Accounts {
			acc := &d.Accounts[j]
			one.Delivered += acc.Delivered
			r.Buffered += acc.Buffered
			r.InFlight += acc.InFlight
			r.Dropped += acc.Dropped.Total()
			r.Imbalance += abs(d.Imbalance(acc))
		}
		a.fill(&one)
		r.add(one)
	}
	return r
}

// fill enters what arrived of the device, and what did not: of the served readings every one that was not
// suppressed must be among the good ones received, of the polled ones every one among all received.
func (a *account) fill(one *DeviceResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.devices[one.Name]
	if d == nil {
		d = &arrived{}
	}
	one.Received = d.good + d.bad
	one.Duplicates, one.Inversions = d.duplicates, d.inversions
	one.Lost = max(less(one.Served, one.Suppressed+d.good), less(one.Polled, one.Suppressed+one.Received))
}

func (r *Result) add(one DeviceResult) {
	r.Served += one.Served
	r.Polled += one.Polled
	r.Suppressed += one.Suppressed
	r.Delivered += one.Delivered
	r.Received += one.Received
	r.Lost += one.Lost
	r.Devices = append(r.Devices, one)
}

// less is a-b, or 0 when b is larger.
func less(a, b uint64) uint64 { return a - min(a, b) }

func abs(n int64) int64 { return max(n, -n) }

// Faults says in words everything that must not be; empty when every reading arrived in order.
func (r *Result) Faults() []string {
	var f []string
	say := func(bad bool, format string, args ...any) {
		if bad {
			f = append(f, fmt.Sprintf(format, args...))
		}
	}
	say(r.Received == 0, "nothing arrived")
	say(r.Lost > 0, "%s readings were lost", web.Thousands(r.Lost))
	say(r.MissingRecords > 0, "%s sequence numbers never arrived", web.Thousands(r.MissingRecords))
	say(r.Inversions > 0, "%s messages came out of order", web.Thousands(r.Inversions))
	say(r.Dropped > 0, "the gateway dropped %s readings", web.Thousands(r.Dropped))
	say(r.Buffered+r.InFlight > 0, "%s readings are still in the gateway", web.Thousands(r.Buffered+r.InFlight))
	say(r.Garbled > 0, "%s messages could not be read", web.Thousands(r.Garbled))
	say(r.Imbalance != 0, "the ledger is off by %d readings", r.Imbalance)
	silent := slices.IndexFunc(r.Devices, func(d DeviceResult) bool { return d.Received == 0 })
	say(r.Received > 0 && silent >= 0, "nothing arrived from some device")
	return f
}

// Err is ErrLost when anything is wrong, else nil.
func (r *Result) Err() error {
	if faults := r.Faults(); len(faults) > 0 {
		return fmt.Errorf("%w: %s", ErrLost, strings.Join(faults, "; "))
	}
	return nil
}

// WriteJSON writes the result as one line of JSON.
func (r *Result) WriteJSON(w io.Writer) error {
	return json.NewEncoder(w).Encode(r)
}

// WriteText writes the result for a person.
func (r *Result) WriteText(w io.Writer, i ink) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", i.bold("What the plant served, what the gateway's ledger says, what arrived in the cloud"))
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "device\tserved\tpolled\tsuppressed\tdelivered\treceived\tlost\tduplicates\t")
	for _, d := range append(r.Devices, r.sum()) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", d.Name, web.Thousands(d.Served), web.Thousands(d.Polled), web.Thousands(d.Suppressed),
			web.Thousands(d.Delivered), web.Thousands(d.Received), web.Thousands(d.Lost), web.Thousands(d.Duplicates))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nledger  %s polled = %s suppressed + %s delivered\n        + %s buffered + %s in flight + %s dropped\n", web.Thousands(r.Polled),
		web.Thousands(r.Suppressed), web.Thousands(r.Delivered), web.Thousands(r.Buffered), web.Thousands(r.InFlight), web.Thousands(r.Dropped))
	if r.Outages > 0 {
		fmt.Fprintf(&b, "uplink  cut for %s; up to %s readings waited in the buffer meanwhile\n",
			web.Span(time.Duration(r.OutageSeconds*float64(time.Second))), web.Thousands(r.PeakBacklog))
	}
	if faults := r.Faults(); len(faults) > 0 {
		fmt.Fprintf(&b, "\n%s\n", i.bad("✕ "+strings.Join(faults, "; ")+"."))
	} else {
		fmt.Fprintf(&b, "\n%s\n", i.good("● Every reading arrived, in order.")+r.resent())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Result) resent() string {
	if r.Duplicates == 0 {
		return ""
	}
	return fmt.Sprintf(" %s came twice and were known by their sequence numbers.", web.Thousands(r.Duplicates))
}

func (r *Result) sum() DeviceResult {
	return DeviceResult{Name: "total", Served: r.Served, Polled: r.Polled, Suppressed: r.Suppressed, Delivered: r.Delivered,
		Received: r.Received, Lost: r.Lost, Duplicates: r.Duplicates}
}
