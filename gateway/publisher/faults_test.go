package publisher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/record"
)

// quick are options that make a session's end and the next attempt come soon.
var quick = Options{RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond, AckTimeout: 300 * time.Millisecond, ConnectTimeout: 500 * time.Millisecond}

// TestHostileAnswers: whatever the broker says instead of the right PUBACK, nothing is taken for
// acknowledged that it did not get, nothing is lost, and all is well when it comes to its senses.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		f    brokersim.Faults
		err  string // what LastError says
	}{
		{"never", brokersim.Faults{Acks: brokersim.AckNever}, "acknowledges nothing"},
		{"wrong id", brokersim.Faults{Acks: brokersim.AckWrongID}, "acknowledges nothing"},
		{"other packets with the id", brokersim.Faults{Acks: brokersim.AckOther}, "no publisher asks for"},
		{"garbage", brokersim.Faults{Acks: brokersim.AckGarbage}, ""},
		{"256 MiB", brokersim.Faults{Acks: brokersim.AckHuge}, "no publisher asks for"},
		{"half-open: stops reading", brokersim.Faults{Freeze: true}, "acknowledges nothing"},
		{"never answers the login", brokersim.Faults{Mute: true}, "log in"},
		{"hangs up", brokersim.Faults{Hangup: true}, "log in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{publisher: quick})
			for i := range 300 {
				r.append(i%3, 3)
			}
			r.broker.SetFaults(c.f)
			r.run()
			r.await("trouble", func() bool { return strings.Contains(r.p.Stats().LastError, c.err) && r.p.Stats().LastError != "" })
			time.Sleep(200 * time.Millisecond)
			if delivered, _, _, dropped := r.ledger(); delivered+dropped != 0 {
				t.Errorf("delivered %d, dropped %d with a broker that acknowledged nothing", delivered, dropped)
			}
			r.broker.SetFaults(brokersim.Faults{})
			r.delivered()
			if r.got.sum() != r.sent {
				t.Errorf("received %d readings of %d", r.got.sum(), r.sent)
			}
		})
	}
}

func TestAcksTwiceAndAhead(t *testing.T) {
	t.Parallel()
	for _, acks := range []brokersim.Acks{brokersim.AckTwice, brokersim.AckAhead} {
		t.Run(fmt.Sprint(acks), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{publisher: quick})
			r.broker.SetFaults(brokersim.Faults{Acks: acks})
			r.run()
			for i := range 1000 {
				r.append(i%3, 3)
			}
			r.delivered()
			r.await("the broker got all", func() bool { return r.got.sum() == r.sent })
			if s := r.p.Stats(); s.StrayAcks == 0 || s.Sessions != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestLoginRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{publisher: Options{RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond}, broker: brokersim.Options{Username: "u", Password: "right"}})
	r.p.o.Username, r.p.o.Password = "u", "wrong"
	r.append(0, 3)
	r.run()
	r.await("refused", func() bool { return r.p.Stats().State == Refused })
	time.Sleep(500 * time.Millisecond)
	s := r.p.Stats()
	if n := r.broker.Stats().Refused; n != 1 {
		t.Errorf("%d logins in half a second after a refusal: hammering", n)
	}
	for _, want := range []string{"bad user name or password", "check client_id, username and password", "trying again"} {
		if !strings.Contains(s.LastError, want) {
			t.Errorf("last error %q lacks %q", s.LastError, want)
		}
	}
	if strings.Contains(s.LastError, "wrong") {
		t.Error("the password is in the error")
	}
}

// TestPoison: the broker closes the connection on messages of one kind. They are set aside, the others arrive,
// and a gap record says what is missing.
func TestPoison(t *testing.T) {
	t.Parallel()
	for _, order := range []Order{LiveFirst, OldestFirst} {
		t.Run(fmt.Sprint("order ", order), func(t *testing.T) {
			t.Parallel()
			o := quick
			o.Order = order
			r := newRig(t, rigOptions{publisher: o, tags: 100})
			r.p.poison.quiet = 50 * time.Millisecond
			r.broker.SetFaults(brokersim.Faults{MaxPayload: 1000})
			for i := range 200 {
				n := 3
				if i == 50 {
					n = 100 // makes a message of more than 1,000 bytes
				}
				r.append(i%3, n)
			}
			r.run()
			r.await("quarantine", func() bool { return r.p.Stats().Rejected == 1 })
			r.delivered()
			if _, _, _, dropped := r.ledger(); dropped != 100 || r.got.sum() != r.sent-100 {
				t.Errorf("dropped %d, received %d readings of %d", dropped, r.got.sum(), r.sent)
			}
			r.await("the gap record", func() bool { r.got.mu.Lock(); defer r.got.mu.Unlock(); return len(r.got.gaps) == 1 })
			if g := r.got.gaps[0]; g.Device != "press-3" || g.Gap.Count != 100 || g.Gap.Cause != "rejected" {
				t.Errorf("gap %+v %+v", g, *g.Gap)
			}
		})
	}
}

// TestNoPoisonInAnOutage: a broker that takes messages and dies, again and again, condemns none of them.
func TestNoPoisonInAnOutage(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]func(b *brokersim.Broker, i int){
		"closes after each login": func(b *brokersim.Broker, i int) {
			b.SetFaults(brokersim.Faults{CloseAfter: 1})
			time.Sleep(2 * time.Millisecond)
			b.CutAll()
		},
		"dies after a few messages": func(b *brokersim.Broker, i int) {
			b.SetFaults(brokersim.Faults{CloseAfter: 1 + i%5})
			time.Sleep(20 * time.Millisecond)
		},
		"takes, never answers, and is killed": func(b *brokersim.Broker, i int) {
			b.SetFaults(brokersim.Faults{Acks: brokersim.AckNever})
			time.Sleep(20 * time.Millisecond)
			b.Kill()
			b.Start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{publisher: quick})
			for i := range 300 {
				r.append(i%3, 3)
			}
			r.run()
			for i := 0; i < 25; i++ {
				step(r.broker, i)
			}
			r.broker.SetFaults(brokersim.Faults{})
			r.delivered()
			if n := r.p.Stats().Rejected; n != 0 || r.got.sum() != r.sent {
				t.Errorf("%d rejected, %d readings of %d received", n, r.got.sum(), r.sent)
			}
		})
	}
}

// TestUnsendable: records that cannot become a message are set aside at once.
func TestUnsendable(t *testing.T) {
	t.Parallel()
	o := quick
	o.MaxMessage = 1000
	r := newRig(t, rigOptions{publisher: o, tags: 100})
	r.append(0, 3)
	r.appendRaw(1, []byte("no record"), 7)
	foreign := record.Record{Readings: []telemetry.Reading{{Tag: 5000}}}
	r.appendRaw(1, record.Append(nil, &foreign), 1)
	r.append(2, 100)
	r.append(0, 3)
	r.run()
	r.delivered()
	if _, _, _, dropped := r.ledger(); dropped != 108 || r.p.Stats().Rejected != 3 {
		t.Errorf("dropped %d readings, rejected %d", dropped, r.p.Stats().Rejected)
	}
}

// TestClientIDFight: two clients with one id throw each other out; it is said.
func TestClientIDFight(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{publisher: quick})
	r.run()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 40 {
			time.Sleep(30 * time.Millisecond)
			r.broker.Cut("shop") // what a broker does when another client logs in with the id
		}
	}()
	r.await("a hint", func() bool {
		return strings.Contains(r.p.Stats().LastError, `another client uses the client id "shop"`)
	})
	<-done
}

func TestLargeMessagesPass(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{tags: 20000, publisher: Options{WindowBytes: 1000}})
	r.run()
	for i := range 6 {
		r.append(i%3, 20000)
	}
	r.delivered()
	if s := r.p.Stats(); r.got.sum() != r.sent || s.Sessions != 1 {
		t.Errorf("received %d of %d; %+v", r.got.sum(), r.sent, s)
	}
}
