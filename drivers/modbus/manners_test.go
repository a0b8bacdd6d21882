package modbus

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// patient makes timeouts that no slow machine uses up.
func (b *bench) patient() *bench {
	for i := range b.conn.Devices {
		b.conn.Devices[i].Timeout = 10 * time.Second
	}
	return b
}

func (b *bench) option(name, value string) *bench {
	for i := range b.conn.Devices {
		b.conn.Devices[i].Options[name] = value
	}
	return b
}

// spares gives the line further paths.
func (b *bench) spares(urls ...string) *bench {
	b.conn.Devices[0].Spares = urls
	return b
}

func blocksOf(n int) []string {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprint("holding:", 200*i)
	}
	return words
}

// TestClosesAfterEachAnswer (M2): a new connection for each request, and no reading lost.
func TestClosesAfterEachAnswer(t *testing.T) {
	b := newBench(t, 1, tags(blocksOf(6)...)).patient().open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.CloseAfter})
	for range 10 {
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v", bad, err)
		}
	}
}

// TestBusyNowAndThen (M6): every second request is answered with exception 6.
func TestBusyNowAndThen(t *testing.T) {
	b := newBench(t, 1, tags(blocksOf(3)...)).patient().open(t)
	n := 0
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 6, Match: func(modbussim.Request) bool { n++; return n%2 == 1 }})
	for range 5 {
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v", bad, err)
		}
	}
}

// TestBytesBeforeTheRequest (M7): what lies in the socket is not the answer, and costs nothing.
func TestBytesBeforeTheRequest(t *testing.T) {
	for _, transport := range []string{"tcp", "rtuovertcp", "asciiovertcp", "udp"} {
		b := benchOn(t, transport, 1, 10*time.Second, tags(blocksOf(1)...)).open(t)
		for seed := range 10 {
			remove := b.sim.Inject(modbussim.Fault{Kind: modbussim.JunkAfter, N: 1 + seed*seed*3, Seed: uint64(seed)})
			if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
				t.Errorf("%s, seed %d: %d bad, %v", transport, seed, bad, err)
			}
			time.Sleep(5 * time.Millisecond) // so that they are there; if not yet, the next answer stands behind them
			remove()
			if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
				t.Errorf("%s, after seed %d: %d bad, %v", transport, seed, bad, err)
			}
		}
		if n := b.sim.Accepted(); n != 1 {
			t.Errorf("%s: %d connections, want 1", transport, n)
		}
	}
}

// TestTransactionIDZero (M5): said, and taken where the config says so.
func TestTransactionIDZero(t *testing.T) {
	b := newHastyBench(t, 1, tags(blocksOf(2)...)).open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.ZeroTransaction})
	_, err := b.read(drivers.Ref{})
	if err == nil || !strings.Contains(err.Error(), "answers came with transaction id 0: accept_transaction_id: 0 takes them") {
		t.Errorf("%v", err)
	}
	for _, accept := range []string{"0", "any"} {
		b := newHastyBench(t, 1, tags(blocksOf(2)...)).patient().option("accept_transaction_id", accept).open(t)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.ZeroTransaction})
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("accept %s: %d bad, %v", accept, bad, err)
		}
	}
}

// TestForeignUnit: said (TestReasonsAreStable), and taken where the config says so.
func TestForeignUnit(t *testing.T) {
	for _, accept := range []string{"2", "any"} {
		for _, transport := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
			b := benchOn(t, transport, 1, 10*time.Second, tags(blocksOf(2)...)).option("accept_unit", accept).open(t)
			b.sim.Inject(modbussim.Fault{Kind: modbussim.WrongUnit})
			if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
				t.Errorf("%s, accept %s: %d bad, %v", transport, accept, bad, err)
			}
		}
	}
}

// TestLostAnswerKeepsConnection (M11): the transaction id protects it.
func TestLostAnswerKeepsConnection(t *testing.T) { bubble(t, testLostAnswerKeepsConnection) }

func testLostAnswerKeepsConnection(t *testing.T) {
	b := newBubbleBench(t, modbussim.Options{}, 1, tags(blocksOf(3)...)).open(t)
	if err := b.mustBeWell("at first", 1); err != nil {
		t.Fatal(err)
	}
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Skip: 1, Times: 1})
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 300 * time.Millisecond, Skip: 3, Times: 1})
	for range 4 {
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v: one lost answer is asked for again", bad, err)
		}
	}
	if n := b.sim.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestDeafAfterHaste (M4): a device that ignores what comes within 100 ms after its last answer is not shouted at after the first poll, no reading
// is lost by it, and the pause is told once haste has met silence often enough; also where the config says `retries: 0`.
func TestDeafAfterHaste(t *testing.T) {
	for _, retries := range []string{"1", "0"} {
		bubble(t, func(t *testing.T) { testDeafAfterHaste(t, retries) })
	}
}

func testDeafAfterHaste(t *testing.T, retries string) {
	b := newBubbleBench(t, modbussim.Options{}, 1, tags(blocksOf(4)...)).option("retries", retries)
	b.conn.Devices[0].Timeout = 400 * time.Millisecond
	b.open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Hasty, Wait: 100 * time.Millisecond})
	for poll := range 20 {
		bad, n, err := 0, 0, error(nil)
		n = b.requests(func() { bad, err = b.read(drivers.Ref{}) })
		if err != nil || bad > 0 || poll > 1 && n > 5 || poll > 15 && n != 4 {
			t.Errorf("poll %d: %d bad, %d requests, %v", poll, bad, n, err)
		}
		time.Sleep(time.Second)
	}
	if learned := b.driver.Learned(0); len(learned) != 1 || learned["pause_between_requests"] == "" {
		t.Errorf("learned %q", learned)
	}
}

// TestDeafAtEachConnect (M4) has a device that says nothing for a second after a connect, and is connected to for each poll.
func TestDeafAtEachConnect(t *testing.T) {
	for _, retries := range []string{"1", "0"} {
		bubble(t, func(t *testing.T) { testDeafAtEachConnect(t, retries) })
	}
}

func testDeafAtEachConnect(t *testing.T, retries string) {
	b := newBubbleBench(t, modbussim.Options{}, 1, tags(blocksOf(2)...)).option("close_after_poll", "true").option("retries", retries)
	b.conn.Devices[0].Timeout = 2 * time.Second
	b.open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Deaf, Wait: time.Second})
	for poll := range 20 {
		if bad, err := b.read(drivers.Ref{}); poll > 1 && (bad > 0 || err != nil) {
			t.Errorf("poll %d: %d bad, %v", poll, bad, err)
		}
		time.Sleep(time.Second)
	}
	if learned := b.driver.Learned(0); len(learned) != 1 || learned["pause_after_connect"] == "" {
		t.Errorf("learned %q", learned)
	}
}

// TestSilentRegisterTeachesNoPause holds that a register met by silence is not taken for haste.
func TestSilentRegisterTeachesNoPause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{}, 1, tags(blocksOf(4)...)).open(t)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 200, 200)})
		for range 12 {
			b.read(drivers.Ref{})
		}
		if learned := b.driver.Learned(0); learned != nil {
			t.Errorf("learned %q", learned)
		}
	})
}

// TestDeafAfterConnect (M4): the connection is kept until the device listens, and later ones are given the time.
func TestDeafAfterConnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{}, 1, tags(blocksOf(2)...))
		b.conn.Devices[0].Timeout = 200 * time.Millisecond
		b.open(t)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Deaf, Wait: time.Second})
		for connection := range 3 {
			start := time.Now()
			for {
				bad, err := b.read(drivers.Ref{})
				if bad == 0 && err == nil {
					break
				}
				if time.Since(start) > 10*time.Second {
					t.Fatalf("connection %d: still %d bad, %v", connection, bad, err)
				}
				if connection == 2 {
					t.Errorf("the third connection was not given the time: %d bad, %v", bad, err)
				}
			}
			if n := b.sim.Accepted(); n != uint64(connection+1) {
				t.Fatalf("%d connections, want %d", n, connection+1)
			}
			b.driver.Close()
			if err := b.driver.Connect(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestLimitLearned (M3): a device that does not answer more than ten registers a request, by silence or exception.
func TestLimitLearned(t *testing.T) {
	for name, f := range map[string]modbussim.Fault{"silence": {Kind: modbussim.Silence}, "exception": {Kind: modbussim.Exception, Code: 3}, "closing": {Kind: modbussim.CloseAt}} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{}, 1, tags(run("holding", 0, 100)...)).open(t)
			f.Match = func(q modbussim.Request) bool { return q.Count > 10 }
			b.sim.Inject(f)
			bad, n := 100, 0
			for ; bad > 0 && n < 10; n++ {
				bad, _ = b.read(drivers.Ref{})
			}
			if bad > 0 {
				t.Fatalf("%s: %d bad after %d polls: %q", name, bad, n, b.driver.Plan(drivers.Ref{}))
			}
			for range 20 {
				if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
					t.Errorf("%s, while the limit is looked for: %d bad, %v", name, bad, err)
				}
			}
			if learned := b.driver.Learned(0); len(learned) != 1 || learned["max_registers"] != "10" {
				t.Errorf("%s: learned %q", name, learned)
			}
			b.sim.Mend()
			b.clock += 10 * time.Minute
			for range 3 {
				b.read(drivers.Ref{})
			}
			if n := b.requests(func() { b.read(drivers.Ref{}) }); n > 9 {
				t.Errorf("%s: %d requests a poll though the device answers more now", name, n)
			}
		})
	}
}

// TestCloseAfterPoll closes the connection after each poll, and makes it again for the next.
func TestCloseAfterPoll(t *testing.T) {
	b := newHastyBench(t, 1, tags(blocksOf(2)...)).patient().option("close_after_poll", "true").open(t)
	for i := range 3 {
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v", bad, err)
		}
		if n := b.sim.Accepted(); n != uint64(i+1) || b.driver.link.wire != nil {
			t.Errorf("%d connections after %d polls", n, i+1)
		}
	}
}

// TestTimeoutOfEachUnit (M10): the timeout of one unit does not hold for its neighbours.
func TestTimeoutOfEachUnit(t *testing.T) {
	bubble(t, testTimeoutOfEachUnit)
}

func testTimeoutOfEachUnit(t *testing.T) {
	b := newBubbleBench(t, modbussim.Options{}, 2, tags("holding:1"))
	b.conn.Devices[0].Timeout, b.conn.Devices[1].Timeout = 50*time.Millisecond, 20*time.Second
	b.open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(1)})
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 500 * time.Millisecond, Match: modbussim.OfUnit(2)})
	start := time.Now()
	if _, err := b.read(drivers.Ref{}); err == nil || !strings.Contains(err.Error(), "unit 1: no answer within 50ms") {
		t.Errorf("unit 1: %v", err)
	}
	if bad, err := b.read(drivers.Ref{Device: 1}); bad > 0 || err != nil {
		t.Errorf("unit 2: %d bad, %v", bad, err)
	}
	if took := time.Since(start); took > 650*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// TestFloodCostsItsConnection (S7): a peer that streams what nobody asked for costs little CPU, and its connection.
func TestFloodCostsItsConnection(t *testing.T) {
	b := newHastyBench(t, 1, tags("holding:1"))
	b.conn.Devices[0].Timeout = time.Second
	b.open(t)
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Flood})
	start, before := time.Now(), cpu(t)
	for range 5 {
		_, err := b.read(drivers.Ref{})
		if err == nil || !strings.Contains(err.Error(), "without end") && !strings.Contains(err.Error(), "another transaction id") && !strings.Contains(err.Error(), "later than that") {
			t.Errorf("%v", err)
		}
	}
	t.Logf("5 polls took %v and %v of CPU, the flooding device's included", time.Since(start).Round(time.Millisecond), cpu(t)-before)
	if n := b.sim.Accepted(); n < 5 {
		t.Errorf("%d connections for 5 polls: a flood costs its connection", n)
	}
}

// TestSeveralUnitsOnOneLine has four units on an RTU line, one of them dead: it costs the others one timeout a poll.
func TestSeveralUnitsOnOneLine(t *testing.T) {
	for _, transport := range []string{"rtuovertcp", "tcp"} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{Transport: transport}, 4, tags(blocksOf(2)...)).open(t)
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(3)})
			b.pollAll()
			for range 5 {
				n := b.requests(func() {
					for i := range 4 {
						bad, err := b.read(drivers.Ref{Device: i})
						if dead := i == 2; dead == (err == nil) || !dead && bad > 0 {
							t.Errorf("%s, unit %d: %d bad, %v", transport, i+1, bad, err)
						}
					}
				})
				if n != 7 {
					t.Errorf("%s: %d requests, want 7", transport, n)
				}
			}
		})
	}
}
