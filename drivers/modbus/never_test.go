package modbus

import (
	"errors"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// TestUnitsThatNeverAnswered: on a shared line a unit that has never answered is asked once, whichever of its groups is read, and costs one
// timeout; also where the connection owes the answer of another. The others lose nothing by it, and it is read whole once it answers.
func TestUnitsThatNeverAnswered(t *testing.T) {
	for _, transport := range []string{"tcp", "udp", "rtuovertcp"} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{Transport: transport}, 4, tags("holding:1", "input:500"), tags("holding:300", "coil:7"))
			for i := range b.conn.Devices {
				b.conn.Devices[i].Timeout = 2 * time.Second
			}
			b.open(t)
			for unit := 2; unit <= 4; unit++ {
				b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(uint8(unit))})
			}
			for range 3 {
				for group := range 2 {
					for unit := 1; unit < 4; unit++ {
						b.askedOnce(t, transport, drivers.Ref{Device: unit, Group: group})
						if bad, err := b.read(drivers.Ref{Group: group}); bad > 0 || err != nil {
							t.Errorf("%s: the unit that answers: %d bad, %v", transport, bad, err)
						}
					}
				}
			}
			b.sim.Mend()
			time.Sleep(3 * time.Second)
			if bad, err := b.pollAll(); bad > 0 || err != nil {
				t.Errorf("%s: all answer: %d bad, %v", transport, bad, err)
			}
		})
	}
}

// askedOnce reads a group of a silent unit: one request at most, one timeout. Without a transaction id another one may be over before that.
func (b *bench) askedOnce(t *testing.T, transport string, g drivers.Ref) {
	t.Helper()
	start, before := time.Now(), b.sim.Requests()
	_, err := b.read(g)
	took, asked := time.Since(start), b.sim.Requests()-before
	if !errors.Is(err, drivers.ErrDevice) || asked > 1 || took > 2*time.Second {
		t.Errorf("%s: group %d of unit %d: %d requests in %v, want one in 2 s: %v", transport, g.Group, g.Device+1, asked, took, err)
	}
}

// TestOneLostAnswerOnASharedLine: a unit that did answer is asked once more before it is bad, so that one lost answer costs no reading.
func TestOneLostAnswerOnASharedLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{}, 2, tags("holding:1", "input:500"), tags("holding:300")).open(t)
		if bad, err := b.pollAll(); bad > 0 || err != nil {
			t.Fatal(bad, err)
		}
		for range 5 {
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Times: 1, Match: modbussim.OfUnit(2)})
			if bad, err := b.read(drivers.Ref{Device: 1}); bad > 0 || err != nil {
				t.Errorf("%d bad, %v", bad, err)
			}
		}
	})
}

// TestSilenceIsTheUnits: what one group has found out holds for the others, also where the line has several connections: of a unit that fell
// silent, the first is asked twice, then each once.
func TestSilenceIsTheUnits(t *testing.T) {
	for _, connections := range []string{"1", "3"} {
		bubble(t, func(t *testing.T) {
			four := tags("holding:1", "input:500", "holding:300", "coil:7")
			b := newBubbleBench(t, modbussim.Options{}, 2, four, four, four).option("connections", connections)
			for i := range b.conn.Devices {
				b.conn.Devices[i].Timeout = 2 * time.Second
			}
			b.open(t)
			if bad, err := b.pollAll(); bad > 0 || err != nil {
				t.Fatal(bad, err)
			}
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(2)})
			before := b.sim.Requests()
			if _, err := b.read(drivers.Ref{Device: 1}); !errors.Is(err, drivers.ErrDevice) || connections == "1" && b.sim.Requests()-before != 2 {
				t.Errorf("%d requests, want 2: %v", b.sim.Requests()-before, err)
			}
			for group := range 3 {
				time.Sleep(laneRest + time.Second) // until further connections are used again
				b.askedOnce(t, connections+" connections", drivers.Ref{Device: 1, Group: group})
			}
		})
	}
}
