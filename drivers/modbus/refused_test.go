package modbus

import (
	"fmt"
	"testing"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// ways is how devices refuse a register.
func ways() map[string]modbussim.Fault {
	all := map[string]modbussim.Fault{"silence": {Kind: modbussim.Silence}, "closing": {Kind: modbussim.CloseAt}}
	for _, code := range []byte{1, 2, 3, 4, 5, 6, 7, 10, 11, 0x80} {
		all[fmt.Sprint("exception ", code)] = modbussim.Fault{Kind: modbussim.Exception, Code: code}
	}
	return all
}

// TestOneRefusedOfThousand has one register of 1,000 refused, in each way and at several places: 999 are good within ten
// polls, within two where an exception says so, and at most two requests a poll are made for it afterwards.
func TestOneRefusedOfThousand(t *testing.T) {
	for way, f := range ways() {
		for _, at := range []uint16{0, 3, 124, 500, 999} {
			if f.Code == 5 && at != 3 {
				continue // like 6
			}
			bubble(t, func(t *testing.T) {
				b := newBubbleBench(t, modbussim.Options{}, 1, tags(run("holding", 0, 1000)...)).open(t)
				f := f
				f.Match = modbussim.Touching(1, modbussim.Holding, at, at)
				b.sim.Inject(f)
				if err := b.refusesOne(f, at); err != nil {
					t.Errorf("%s at %d: %v\n%q", way, at, err, b.driver.Plan(drivers.Ref{}))
				}
			})
		}
	}
}

// refusesOne is one case.
func (b *bench) refusesOne(f modbussim.Fault, at uint16) error {
	polls, most := 10, 8+1+2 // the plan takes 9 then
	patient := f.Kind == modbussim.Exception && exception(f.Code).passing()
	if patient {
		most += busyTries
	} else if f.Kind == modbussim.Exception {
		polls = 2
	}
	bad, err := 1000, error(nil)
	for n := 0; bad != 1; n++ {
		if n == polls {
			return fmt.Errorf("%d bad after %d polls, %w", bad, polls, err)
		}
		if bad, err = b.read(drivers.Ref{}); wrong(err) {
			return err
		}
	}
	if want := wordsOf(f); b.last[at].Reason != want {
		return fmt.Errorf("reason %q, want %q", b.last[at].Reason, want)
	}
	for range 12 {
		n := b.requests(func() { bad, err = b.read(drivers.Ref{}) })
		if bad != 1 || err != nil || n > most {
			return fmt.Errorf("later: %d bad, %w, in %d requests; want at most %d", bad, err, n, most)
		}
	}
	return nil
}

// wordsOf is the reason of a register that is refused in a way.
func wordsOf(f modbussim.Fault) string {
	switch f.Kind {
	case modbussim.Silence:
		return "no answer within 200ms"
	case modbussim.CloseAt:
		return "the device closed the connection"
	}
	return exception(f.Code).Error()
}
