package publisher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/buffer"
	"millrace/gateway/format"
	"millrace/gateway/link"
	"millrace/gateway/record"
)

// TestOrderAfterStall: a receiver that keeps the session and answers nothing for a while, whatever becomes of the messages, and
// then goes on. Each stream arrives in order, nothing is given up, and no topic is accused of a stall of everything.
func TestOrderAfterStall(t *testing.T) {
	t.Parallel()
	stalls := map[string][2]func(*receiver){
		"swallowed": {func(r *receiver) { r.silent = func(*got) bool { return true } }, func(r *receiver) { r.silent = nil }},
		"mute":      {func(r *receiver) { r.mute = true }, func(r *receiver) { r.mute = false }},
		"frozen":    {func(r *receiver) { r.frozen = true }, nil},
	}
	lengths := []time.Duration{39900 * time.Millisecond, 8 * time.Second, 2 * time.Second}[:3/raceShare]
	if long() {
		lengths = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 30 * time.Second, 39900 * time.Millisecond}
	}
	for how, stall := range stalls {
		for _, order := range []Order{LiveFirst, OldestFirst} {
			for _, devices := range []int{1, 4, 9} {
				for _, length := range lengths {
					t.Run(fmt.Sprintf("%s,%s,%d,%v", how, order, devices, length), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { orderAfterStall(t, order, devices, length, stall[0], stall[1]) })
					})
				}
			}
		}
	}
}

func orderAfterStall(t *testing.T, order Order, devices int, length time.Duration, begin, end func(*receiver)) {
	r := newRig(t, func(o *Options) { o.Order = order })
	var names []string
	for i := range devices {
		names = append(names, fmt.Sprintf("d%d", i))
	}
	var rare []string // asked seldom, so that it has nothing in flight when all others have
	if devices > 4 {
		names, rare = names[1:], names[:1]
	}
	r.start()
	feed := func(length time.Duration) {
		for end := time.Now().Add(length); time.Now().Before(end); {
			r.feed(min(3*time.Second, time.Until(end)), 250*time.Millisecond, names...)
			r.feed(time.Nanosecond, 100*time.Millisecond, rare...)
		}
	}
	for range 2 { // also a second time within the hour
		feed(20 * time.Second)
		r.rec.set(begin)
		feed(length)
		if end != nil {
			r.rec.set(end)
		} else {
			r.rec.thaw()
		}
	}
	feed(30 * time.Second)
	r.settle(time.Minute)
	if s := r.pub.Stats(); s.Rejected > 0 || len(s.Breakers) > 0 {
		t.Errorf("%+v", s)
	}
	for _, accused := range []string{"refuses the messages", "takes the messages of a stream again"} {
		if strings.Contains(r.log.String(), accused) {
			t.Errorf("the log says that the receiver %s:\n%s", accused, r.log)
			break
		}
	}
	if most, _ := r.longest(slices.Concat(names, rare)...); most > length+20*time.Second {
		t.Errorf("the slowest record took %v", most)
	}
	r.checkOrder()
	r.checkLedger()
	r.stop()
}

// helloEncoder begins a session with a message of its own.
type helloEncoder struct{ *plainEncoder }

func (e helloEncoder) Hello(dst []link.Message) []link.Message {
	return append(dst, link.Message{Topic: "hello", Payload: make([]byte, 17), QoS: 1})
}

// TestHelloUnanswered: what a format says at the beginning belongs to no stream; without an answer to it the session is given up.
func TestHelloUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) {
			o.Open = func([]*record.Schema) format.Encoder { return helloEncoder{&plainEncoder{batch: 1}} }
		})
		r.rec.silent = func(g *got) bool { return g.topic == "hello" }
		r.start()
		r.feed(20*time.Second, 100*time.Millisecond, "a")
		if s := r.pub.Stats(); s.Sessions < 2 || !strings.Contains(s.LastError, "beginning of the session") {
			t.Errorf("%+v", s)
		}
		r.rec.set(func(r *receiver) { r.silent = nil })
		r.settle(20 * time.Second)
		r.checkOrder()
		r.stop()
	})
}

// TestSlowAnswersEndNoSession: a record that is to be tried as the first message of a session, right behind another that waits, ends no session
// before that has got on, where answers take longer than a session is given to end.
func TestSlowAnswersEndNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.rec.latency = 400 * time.Millisecond
		for range 50 {
			r.append("b", 0)
			r.append("a", 0)
		}
		var rec buffer.Record
		for seq := r.pub.buf.NextSeq() - 100; rec.Stream == nil || rec.Stream.Account() != "a"; seq++ {
			if _, err := r.pub.read(seq, &rec); err != nil {
				t.Fatal(err)
			}
		}
		b := r.pub.breakers.get(rec.Stream, "a/g")
		b.state, b.seq, b.confirmed, b.counted, b.next = Open, rec.Seq, 2, 2, time.Now()
		b.hold(rec.Seq)
		r.pub.breakers.flowing = true
		r.start()
		r.settle(time.Minute)
		if n := r.pub.Stats().Sessions; n > 4 {
			t.Errorf("%d sessions", n)
		}
		r.checkLedger()
		r.stop()
	})
}
