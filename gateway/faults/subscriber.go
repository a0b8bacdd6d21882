package faults

import (
	"fmt"
	"slices"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Arrival is one message as the cloud's side received it.
type Arrival struct {
	Topic   string
	Payload []byte
	At      time.Time
}

// Subscriber records every message of a broker. It connects again by itself and then starts with an empty
// session, so what a broker forgets in a restart is not counted as received.
type Subscriber struct {
	client mqtt.Client

	mu       sync.Mutex
	arrivals []Arrival
	sessions int // times that the subscription was granted
	drained  int // times that a message of its own has come back
}

// Subscribe records the messages of all topics of the broker at addr from the moment it returns.
func Subscribe(addr string) (*Subscriber, error) {
	s := &Subscriber{}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("faults-recorder").SetProtocolVersion(4).
		SetCleanSession(true).SetOrderMatters(true).SetMaxReconnectInterval(200 * time.Millisecond).
		SetConnectRetryInterval(100 * time.Millisecond).SetOnConnectHandler(s.connected)
	s.client = mqtt.NewClient(o)
	t := s.client.Connect()
	if !t.WaitTimeout(10 * time.Second) {
		return nil, fmt.Errorf("connect the recorder to %s: no answer in 10 s", addr)
	}
	if t.Error() != nil {
		return nil, fmt.Errorf("connect the recorder to %s: %w", addr, t.Error())
	}
	return s, s.Await(1, 10*time.Second)
}

// Await waits until the subscription has been granted n times: n-1 restarts of the broker are over.
func (s *Subscriber) Await(n int, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if s.Sessions() >= n {
			return nil
		}
	}
	return fmt.Errorf("wait for the recorder's subscription %d: not granted in %s", n, d)
}

// Sessions returns how many times the subscription has been granted.
func (s *Subscriber) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// Arrivals returns what was received so far, in order. It is not to be changed.
func (s *Subscriber) Arrivals() []Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clip(s.arrivals) // what is there stays as it is
}

// drainTopic is that of messages that tell that all before them has come.
const drainTopic = "faults/drained"

// Drain waits until everything has come that the broker has taken so far.
func (s *Subscriber) Drain(d time.Duration) error {
	come := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.drained
	}
	before := come()
	s.client.Publish(drainTopic, 1, false, "")
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if come() > before {
			return nil
		}
	}
	return fmt.Errorf("wait for what the broker has taken: not there in %s", d)
}

// Close ends the recording.
func (s *Subscriber) Close() { s.client.Disconnect(100) }

func (s *Subscriber) connected(c mqtt.Client) {
	t := c.Subscribe("#", 1, func(_ mqtt.Client, m mqtt.Message) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if m.Topic() == drainTopic {
			s.drained++
			return
		}
		s.arrivals = append(s.arrivals, Arrival{Topic: m.Topic(), Payload: append([]byte(nil), m.Payload()...), At: time.Now()})
	})
	if t.WaitTimeout(5*time.Second) && t.Error() == nil {
		s.mu.Lock()
		s.sessions++
		s.mu.Unlock()
	}
}
