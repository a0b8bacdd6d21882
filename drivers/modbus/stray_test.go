package modbus

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// rival is a second master behind a converter that lets every client hear all answers.
type rival struct {
	*mangler
	line   io.Writer // to us
	before int       // of 100 of our answers: one of its own comes first, and fits
	after  int       // likewise: it comes a moment later
}

func (v *rival) write(to io.Writer, frame []byte) bool {
	v.line = to
	switch n := v.r.IntN(100); {
	case n < v.before:
		_, _ = to.Write(v.other(frame))
		time.Sleep(10 * time.Millisecond)
		_, _ = to.Write(frame)
	case n < v.before+v.after:
		_, _ = to.Write(frame)
		time.Sleep(2 * time.Millisecond)
		_, _ = to.Write(v.other(frame))
	default:
		_, _ = to.Write(frame)
	}
	return true
}

// other is the answer to a like request of the rival, with other values.
func (v *rival) other(frame []byte) []byte {
	body, _ := v.open(frame)
	body = append([]byte(nil), body...)
	for i := 3; i < len(body); i++ {
		body[i] = byte(v.r.Uint32())
	}
	return v.seal(frame, body)
}

// wireBench is a device whose answers go through write.
func wireBench(t *testing.T, transport string, write func(to io.Writer, frame []byte) bool) *bench {
	network := newMemory(strings.Contains(transport, "udp"))
	b := &bench{sim: startSim(t, modbussim.Options{Transport: transport, Listener: network, Wire: write}), dialer: network.dial}
	b.conn.URL = b.sim.URL()
	b.sim.Unit(1).Fill(b.fill)
	b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, 1, tags(append(campaignTags(), "holding:600 uint32")...)))
	return b
}

// rivalBench is a device on a line that another master uses, too.
func rivalBench(t *testing.T, transport string, seed uint64) (*bench, *rival) {
	v := &rival{mangler: &mangler{r: rand.New(rand.NewPCG(seed, 1))}}
	b := wireBench(t, transport, v.write)
	e, _ := parseURL(b.conn.URL)
	v.framing = e.framing
	return b.open(t), v
}

// TestSecondMaster: once another master was heard, no value of its answers is taken for the device's, however alike they are, and the line is
// told as contested; when it is gone for five minutes, all is as before.
func TestSecondMaster(t *testing.T) {
	for _, transport := range []string{"rtuovertcp", "asciiovertcp", "rtuoverudp"} {
		bubble(t, func(t *testing.T) {
			b, v := rivalBench(t, transport, 1)
			if bad, err := b.pollAll(); bad > 0 || err != nil {
				t.Fatalf("%s: %d bad, %v", transport, bad, err)
			}
			for range fewStrays { // it asks other things meanwhile
				_, _ = v.line.Write(v.seal([]byte{0}, []byte{9, 3, 2, 1, 1}))
				b.pollAll()
				time.Sleep(time.Second)
			}
			const what = "another master speaks on this line: 3 frames that nobody here asked for, the last 0903020101"
			if tr := b.driver.Trouble(); tr.State != drivers.Contested || tr.What != what || tr.Mend != rivalMend {
				t.Errorf("%s: trouble %+v", transport, tr)
			}
			if w, again := b.driver.Warning(), b.driver.Warning(); w != what+"; "+rivalMend || again != "" {
				t.Errorf("%s: warned %q, then %q", transport, w, again)
			}
			v.before, v.after = 10, 10
			good, all := 0, 0
			for range 300 {
				bad, err := b.pollAll()
				if wrong(err) {
					t.Fatalf("%s: %v", transport, err)
				}
				n := len(b.conn.Devices[0].Groups[0].Tags)
				good, all = good+n-bad, all+n
				time.Sleep(time.Second)
			}
			t.Logf("FIGURES %s: %d of %d readings good while a fifth of the answers is crossed", transport, good, all)
			if good < all/4 {
				t.Errorf("%s: only %d of %d readings good", transport, good, all)
			}
			v.before, v.after = 0, 0
			time.Sleep(contestTime)
			b.clock += contestTime
			start := time.Now()
			if bad, err := b.pollAll(); bad > 0 || err != nil || time.Since(start) > 0 || b.driver.Trouble().State != "" {
				t.Errorf("%s, alone again: %d bad, %v, in %v, %+v", transport, bad, err, time.Since(start), b.driver.Trouble())
			}
		})
	}
}

// TestFirstCrossedAnswer: an answer that was another's shows when the true one comes while the poll goes on; the poll is made again then.
func TestFirstCrossedAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, v := rivalBench(t, "rtuovertcp", 1)
		b.pollAll()
		v.before = 100
		if bad, err := b.pollAll(); wrong(err) || err == nil && bad == 0 {
			t.Errorf("%d bad, %v", bad, err)
		}
	})
}

// TestLateAnswersAreTold: where no transaction id says so, what comes after the time is up is known by its form.
func TestLateAnswersAreTold(t *testing.T) {
	for _, transport := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
		bubble(t, func(t *testing.T) {
			b, _ := rivalBench(t, transport, 1)
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 300 * time.Millisecond})
			warned := ""
			for range 10 {
				if _, err := b.pollAll(); wrong(err) {
					t.Fatal(err)
				}
				warned += b.driver.Warning()
			}
			if !strings.HasPrefix(warned, "answers come later than timeout: ") || !strings.HasSuffix(warned, " so far; raise timeout") || b.driver.Trouble().State != "" {
				t.Errorf("%s: %q, %+v", transport, warned, b.driver.Trouble())
			}
			if _, err := b.driver.Read(t.Context(), drivers.Ref{}, nil); err == nil || !strings.HasSuffix(err.Error(), "no answer within 200ms"+lateWords) {
				t.Errorf("%s: %v", transport, err)
			}
		})
	}
}

func twice(to io.Writer, frame []byte) bool {
	_, err := to.Write(append(frame[:len(frame):len(frame)], frame...))
	return err == nil
}

func noisy(to io.Writer, frame []byte) bool {
	_, err := to.Write(append(append([]byte{0xff, 0}, frame...), 0, 0))
	return err == nil
}

func plainly(to io.Writer, frame []byte) bool { _, err := to.Write(frame); return err == nil }

// TestTwiceIsTold: answers that come twice cost no reading, and are told.
func TestTwiceIsTold(t *testing.T) {
	for _, transport := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
		bubble(t, func(t *testing.T) {
			warned, b := "", wireBench(t, transport, twice).open(t)
			for range 10 {
				if bad, err := b.pollAll(); bad > 0 || err != nil {
					t.Errorf("%s: %d bad, %v", transport, bad, err)
				}
				warned += b.driver.Warning()
			}
			if !strings.HasPrefix(warned, "answers come twice: ") || strings.Contains(warned, "master") || b.driver.Trouble().State != "" {
				t.Errorf("%s: %q, %+v", transport, warned, b.driver.Trouble())
			}
		})
	}
}

// TestNoMaster: what a device and its adapter do of their own is not taken for another master.
func TestNoMaster(t *testing.T) {
	delay := modbussim.Fault{Kind: modbussim.Delay, Wait: 300 * time.Millisecond, Match: func(q modbussim.Request) bool { return q.Write != 0 }}
	for name, f := range map[string]modbussim.Fault{"slow writes": delay, "another unit id": {Kind: modbussim.WrongUnit}, "two bytes too few": {Kind: modbussim.ShortValues}, "another function": {Kind: modbussim.WrongFunction}} {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp"} {
			for _, accept := range []bool{false, true} {
				bubble(t, func(t *testing.T) {
					b := wireBench(t, transport, plainly)
					if accept { // and noise around each answer
						b = wireBench(t, transport, noisy).option("accept_unit", "any")
					}
					b.open(t)
					b.sim.Inject(f)
					for i := range 10 {
						if _, err := b.pollAll(); wrong(err) {
							t.Fatal(err)
						}
						if name == "slow writes" {
							_ = b.driver.Write(t.Context(), []drivers.Write{{Tag: len(campaignTags()), Value: telemetry.Uint(uint64(i))}})
						}
					}
					time.Sleep(time.Second)
					b.pollAll()
					if tr := b.driver.Trouble(); tr.State != "" || !b.driver.link.strays.rival.IsZero() {
						t.Errorf("%s, %s, accept_unit %t: %+v, %+v", name, transport, accept, tr, b.driver.link.strays.seen)
					}
				})
			}
		}
	}
}

// hearing is a connection over an adapter that hears itself.
type hearing struct{ *memoryConn }

func (c hearing) Write(b []byte) (int, error) {
	c.change(func() { c.chunks = append(c.chunks, append([]byte(nil), b...)) })
	return c.memoryConn.Write(b)
}

// pieces writes a few bytes at a time.
type pieces struct{ io.Writer }

func (p pieces) Write(b []byte) (n int, err error) {
	for i := 0; i < len(b) && err == nil; i += n {
		n, err = p.Writer.Write(b[i:min(i+3, len(b))])
	}
	return len(b), err
}

// TestOneStray: where another master may have been heard once, a healthy line keeps all its readings, whatever its manners, and they do not
// keep it suspected.
func TestOneStray(t *testing.T) {
	const beat = "\x01\x03beat"
	beating := func(to io.Writer, frame []byte) bool {
		_, err := to.Write([]byte(beat + string(frame) + beat + beat))
		return err == nil
	}
	for name, write := range map[string]func(io.Writer, []byte) bool{"noise": noisy, "twice": twice, "heartbeats": beating, "echo": plainly} {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp"} {
			bubble(t, func(t *testing.T) {
				b := wireBench(t, transport, func(to io.Writer, frame []byte) bool { return write(pieces{to}, frame) }).option("accept_unit", "any")
				if dial := b.dialer; name == "echo" {
					b.dialer = func(ctx context.Context, network, address string) (net.Conn, drain, error) {
						c, d, err := dial(ctx, network, address)
						return hearing{c.(*memoryConn)}, d, err
					}
				}
				b.open(t)
				if name == "heartbeats" {
					b.driver.link.wire.heartbeat = []byte(beat)
				}
				b.pollAll()
				stray, k := time.Now(), &b.driver.link.strays
				k.note(strayRival, []byte{9, 3, 2, 1, 1}, stray)
				for range 20 {
					if bad, err := b.pollAll(); bad > 0 || err != nil {
						t.Errorf("%s, %s: %d bad, %v", name, transport, bad, err)
					}
					time.Sleep(time.Second)
				}
				if k.rival != stray {
					t.Errorf("%s, %s: %+v", name, transport, k.seen[strayRival])
				}
			})
		}
	}
}

// TestBusyRival: another master that asks the same device for the same things all the time, and gets exceptions, too, costs some readings,
// and makes none of them wrong, nor gives them its reasons.
func TestBusyRival(t *testing.T) {
	for _, transport := range []string{"rtuovertcp", "asciiovertcp"} {
		bubble(t, func(t *testing.T) {
			b, v := rivalBench(t, transport, 1)
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 5 * time.Millisecond})
			b.pollAll()
			line, stop, r := v.line, make(chan struct{}), rand.New(rand.NewPCG(2, 1))
			defer close(stop)
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(200+r.IntN(200)) * time.Millisecond):
					}
					other := []byte{1, 0x83, 2}
					if r.IntN(2) == 0 {
						other = append([]byte{1, 3, 18}, bytes.Repeat([]byte{byte(r.Uint32())}, 18)...)
					}
					_, _ = line.Write(v.seal([]byte{0}, other))
				}
			}()
			time.Sleep(time.Second)
			b.pollAll() // and hears of it
			good, all := 0, 0
			for range 300 {
				bad, err := b.pollAll()
				if wrong(err) {
					t.Fatalf("%s: %v", transport, err)
				}
				n := len(b.conn.Devices[0].Groups[0].Tags)
				good, all = good+n-bad, all+n
				for _, reading := range b.last {
					if strings.Contains(reading.Reason, "exception") {
						t.Fatalf("%s: %+v", transport, reading)
					}
				}
				time.Sleep(time.Second)
			}
			t.Logf("FIGURES %s: %d of %d readings good beside a busy master", transport, good, all)
			if good < all/2 || b.driver.Trouble().State != drivers.Contested {
				t.Errorf("%s: only %d of %d readings good, %+v", transport, good, all, b.driver.Trouble())
			}
		})
	}
}

// TestOwnMistake: what an accepted unit says instead of the answer is its own mistake.
func TestOwnMistake(t *testing.T) {
	k := &strays{asked: []byte{1, 3, 0, 0, 0, 1}, units: acceptance{given: true, value: anyUnit}}
	if k.judge([]byte{5, 3, 1, 0}, instead, false, time.Now()); k.seen[strayRival].times > 0 {
		t.Errorf("%+v", k.seen[strayRival])
	}
	if k.judge([]byte{5, 3, 1, 0}, unasked, false, time.Now()); k.seen[strayRival].times != 1 {
		t.Errorf("%+v", k.seen[strayRival])
	}
}

// TestDoubts: each stray that fits an answer taken before casts doubt on it, also one that comes when those before are forgotten.
func TestDoubts(t *testing.T) {
	k, now := &strays{asked: []byte{1, 3, 0, 0, 0, 1}}, time.Now()
	for i := range 3 {
		k.last.keep(&request{unit: 1, pdu: []byte{3, 0, 0, 0, 1}, want: 2}, now.Add(owedTime))
		k.judge([]byte{1, 3, 2, 0, byte(i)}, unasked, false, now)
		if k.doubts != i+1 || k.seen[strayRival].times != 1 {
			t.Errorf("%d doubts, %d times", k.doubts, k.seen[strayRival].times)
		}
		now = now.Add(contestTime)
	}
}
