package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"millrace/gateway/web"
)

// three is an account of three polls of one device, and the ledger and the simulator's count that fit it.
func three(t *testing.T) (map[string]uint64, *web.Snapshot, *account) {
	t.Helper()
	a := book(t, poll("x", 1, false), poll("x", 2, false), poll("x", 3, false)) // 6 good and 3 bad readings
	s := &web.Snapshot{Devices: []web.Device{{Name: "x", Driver: "modbus", Polled: 10, Suppressed: 1,
		Accounts: []web.Account{{Destination: "cloud", Delivered: 9}}}}}
	return map[string]uint64{"x": 7}, s, a
}

// TestPlantedFaults plants each thing that must not be and expects the demo to fail because of it.
func TestPlantedFaults(t *testing.T) {
	cases := []struct {
		name  string
		plant func(served map[string]uint64, s *web.Snapshot, a *account)
		want  string
	}{
		{"nothing", func(map[string]uint64, *web.Snapshot, *account) {}, ""},
		{"served and never polled", func(served map[string]uint64, _ *web.Snapshot, _ *account) { served["x"]++ }, "1 readings were lost"},
		{"polled and never received", func(_ map[string]uint64, s *web.Snapshot, _ *account) {
			s.Devices[0].Polled += 3
			s.Devices[0].Accounts[0].Delivered += 3
		}, "3 readings were lost"},
		{"a message lost", func(_ map[string]uint64, s *web.Snapshot, a *account) {
			s.Devices[0].Polled += 3
			s.Devices[0].Accounts[0].Delivered += 3
			if err := a.take(poll("x", 5, false), noTime); err != nil {
				t.Fatal(err)
			}
		}, "1 sequence numbers never arrived"},
		{"out of order", func(_ map[string]uint64, _ *web.Snapshot, a *account) { a.devices["x"].inversions++ }, "1 messages came out of order"},
		{"dropped", func(_ map[string]uint64, s *web.Snapshot, _ *account) {
			s.Devices[0].Polled++
			s.Devices[0].Accounts[0].Dropped.Expired++
		}, "the gateway dropped 1 readings"},
		{"kept", func(_ map[string]uint64, s *web.Snapshot, _ *account) {
			s.Devices[0].Accounts[0].Delivered -= 2
			s.Devices[0].Accounts[0].Buffered = 2
		}, "2 readings are still in the gateway"},
		{"a ledger that does not add up", func(_ map[string]uint64, s *web.Snapshot, _ *account) { s.Devices[0].Accounts[0].Delivered-- }, "the ledger is off by 1"},
		{"garbled", func(_ map[string]uint64, _ *web.Snapshot, a *account) { _ = a.take([]byte("?"), noTime) }, "1 messages could not be read"},
		{"a silent device", func(_ map[string]uint64, s *web.Snapshot, _ *account) {
			s.Devices = append(s.Devices, web.Device{Name: "y"})
		}, "nothing arrived from some device"},
		{"nothing at all", func(_ map[string]uint64, _ *web.Snapshot, a *account) { *a = *newAccount() }, "nothing arrived"},
	}
	for _, c := range cases {
		served, s, a := three(t)
		c.plant(served, s, a)
		err := settle(served, s, a).Err()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (!errors.Is(err, ErrLost) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// TestResultJSON holds the fields that scripts rely on.
func TestResultJSON(t *testing.T) {
	var b bytes.Buffer
	if err := settle(three(t)).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || strings.Count(b.String(), "\n") != 1 {
		t.Fatalf("not one JSON object on one line: %q", b.String())
	}
	for field, want := range map[string]float64{"served": 7, "polled": 10, "suppressed": 1, "delivered": 9, "buffered": 0, "in_flight": 0,
		"dropped": 0, "received": 9, "lost": 0, "duplicates": 0, "inversions": 0} {
		if got[field] != want {
			t.Errorf("%s = %v, want %v", field, got[field], want)
		}
	}
}

func TestResultText(t *testing.T) {
	var b bytes.Buffer
	r := settle(three(t))
	r.Outages, r.OutageSeconds, r.PeakBacklog, r.Duplicates = 1, 8, 412, 12
	if err := r.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10 polled = 1 suppressed + 9 delivered\n        + 0 buffered + 0 in flight + 0 dropped", "cut for 8.0 s; up to 412",
		"Every reading arrived, in order.", "12 came twice", "total"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, b.String())
		}
	}
}
