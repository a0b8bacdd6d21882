package mqtt

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"millrace/gateway/link"
)

// virtually runs a test in virtual time with a session whose broker is this script.
func virtually(t *testing.T, o Options, script func(p *otherEnd), test func(t *testing.T, s *session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, scripted(t, o, func(p *otherEnd) { p.accept(); script(p) }), nil)
		test(t, s)
		_ = s.Close()
	})
}

// lives fails when the session has ended after so long.
func lives(t *testing.T, s *session, after time.Duration) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	if err := s.Err(); err != nil {
		t.Fatalf("the session has ended: %v", err)
	}
}

// endsWithin waits for the end and checks when it comes.
func endsWithin(t *testing.T, s *session, least, most time.Duration) error {
	t.Helper()
	start := time.Now()
	<-s.life.Done()
	if took := time.Since(start); took < least || took > most {
		t.Errorf("ended after %v, want %v to %v: %v", took, least, most, s.Err())
	}
	return s.Err()
}

// TestPing: an idle session is never quiet for longer than its keep-alive (MQTT-3.1.2-23), and pings little more often;
// a busy one has no need to.
func TestPing(t *testing.T) {
	for _, keepAlive := range []time.Duration{time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, 18 * time.Hour} {
		t.Run(keepAlive.String(), func(t *testing.T) { pinging(t, keepAlive) })
	}
}

func pinging(t *testing.T, keepAlive time.Duration) {
	pings := 0
	var last time.Time
	var longest time.Duration
	counting := func(p *otherEnd) {
		last = time.Now()
		for packet := p.next(); packet != nil; packet = p.next() {
			longest, last = max(longest, time.Since(last)), time.Now()
			switch packet := packet.(type) {
			case *packets.PingreqPacket:
				pings++
				p.send(packetPingresp, 0)
			case *packets.PublishPacket:
				p.short(packetPuback, packet.MessageID)
			}
		}
	}
	virtually(t, Options{KeepAlive: keepAlive}, counting, func(t *testing.T, s *session) {
		lives(t, s, 100*keepAlive)
		if longest > keepAlive || pings < 100 || pings > 120 {
			t.Errorf("%d pings in 100 keep-alives, quiet for %v", pings, longest)
		}
		pings = 0
		for range 200 {
			if err := s.Send(link.Message{Topic: "a", QoS: 1}); err != nil {
				t.Fatal(err)
			}
			s.Flush()
			lives(t, s, keepAlive/2)
		}
		if pings > 1 {
			t.Errorf("%d pings in 100 busy keep-alives", pings)
		}
	})
}

// TestSilence: a broker that answers no ping is noticed after 1.5 keep-alives and 5 s, whether anything is sent or not.
func TestSilence(t *testing.T) {
	for _, busy := range []bool{false, true} {
		virtually(t, Options{KeepAlive: 10 * time.Second}, (*otherEnd).drain, func(t *testing.T, s *session) {
			if busy {
				go func() {
					for s.Send(link.Message{Topic: "a"}) == nil {
						s.Flush()
						select {
						case <-time.After(time.Second):
						case <-s.life.Done():
						}
					}
				}()
			}
			says(t, endsWithin(t, s, 20*time.Second, 23*time.Second), link.ErrSilent, "ping")
		})
	}
}

// TestStuck: a broker that does not read is noticed by the time-out of a write, and Close does not wait for that.
func TestStuck(t *testing.T) {
	unread := func(p *otherEnd) { <-p.over }
	send := func(t *testing.T, s *session) {
		if err := s.Send(link.Message{Topic: "a", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		s.Flush()
	}
	virtually(t, Options{}, unread, func(t *testing.T, s *session) {
		send(t, s)
		says(t, endsWithin(t, s, writeTimeout, writeTimeout), link.ErrSilent, "nothing can be sent for 10s")
	})
	virtually(t, Options{}, unread, func(t *testing.T, s *session) {
		send(t, s)
		time.Sleep(time.Second)
		start := time.Now()
		_ = s.Close()
		if took := time.Since(start); took > farewell {
			t.Errorf("Close took %v", took)
		}
		says(t, s.Err(), link.ErrClosed)
	})
}

// TestInboxFull: the broker waits while nobody takes its messages, for 10 s; then the session ends.
func TestInboxFull(t *testing.T) {
	flood := func(p *otherEnd) {
		ask := p.next().(*packets.SubscribePacket)
		go p.drain()
		p.send(packetSuback, 3, byte(ask.MessageID>>8), byte(ask.MessageID), 1)
		for i := range 2 * inboxSize {
			p.send(publish("a", "x", 1, uint16(i+1))...)
		}
		<-p.over
	}
	subscribe := func(t *testing.T, s *session) {
		if err := s.Subscribe("a"); err != nil {
			t.Fatal(err)
		}
	}
	virtually(t, Options{KeepAlive: time.Hour}, flood, func(t *testing.T, s *session) {
		subscribe(t, s)
		lives(t, s, 9*time.Second)
		for range 2 * inboxSize {
			<-s.Inbox()
		}
		lives(t, s, time.Minute)
	})
	virtually(t, Options{KeepAlive: time.Hour}, flood, func(t *testing.T, s *session) {
		subscribe(t, s)
		says(t, endsWithin(t, s, inboxWait, inboxWait), nil, "not taken")
	})
}

// TestSubscribeSilence: a subscription that is not answered is an error in time, and the late answer is a stray.
func TestSubscribeSilence(t *testing.T) {
	late := func(p *otherEnd) {
		ask := p.next().(*packets.SubscribePacket)
		go p.drain()
		time.Sleep(2 * connectTimeout)
		p.send(packetSuback, 3, byte(ask.MessageID>>8), byte(ask.MessageID), 1)
		<-p.over
	}
	virtually(t, Options{KeepAlive: time.Hour}, late, func(t *testing.T, s *session) {
		says(t, s.Subscribe("a"), link.ErrSilent, "10s")
		s.mu.Lock()
		if s.subID != 0 {
			t.Error("the subscription is still waited for")
		}
		s.mu.Unlock()
		lives(t, s, time.Minute)
	})
}

// TestLoginTime: a broker that answers the login late or in part costs the time-out, no more.
func TestLoginTime(t *testing.T) {
	for name, script := range map[string]func(p *otherEnd){
		"reads nothing": func(p *otherEnd) { <-p.over },
		"never answers": (*otherEnd).drain,
		"answers in part": func(p *otherEnd) {
			p.next()
			p.send(packetConnack, 2, 0)
			p.drain()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, err := scripted(t, Options{}, script).Dial(t.Context(), nil)
				says(t, err, link.ErrSilent, "log in", "within 10s")
				if took := time.Since(start); took != connectTimeout {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestStrays: what is answered unasked costs the session after 64, and never at 8 a second.
func TestStrays(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet []byte
	}{
		{"PUBACK", []byte{packetPuback, 2, 0, 9}}, {"PUBREC", []byte{packetPubrec, 2, 0, 9}}, {"PUBREL", []byte{packetPubrel, 2, 0, 9}},
		{"PUBCOMP", []byte{packetPubcomp, 2, 0, 9}}, {"PINGRESP", []byte{packetPingresp, 0}}, {"SUBACK", []byte{packetSuback, 3, 0, 9, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			repeat := func(n int, pause time.Duration) func(p *otherEnd) {
				return func(p *otherEnd) {
					go p.drain()
					for range n {
						p.send(c.packet...)
						if pause > 0 {
							p.wait(pause)
						}
					}
					<-p.over
				}
			}
			virtually(t, Options{KeepAlive: time.Hour}, repeat(answerBurst, 0), func(t *testing.T, s *session) { lives(t, s, time.Minute) })
			virtually(t, Options{KeepAlive: time.Hour}, repeat(5000, time.Second/answerRate), func(t *testing.T, s *session) { lives(t, s, 10*time.Minute) })
			virtually(t, Options{KeepAlive: time.Hour}, repeat(answerBurst+1, 0), func(t *testing.T, s *session) {
				says(t, endsWithin(t, s, 0, 0), link.ErrProtocol, "more than 64")
			})
		})
	}
}

// TestUnasked: messages that nobody asked for are read over, counted and acknowledged, whatever their QoS and size; a
// flood of them ends the session.
func TestUnasked(t *testing.T) {
	answers := map[byte]int{}
	script := func(messages ...[]byte) func(p *otherEnd) {
		return func(p *otherEnd) {
			go func() {
				for packet := p.next(); packet != nil; packet = p.next() {
					switch packet := packet.(type) {
					case *packets.PubackPacket:
						answers[packetPuback]++
					case *packets.PubrecPacket:
						answers[packetPubrec]++
						go p.short(packetPubrel, packet.MessageID)
					case *packets.PubcompPacket:
						answers[packetPubcomp]++
					}
				}
			}()
			for _, m := range messages {
				p.send(m...)
			}
			<-p.over
		}
	}
	o := Options{KeepAlive: time.Hour}
	big := string(make([]byte, 200<<10))
	virtually(t, o, script(publish("a", "x", 0, 0), publish("b", big, 1, 7), publish("c", "", 2, 8), publish("", "x", 1, 9)), func(t *testing.T, s *session) {
		lives(t, s, time.Minute)
		if n := s.Stats(); n.Discarded != 4 || n.Stray != 0 || answers[packetPuback] != 2 || answers[packetPubrec] != 1 || answers[packetPubcomp] != 1 {
			t.Errorf("stats %+v, answers %v", n, answers)
		}
	})
	var many [][]byte
	for range messageBurst + 1 {
		many = append(many, publish("a", "x", 0, 0))
	}
	virtually(t, o, script(many[1:]...), func(t *testing.T, s *session) { lives(t, s, time.Minute) })
	virtually(t, o, script(many...), func(t *testing.T, s *session) {
		says(t, endsWithin(t, s, 0, 0), link.ErrProtocol, "nobody subscribed", "automatic subscriptions")
	})
	virtually(t, o, script(publish("a", string(make([]byte, 600<<10)), 0, 0), publish("a", string(make([]byte, 600<<10)), 0, 0)), func(t *testing.T, s *session) {
		says(t, endsWithin(t, s, 0, 0), link.ErrProtocol, "nobody subscribed")
	})
}

// TestTooLargeInbound: of what is subscribed to, a message above the bound is discarded, the others come in.
func TestTooLargeInbound(t *testing.T) {
	script := func(p *otherEnd) {
		ask := p.next().(*packets.SubscribePacket)
		go p.drain()
		p.send(packetSuback, 3, byte(ask.MessageID>>8), byte(ask.MessageID), 1)
		for i, size := range []int{maxInbound, maxInbound + 1, 0} {
			p.send(publish("a", string(make([]byte, size)), 1, uint16(i+1))...)
		}
		<-p.over
	}
	virtually(t, Options{KeepAlive: time.Hour}, script, func(t *testing.T, s *session) {
		if err := s.Subscribe("a"); err != nil {
			t.Fatal(err)
		}
		if first, second := <-s.Inbox(), <-s.Inbox(); len(first.Payload) != maxInbound || len(second.Payload) != 0 || s.Stats().Discarded != 1 {
			t.Errorf("%d and %d bytes, stats %+v", len(first.Payload), len(second.Payload), s.Stats())
		}
	})
}
