package modbus

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// answerOf is the frame with which unit 1 answers a read of holding registers.
func (b *bench) answerOf(f framing, first uint32, count int) []byte {
	pdu := []byte{readHolding, byte(2 * count)}
	for i := range count {
		pdu = binary.BigEndian.AppendUint16(pdu, b.stamp(1, modbussim.Holding, first+uint32(i)))
	}
	return f.pack(nil, 0, &request{unit: 1, pdu: pdu})
}

// TestOpeningAnswers: what another process asked just before the line was opened may be answered yet. It is not taken for the answer to the first
// request, nor are those that come later by it. Where nothing is owed it costs one request for each unit.
func TestOpeningAnswers(t *testing.T) {
	for name, words := range map[string][]string{"blocks": overdueLists()["blocks"], "singles": {"holding:100", "holding:300", "holding:500"}} {
		for transport, f := range map[string]framing{"rtuovertcp": rtu, "asciiovertcp": ascii} {
			for ghosts := range 4 {
				bubble(t, func(t *testing.T) {
					l := &laggard{serial: true, after: func() time.Duration { return 60 * time.Millisecond }}
					b := overdueLine(t, transport, l, words)
					count := 9
					if name == "singles" {
						count = 1
					}
					for i := range uint32(ghosts) {
						l.owed = append(l.owed, b.answerOf(f, 500-200*(i%2), count))
					}
					c, first := confused{}, b.requests(func() { b.judge(new(confused)) })
					l.owed = nil
					_ = b.driver.Close()
					_ = b.driver.Connect(t.Context())
					for i := range uint32(ghosts) {
						l.owed = append(l.owed, b.answerOf(f, 500-200*(i%2), count))
					}
					for range 6 {
						b.judge(&c)
					}
					if c.wrong+c.stale > 0 || c.good < 5*2*len(words) {
						t.Errorf("%s, %s, %d answers to another process: %+v", name, transport, ghosts, c)
					}
					if n := b.requests(func() { b.judge(&c) }); ghosts == 0 && first != n+2 {
						t.Errorf("%s, %s: %d requests at first, %d later; want one more for each of two units", name, transport, first, n)
					}
				})
			}
		}
	}
}

// TestBackAfterOutage: a unit that was silent, from the start or later, is good in the first poll after it is switched on again, or in the next,
// whatever it is read by and however long it was away. It ignores what it does not know, as libmodbus does with function 8.
func TestBackAfterOutage(t *testing.T) {
	for name, words := range overdueLists() {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp"} {
			for _, away := range []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute} {
				for _, begun := range []bool{false, true} {
					bubble(t, func(t *testing.T) {
						b := overdueLine(t, transport, &laggard{after: func() time.Duration { return 10 * time.Millisecond }}, words)
						b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: func(q modbussim.Request) bool { return q.Table > readInput }})
						if begun {
							b.judge(new(confused))
						}
						off := b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: func(q modbussim.Request) bool { return q.Unit == 1 }})
						for end := time.Now().Add(away); time.Now().Before(end); time.Sleep(time.Second) {
							b.judge(new(confused))
						}
						off()
						polls := 0
						for bad := 1; bad > 0 && polls < 10; polls++ {
							var err error
							if bad, err = b.read(drivers.Ref{}); wrong(err) {
								t.Fatal(err)
							}
							time.Sleep(time.Second)
						}
						t.Logf("FIGURES %s, %s, away %v, heard before %t: good in poll %d", name, transport, away, begun, polls)
						if polls > 2 {
							t.Errorf("%s, %s, away %v, heard before %t: good in poll %d", name, transport, away, begun, polls)
						}
					})
				}
			}
		}
	}
}

// TestWriteToEcho: where the adapter hears itself a write is confirmed by the device only, also where it is the first request. Where it does not, a
// write costs one read once, if nothing was read before.
func TestWriteToEcho(t *testing.T) {
	for word, value := range map[string]telemetry.Value{"holding:100": telemetry.Uint(7), "coil:10": telemetry.Bool(true), "holding:100.3": telemetry.Bool(true)} {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp", "rtuoverudp"} {
			for variant := range 8 {
				first, dead, echo := variant&1 > 0, variant&2 > 0, variant&4 > 0
				bubble(t, func(t *testing.T) {
					b := overdueLine(t, transport, &laggard{after: func() time.Duration { return 10 * time.Millisecond }}, []string{word})
					b.driver.Close()
					if dial := b.dialer; echo {
						b.driver.link.dialer = func(ctx context.Context, network, address string) (net.Conn, drain, error) {
							c, d, err := dial(ctx, network, address)
							return hearing{c.(*memoryConn)}, d, err
						}
					}
					_ = b.driver.Connect(t.Context())
					if !first {
						b.read(drivers.Ref{Device: 1})
					}
					if dead {
						b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: func(q modbussim.Request) bool { return q.Unit == 1 }})
					}
					if dead && !first {
						if _, err := b.read(drivers.Ref{}); err == nil || !strings.HasSuffix(err.Error(), ": no answer within 200ms") {
							t.Errorf("%s, %s, echo %t: read: %v", transport, word, echo, err)
						}
					}
					for range 2 {
						err := b.driver.Write(t.Context(), []drivers.Write{{Value: value}})[0]
						if (err != nil) != dead || dead && !strings.Contains(err.Error(), "no answer within 200ms; it is not known whether the device took it") {
							t.Errorf("%s, %s, first %t, dead %t, echo %t: %v", transport, word, first, dead, echo, err)
						}
					}
				})
			}
		}
	}
}

// TestLateWords: answers that come later than the timeout are told so, not as invalid.
func TestLateWords(t *testing.T) {
	for name, words := range overdueLists() {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp"} {
			bubble(t, func(t *testing.T) {
				n := 0
				b := overdueLine(t, transport, &laggard{serial: true, after: func() time.Duration {
					n++
					return time.Duration(10+n%5/3*400) * time.Millisecond
				}}, words)
				for range 100 {
					if _, err := b.read(drivers.Ref{}); err != nil {
						if wrong(err) || strings.Contains(err.Error(), "valid Modbus") {
							t.Errorf("%s, %s: %v", name, transport, err)
						}
					} else if slices.ContainsFunc(b.last, func(r telemetry.Reading) bool { return strings.Contains(r.Reason, "valid Modbus") }) {
						t.Errorf("%s, %s: %v", name, transport, b.last)
					}
					time.Sleep(300 * time.Millisecond)
				}
			})
		}
	}
}
