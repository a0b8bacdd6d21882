package modbus

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// laggard is a line whose answers come late: each after a time of its own, in their order, and none before the end of a stall. What waits is
// bounded, as the buffers of a device server are: more is lost.
type laggard struct {
	after   func() time.Duration
	serial  bool                 // the next request is looked at when the answer to the one before has gone
	stall   func() time.Duration // for which the line stands still from an answer on; nil = never
	until   time.Time            // the end of that
	last    time.Time            // when the last answer goes
	waiting chan struct{}
	owed    [][]byte  // answers to what another process asked before, which come first
	refused time.Time // when the last refusal goes
	busy    exception // what a request is refused with at once while an older one is under way, 0 = it waits
}

// refusalTime is what a refusal takes: long enough that an answer to an older request comes first at times.
const refusalTime = 50 * time.Millisecond

// refusalTo is the frame that refuses a request in place of an answer.
func refusalTo(frame []byte, code exception) []byte {
	if frame[0] != ':' {
		return rtu.pack(nil, 0, &request{unit: frame[0], pdu: []byte{frame[1]&^exceptionBit | exceptionBit, byte(code)}})
	}
	var head [2]byte
	_, _ = hex.Decode(head[:], frame[1:5])
	return ascii.pack(nil, 0, &request{unit: head[0], pdu: []byte{head[1]&^exceptionBit | exceptionBit, byte(code)}})
}

func (l *laggard) write(to io.Writer, frame []byte) bool {
	owed := l.owed
	l.owed = nil
	for _, f := range owed {
		l.write(to, f)
	}
	select {
	case l.waiting <- struct{}{}:
	default:
		return true
	}
	at := time.Now()
	if l.busy != 0 && l.last.After(at) {
		refusal := refusalTo(frame, l.busy)
		l.refused = at.Add(refusalTime)
		time.AfterFunc(refusalTime, func() {
			<-l.waiting
			_, _ = to.Write(refusal)
		})
		return true
	}
	if l.stall != nil && at.After(l.until) {
		l.until = at.Add(l.stall())
	}
	if at.Before(l.until) {
		at = l.until
	}
	if l.serial && l.last.After(at) {
		at = l.last
	}
	at = at.Add(l.after())
	for _, before := range []time.Time{l.last, l.refused} {
		if !at.After(before) {
			at = before.Add(time.Microsecond)
		}
	}
	l.last = at
	whole := append([]byte(nil), frame...)
	time.AfterFunc(time.Until(at), func() {
		<-l.waiting
		_, _ = to.Write(whole)
	})
	return true
}

// overdueLists are tags whose requests are alike: blocks of equal length, blocks and single registers, and single registers only.
func overdueLists() map[string][]string {
	blocks := slices.Concat(run("holding", 100, 9), run("holding", 300, 9), run("holding", 500, 9), run("input", 100, 9))
	singles := []string{"holding:0", "holding:200", "holding:400", "input:0", "input:200", "coil:0", "coil:5000", "discrete:0", "discrete:5000"}
	return map[string][]string{"blocks": blocks, "mixed": slices.Concat(blocks, singles), "singles": singles}
}

// overdueLine is two units on such a line.
func overdueLine(t *testing.T, transport string, l *laggard, words []string) *bench {
	l.waiting = make(chan struct{}, 8)
	network := newMemory(strings.Contains(transport, "udp"))
	b := &bench{sim: startSim(t, modbussim.Options{Transport: transport, Listener: network, Wire: l.write}), dialer: network.dial}
	b.conn.URL = b.sim.URL()
	for u := 1; u <= 2; u++ {
		b.sim.Unit(uint8(u)).Fill(b.fill)
		b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, u, tags(words...)))
	}
	return b.open(t)
}

// confused is what is counted of good readings.
type confused struct{ good, wrong, stale int }

// judge looks at a poll of each unit: a value of other registers is wrong, one that the device had at an earlier poll is stale.
func (b *bench) judge(c *confused) {
	for i := range b.conn.Devices {
		b.generation.Add(1)
		readings, err := b.driver.Read(context.Background(), drivers.Ref{Device: i}, nil)
		if err != nil {
			continue
		}
		for k := range readings {
			tag := &b.conn.Devices[i].Groups[0].Tags[k]
			switch want := b.want(drivers.Ref{Device: i}, tag); {
			case readings[k].Quality != telemetry.Good:
			case readings[k].Value == want:
				c.good++
			case want.Kind == telemetry.KindUint && readings[k].Value.Bits>>4 == want.Bits>>4:
				c.stale++
			default: // of a bit nobody knows
				c.wrong++
			}
		}
	}
}

// TestOverdueAnswers: however late answers come on a line without transaction ids, none is taken for that to another request, nor for that to
// the same one made again, also where no fence but the request itself is of use.
func TestOverdueAnswers(t *testing.T) {
	const timeout = 200 * time.Millisecond // of the bench
	delays := map[string]func(r *rand.Rand) float64{"0.1 to 12 at random": func(r *rand.Rand) float64 { return 0.1 + 12*r.Float64()*r.Float64() }}
	for _, x := range []float64{1.1, 1.5, 2.1, 2.5, 3.3, 5, 10} {
		delays[fmt.Sprint(x)] = func(*rand.Rand) float64 { return x }
		delays[fmt.Sprint("one of three ", x)] = func(r *rand.Rand) float64 {
			if r.IntN(3) == 0 {
				return x
			}
			return 0.05
		}
	}
	for name, words := range overdueLists() {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp", "rtuoverudp"} {
			t.Run(name+" "+transport, func(t *testing.T) {
				t.Parallel() // with its like: no clock of a machine is near
				sum, worst := confused{}, ""
				for delay, of := range delays {
					for _, serial := range []bool{false, true} {
						c := confused{}
						bubble(t, func(t *testing.T) {
							r := rand.New(rand.NewPCG(*seedFlag, 1))
							l := &laggard{serial: serial, after: func() time.Duration { return time.Duration(of(r) * float64(timeout)) }}
							b := overdueLine(t, transport, l, words)
							for range 200 / raceShare {
								b.judge(&c)
								time.Sleep(time.Second)
							}
						})
						if c.wrong+c.stale > 0 {
							worst += fmt.Sprintf("; %s timeouts, one after another %t: %+v", delay, serial, c)
						}
						sum.good, sum.wrong, sum.stale = sum.good+c.good, sum.wrong+c.wrong, sum.stale+c.stale
					}
				}
				t.Logf("FIGURES %s, %s: %+v", name, transport, sum)
				if sum.wrong+sum.stale > 0 || sum.good == 0 {
					t.Errorf("%+v%s", sum, worst)
				}
			})
		}
	}
}

// TestOverdueAfterStall: a line that stands still for one to ten timeouts, as a USB adapter or a machine does, and then brings one answer after another.
func TestOverdueAfterStall(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for name, words := range overdueLists() {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp", "rtuoverudp"} {
			c := confused{}
			bubble(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(*seedFlag, 2))
				s := rand.New(rand.NewPCG(*seedFlag, 3)) // of the device's side
				l := &laggard{serial: true, after: func() time.Duration { return time.Duration(5+s.IntN(55)) * time.Millisecond }}
				l.stall = func() time.Duration {
					if s.IntN(20) > 0 {
						return 0
					}
					return time.Duration((1 + 9*s.Float64()) * float64(timeout))
				}
				b := overdueLine(t, transport, l, words)
				for range 300 / raceShare {
					b.judge(&c)
					time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
				}
			})
			t.Logf("FIGURES %s, %s: %+v", name, transport, c)
			if c.wrong+c.stale > 0 || c.good == 0 {
				t.Errorf("%s, %s: %+v", name, transport, c)
			}
		}
	}
}

// TestOverdueBusy: a unit that refuses requests at once while the answer to an older one is still to come. Refusals say nothing of that.
func TestOverdueBusy(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for name, words := range overdueLists() {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp"} {
			for _, code := range []exception{1, 3, acknowledge, busy} {
				t.Run(fmt.Sprintf("%s %s exception %d", name, transport, code), func(t *testing.T) {
					t.Parallel()
					c := confused{}
					bubble(t, func(t *testing.T) {
						r := rand.New(rand.NewPCG(*seedFlag, 4))
						s := rand.New(rand.NewPCG(*seedFlag, 5)) // of the device's side
						l := &laggard{serial: true, busy: code, after: func() time.Duration {
							if s.IntN(8) == 0 {
								return time.Duration((1 + 4*s.Float64()) * float64(timeout))
							}
							return 5 * time.Millisecond
						}}
						b := overdueLine(t, transport, l, words)
						for range 300 / raceShare {
							b.judge(&c)
							time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
						}
					})
					t.Logf("FIGURES %s, %s, exception %d: %+v", name, transport, code, c)
					if c.wrong+c.stale > 0 || c.good == 0 {
						t.Errorf("%+v", c)
					}
				})
			}
		}
	}
}
