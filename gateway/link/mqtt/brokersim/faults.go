package brokersim

// Acks says how the broker answers a QoS 1 PUBLISH.
type Acks uint8

// The ways to answer.
const (
	AckEach    Acks = iota // as the standard asks
	AckNever               // the message is taken and fanned out, the answer is lost (a half-open link)
	AckTwice               // two PUBACKs
	AckWrongID             // PUBACK of another packet id
	AckHuge                // a packet header that announces 256 MiB
)

// Faults are what goes wrong until the next call of SetFaults. The zero value is a sound broker.
type Faults struct {
	Acks       Acks
	Refuse     byte   // CONNACK return code for every login, 1 to 5; 0 = accept
	Hangup     bool   // close every new connection before reading from it
	Freeze     bool   // stop reading from every client
	MaxPayload int    // close a connection that publishes more bytes; 0 = no limit
	CloseTopic string // close a connection that publishes to a topic matching this filter, "" = none
	CloseAfter int    // close a publisher's connection after so many of its messages, before the last is acknowledged; 0 = never
}

// SetFaults replaces the faults.
func (b *Broker) SetFaults(f Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.faults.Swap(&f)
	if f.Freeze && !was.Freeze {
		b.thaw = make(chan struct{})
	}
	if !f.Freeze && was.Freeze {
		close(b.thaw)
	}
}

// Faults returns the faults in force.
func (b *Broker) Faults() Faults { return *b.faults.Load() }

// thawed waits while the broker is frozen, or until the client is closed.
func (b *Broker) thawed(c *client) {
	b.mu.Lock()
	thaw := b.thaw
	b.mu.Unlock()
	select {
	case <-thaw:
	case <-c.gone:
	}
}

// closesOn reports whether the faults make the broker close the connection on this message.
func (f *Faults) closesOn(c *client, m *Message) bool {
	return f.MaxPayload > 0 && len(m.Payload) > f.MaxPayload ||
		f.CloseTopic != "" && matches(f.CloseTopic, m.Topic) ||
		f.CloseAfter > 0 && c.published >= f.CloseAfter
}

// answer appends what the broker says to a QoS 1 message.
func (f *Faults) answer(dst []byte, id uint16) []byte {
	switch f.Acks {
	case AckNever:
		return dst
	case AckTwice:
		return appendShort(appendShort(dst, puback, id), puback, id)
	case AckWrongID:
		return appendShort(dst, puback, id+1000)
	case AckHuge:
		return append(dst, publish, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3)
	}
	return appendShort(dst, puback, id)
}
