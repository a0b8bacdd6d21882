package modbus

import (
	"errors"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// lineOfThree is a line of 9600 baud in a bubble, of which unit 2 is silent; unit 1 takes a long answer, the others short ones.
func lineOfThree(t *testing.T, transport string, fault modbussim.Fault) *bench {
	b := newBubbleBench(t, modbussim.Options{Transport: transport, Character: 11 * time.Second / 9600, Answer: 10 * time.Millisecond}, 3, tags(run("holding", 0, 8)...))
	for i := range b.conn.Devices {
		b.conn.Devices[i].Timeout = 2 * time.Second
	}
	b.open(t)
	if bad, err := b.pollAll(); bad > 0 || err != nil {
		t.Fatal(bad, err)
	}
	fault.Match = modbussim.OfUnit(2)
	b.sim.Inject(fault)
	return b
}

// try polls the silent unit, and says how much of the line's time that took.
func (b *bench) try(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	if _, err := b.read(drivers.Ref{Device: 1}); !errors.Is(err, drivers.ErrDevice) {
		t.Errorf("%v", err)
	}
	return time.Since(start)
}

// TestSilentUnitIsTriedBriefly: where a serial line is shared, a silent unit costs a short wait, by what it needed before, and a whole timeout once
// in a hundred seconds. With transaction ids it costs a timeout.
func TestSilentUnitIsTriedBriefly(t *testing.T) {
	for transport, most := range map[string]time.Duration{"rtuovertcp": 4 * 50 * time.Millisecond, "asciiovertcp": 4 * 100 * time.Millisecond, "tcp": 2 * time.Second} {
		bubble(t, func(t *testing.T) {
			b := lineOfThree(t, transport, modbussim.Fault{Kind: modbussim.Silence})
			if took := b.try(t); took < 2*time.Second || took > 6*time.Second {
				t.Errorf("%s: the first try took %v, want two timeouts", transport, took)
			}
			time.Sleep(300 * time.Millisecond)
			if took := b.try(t); took > most {
				t.Errorf("%s: a try soon after took %v, want at most %v", transport, took, most)
			}
			whole := 0
			for range 100 {
				time.Sleep(3 * time.Second)
				took := b.try(t)
				if took >= 2*time.Second {
					whole++
				} else if took > most {
					t.Errorf("%s: a try took %v, want at most %v", transport, took, most)
				}
			}
			if transport != "tcp" && (whole < 2 || whole > 4) {
				t.Errorf("%s: %d whole timeouts in five minutes", transport, whole)
			}
			b.sim.Mend()
			time.Sleep(3 * time.Second)
			if bad, err := b.read(drivers.Ref{Device: 1}); bad > 0 || err != nil {
				t.Errorf("%s: it is back: %d bad, %v", transport, bad, err)
			}
		})
	}
}

// TestSlowUnitIsFound: a unit that has become slow, but answers within its timeout, is not taken for dead for longer than a hundred seconds.
func TestSlowUnitIsFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := lineOfThree(t, "rtuovertcp", modbussim.Fault{Kind: modbussim.Silence})
		b.try(t)
		b.sim.Mend()
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 1500 * time.Millisecond, Match: modbussim.OfUnit(2)})
		start := time.Now()
		for {
			time.Sleep(3 * time.Second)
			if bad, err := b.read(drivers.Ref{Device: 1}); bad == 0 && err == nil {
				break
			} else if time.Since(start) > 110*time.Second {
				t.Fatalf("%v after: %d bad, %v", time.Since(start), bad, err)
			}
			if bad, err := b.read(drivers.Ref{Device: 0}); bad > 0 || err != nil {
				t.Errorf("its neighbour: %d bad, %v", bad, err)
			}
		}
	})
}
