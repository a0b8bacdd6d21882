package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"millrace/drivers"
	"millrace/gateway/config"
)

// TestDescriptorsKeepAReserve: however dials and closed connections come and go, the last descriptors stay free.
func TestDescriptorsKeepAReserve(t *testing.T) {
	open, counted := 10, 0
	d := newDescriptors()
	d.limit = func() int { return 100 }
	d.open = func() int { counted++; return open }
	admitted := 0
	for range 200 {
		leave, err := d.enter(1)
		if err != nil {
			if !strings.Contains(err.Error(), "may open 100, and the last 16 are kept") {
				t.Fatal(err)
			}
			continue
		}
		admitted++
		open++
		leave()
		leave() // once is enough
	}
	if open != 100-descriptorReserve || admitted != open-10 {
		t.Errorf("%d in use after %d dials, want %d", open, admitted, 100-descriptorReserve)
	}
	open = 60 // a switch died, and 24 devices are dialled again at once: none has its descriptor yet
	admitted = 0
	for range 200 {
		if _, err := d.enter(1); err == nil {
			admitted++
		}
	}
	if admitted != 24 {
		t.Errorf("%d dials admitted at once with 60 of 100 in use, want 24", admitted)
	}
	if counted > 500 {
		t.Errorf("counted %d times", counted)
	}
}

// TestDescriptorsAreCountedSeldom: the thousand dials of a start do not read a directory of a thousand entries each.
func TestDescriptorsAreCountedSeldom(t *testing.T) {
	counted := 0
	d := newDescriptors()
	d.limit = func() int { return 16384 }
	d.open = func() int { counted++; return 12 }
	for range 1000 {
		leave, err := d.enter(1)
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	if counted != 1 {
		t.Errorf("counted %d times, want once", counted)
	}
}

func TestDescriptorsWithoutALimit(t *testing.T) {
	d := &descriptors{limit: func() int { return 0 }}
	for range 1000 {
		leave, err := d.enter(1)
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	if s := d.tooFewFor(&config.Config{}); s != "" {
		t.Error(s)
	}
}

// TestDescriptorsAreCounted holds the counting of this system against descriptors that are known.
func TestDescriptorsAreCounted(t *testing.T) {
	if descriptorLimit() == 0 {
		t.Skip("this system has no limit that we know")
	}
	before := openDescriptors()
	for i := range 5 {
		f := openOne(t)
		defer f.Close()
		if n := openDescriptors(); n < before+i+1 {
			t.Errorf("%d open, counted %d", before+i+1, n)
		}
	}
}

func TestTooFewDescriptorsAreSaid(t *testing.T) {
	cfg := &config.Config{Destinations: make([]config.Destination, 1)}
	for i := range 100 {
		cfg.Devices = append(cfg.Devices, config.Device{Name: fmt.Sprint(i), URL: fmt.Sprint(i)})
	}
	for limit, want := range map[int]string{200: "", 141: "", 131: "about 10 devices will not be polled", 10: "about 100 devices"} {
		d := &descriptors{limit: func() int { return limit }}
		if got := d.tooFewFor(cfg); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("limit %d: %q, want %q", limit, got, want)
		}
	}
}

func openOne(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestDescriptorsAreKeptForTheStore: connections to the page get what devices do not, and neither gets the last ten.
func TestDescriptorsAreKeptForTheStore(t *testing.T) {
	open := 10
	d := newDescriptors()
	d.limit = func() int { return 128 }
	d.open = func() int { return open }
	for range 400 {
		if d.admit() {
			open++
		}
	}
	if open != 128-storeReserve {
		t.Errorf("%d of 128 in use after 400 connections to the page, want %d", open, 128-storeReserve)
	}
	if _, err := d.enter(1); err == nil {
		t.Error("a device is dialled with the last descriptors")
	}
	for limit, want := range map[int]int{0: 64, 40: 5, 16: 4, 128: 16, 1024: 64, 1 << 20: 64} {
		if got := pageShare(limit); got != want {
			t.Errorf("limit %d: the page has %d connections, want %d", limit, got, want)
		}
	}
}

// TestDescriptorsOfSeveralConnections: a driver that opens four takes four.
func TestDescriptorsOfSeveralConnections(t *testing.T) {
	d := newDescriptors()
	d.limit, d.open = func() int { return 100 }, func() int { return 70 }
	admitted := 0
	for range 10 {
		if _, err := d.enter(4); err == nil {
			admitted++
		}
	}
	if admitted != 3 {
		t.Errorf("%d dials of 4 connections admitted with 70 of 84 in use, want 3", admitted)
	}
	p := drivers.Protocol{Connections: "connections"}
	for text, want := range map[string]int{"4": 4, "": 1} {
		c := config.Connection{Protocol: p}
		c.Connection.Options = map[string]string{"connections": text}
		if n := openedBy(&c); n != want {
			t.Errorf("connections %q: %d", text, n)
		}
	}
	if n := openedBy(&config.Connection{}); n != 1 {
		t.Errorf("without the option: %d", n)
	}
}
