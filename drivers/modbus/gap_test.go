package modbus

import (
	"fmt"
	"maps"
	"testing"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// islands are so many stretches of five registers, with gaps between them of registers that nobody asked for.
func islands(n, gap int) (words []string) {
	for i := range n {
		words = append(words, run("holding", i*(5+gap), 5)...)
	}
	return words
}

// refusing runs a case of a device with such islands that refuses some requests, in ways that differ: f looks after each poll.
func refusing(t *testing.T, polls, n, gap int, match func(modbussim.Request) bool, f func(poll, bad, requests int) error) {
	t.Helper()
	for _, way := range []string{"exception 2", "exception 6", "exception 11", "silence", "closing"} {
		fault := ways()[way]
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags(islands(n, gap)...)).open(t)
			fault.Match = match
			b.sim.Inject(fault)
			for poll := range polls {
				bad, err := 0, error(nil)
				requests := b.requests(func() { bad, err = b.read(drivers.Ref{}) })
				if !wrong(err) {
					err = f(poll, bad, requests)
				}
				if err != nil {
					t.Fatalf("%s, %d islands: poll %d: %v\n%q", way, n, poll, err, b.driver.Plan(drivers.Ref{}))
				}
			}
			want := map[string]string{"max_gap": "0"}
			if n == 2 { // one gap alone says nothing of others
				want = map[string]string{"forbidden": fmt.Sprintf("holding:5-%d", 4+gap)}
				if gap == 1 {
					want["forbidden"] = "holding:5"
				}
			}
			if learned := b.driver.Learned(0); gap > 0 && match(modbussim.Request{Addr: 4, Count: 2}) && !maps.Equal(learned, want) {
				t.Errorf("%s: learned %q, want %q", way, learned, want)
			}
		})
	}
}

// TestGapsRefused has a device that refuses each request across a gap, in each way: no reading is bad after the first poll, and what is
// asked beside the plan is a request now and then that becomes ever rarer.
func TestGapsRefused(t *testing.T) {
	for _, n := range []int{2, 20, 100} {
		for _, gap := range []int{1, 20} {
			t.Run(fmt.Sprintf("%d islands, gaps of %d", n, gap), func(t *testing.T) {
				t.Parallel() // with its like: no clock of a machine is near
				extra := 0
				strict := func(q modbussim.Request) bool { return int(q.Addr)%(5+gap)+int(q.Count) > 5 }
				refusing(t, 200, n, gap, strict, func(poll, bad, requests int) error {
					if poll == 0 {
						extra = 0
						return nil
					}
					if extra += requests - n; bad > 0 || requests < n || extra > (1+busyTries)*10 {
						return fmt.Errorf("%d bad, %d requests, %d more than the plan so far", bad, requests, extra)
					}
					return nil
				})
			})
		}
	}
}

// TestOneGapRefused has a device that refuses to be read across one gap of 99, and only that: it is found, and the others are read across.
func TestOneGapRefused(t *testing.T) {
	hole := modbussim.Touching(1, modbussim.Holding, 260, 260)
	refusing(t, 200, 100, 20, hole, func(poll, bad, requests int) error {
		if poll > 0 && bad > 0 || poll > 150 && requests > 20+1 {
			return fmt.Errorf("%d bad, %d requests; want 21: 20 without the hole", bad, requests)
		}
		return nil
	})
}

// TestOneRefusedBesideGaps is TestOneRefusedOfThousand with gaps between the registers.
func TestOneRefusedBesideGaps(t *testing.T) {
	for _, at := range []uint16{0, 2, 2502} {
		one := modbussim.Touching(1, modbussim.Holding, at, at)
		refusing(t, 30, 200, 20, one, func(poll, bad, requests int) error {
			if poll > 9 && (bad != 1 || requests > 40+1+2+busyTries) {
				return fmt.Errorf("%d bad, %d requests", bad, requests)
			}
			return nil
		})
	}
}

// TestLengthRefusedOfThousand has a device that refuses long requests, of 1,000 registers that need many.
func TestLengthRefusedOfThousand(t *testing.T) {
	for _, most := range []uint16{1, 10, 60} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel() // with its like: no clock of a machine is near
			long := func(q modbussim.Request) bool { return q.Count > most }
			refusing(t, 70, 200, 0, long, func(poll, bad, requests int) error {
				if poll > 9 && (bad > 0 || poll > 50 && requests > 8*((125+int(most)-1)/int(most))+1+busyTries) {
					return fmt.Errorf("%d bad, %d requests", bad, requests)
				}
				return nil
			})
		})
	}
}
