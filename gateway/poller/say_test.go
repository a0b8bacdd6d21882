package poller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFlapsAreDamped: a device that comes and goes is told in full at first, then once a minute with how many lines were left out; the log
// ends with how it stands, and after a calm it is told in full again.
func TestFlapsAreDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		var ends []time.Time // of the flaps, of the outage and the calm after them, of the flaps after that
		run(t, f, 30*time.Minute, []time.Duration{time.Second}, func(*Poller) {
			flap := func(minutes int) {
				for range 15 * minutes {
					time.Sleep(2500 * time.Millisecond)
					f.change(func() { f.linkErr, f.refuse = errors.New("reset"), errors.New("refused") })
					time.Sleep(1500 * time.Millisecond)
					f.change(func() { f.linkErr, f.refuse = nil, nil })
				}
				ends = append(ends, time.Now())
			}
			time.Sleep(time.Minute)
			flap(10)
			f.change(func() { f.refuse, f.linkErr = errors.New("cable cut"), errors.New("cut") })
			time.Sleep(8 * time.Minute)
			ends = append(ends, time.Now())
			f.change(func() { f.refuse = nil })
			time.Sleep(time.Minute)
			flap(1)
		})
		said := make([][]string, len(ends)+1)
		for line := range strings.Lines(f.log.String()) {
			at, err := time.Parse("time="+time.RFC3339, strings.Fields(line)[0])
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for n < len(ends) && !at.Before(ends[n]) {
				n++
			}
			said[n] = append(said[n], line)
		}
		if n := len(said[0]); n < firstLines+8 || n > firstLines+12 || !strings.Contains(said[0][n-1], "left_out=") {
			t.Errorf("%d lines in ten minutes of flaps:\n%s", n, said[0])
		}
		if n := len(said[1]); n == 0 || n > 3 || !strings.Contains(said[1][n-1], "cable cut") {
			t.Errorf("the log does not end with how it stands:\n%s", said[1])
		}
		if n := len(said[2]); n < firstLines || n > firstLines+2 {
			t.Errorf("%d lines after a calm:\n%s", n, said[2])
		}
	})
}

// TestReasonStays: a cause that differs in our own port alone is one cause, in the log and as the reason of readings.
func TestReasonStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		f := &fake{refuse: portError{&n}}
		reasons := map[string]bool{}
		for _, tick := range run(t, f, 5*time.Minute, []time.Duration{time.Second}, func(*Poller) {}) {
			reasons[tick.reason] = true
		}
		if lines := strings.Count(f.log.String(), "connection is down"); n < 5 || lines != 1 || len(reasons) != 1 || !reasons["lookup plc: read udp 127.0.0.53:53: refused"] {
			t.Errorf("%d attempts, %d lines, reasons %v", n, lines, reasons)
		}
	})
}

// portError is another text each time.
type portError struct{ n *int }

func (e portError) Error() string {
	*e.n++
	return fmt.Sprintf("lookup plc: read udp 127.0.0.1:%d->127.0.0.53:53: refused", 40000+*e.n)
}
