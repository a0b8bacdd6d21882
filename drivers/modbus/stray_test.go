package modbus

import (
	"io"
	"math/rand/v2"
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

// rivalBench is a device on a line that another master uses, too.
func rivalBench(t *testing.T, transport string, seed uint64) (*bench, *rival) {
	network := newMemory(strings.Contains(transport, "udp"))
	v := &rival{mangler: &mangler{r: rand.New(rand.NewPCG(seed, 1))}}
	b := &bench{sim: startSim(t, modbussim.Options{Transport: transport, Listener: network, Wire: v.write}), dialer: network.dial}
	b.conn.URL = b.sim.URL()
	e, _ := parseURL(b.conn.URL)
	v.framing = e.framing
	b.sim.Unit(1).Fill(b.fill)
	b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, 1, tags(campaignTags()...)))
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
				good, all = good+len(campaignTags())-bad, all+len(campaignTags())
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

// TestTwiceIsTold: answers that come twice cost no reading, and are told.
func TestTwiceIsTold(t *testing.T) {
	for _, transport := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
		bubble(t, func(t *testing.T) {
			network, warned := newMemory(false), ""
			twice := func(to io.Writer, frame []byte) bool {
				_, err := to.Write(append(frame[:len(frame):len(frame)], frame...))
				return err == nil
			}
			b := &bench{sim: startSim(t, modbussim.Options{Transport: transport, Listener: network, Wire: twice}), dialer: network.dial}
			b.conn.URL = b.sim.URL()
			b.sim.Unit(1).Fill(b.fill)
			b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, 1, tags(campaignTags()...)))
			b.open(t)
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
					network := newMemory(false)
					echo := func(to io.Writer, frame []byte) bool { _, err := to.Write(frame); return err == nil }
					if accept { // and noise around each answer
						echo = func(to io.Writer, frame []byte) bool {
							_, err := to.Write(append(append([]byte{0xff, 0}, frame...), 0, 0))
							return err == nil
						}
					}
					b := &bench{sim: startSim(t, modbussim.Options{Transport: transport, Listener: network, Wire: echo}), dialer: network.dial}
					b.conn.URL = b.sim.URL()
					b.sim.Unit(1).Fill(b.fill)
					b.conn.Devices = append(b.conn.Devices, device(b.conn.URL, 1, tags(campaignTags()...)))
					if accept {
						b.option("accept_unit", "any")
					}
					b.open(t)
					b.sim.Inject(f)
					for i := range 10 {
						if _, err := b.pollAll(); wrong(err) {
							t.Fatal(err)
						}
						if name == "slow writes" {
							_ = b.driver.Write(t.Context(), []drivers.Write{{Tag: i, Value: telemetry.Uint(7)}})
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
