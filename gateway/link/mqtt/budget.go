package mqtt

import (
	"fmt"
	"time"

	"millrace/gateway/link"
)

// budget is what a broker may send unasked before it costs it the session: answers to nothing, and messages that nobody
// subscribed to. The reader owns it.
type budget struct {
	last                     time.Time
	answers, messages, bytes float64 // left
}

// Bounds of the unasked. Brokers with automatic subscriptions or retained messages send some of the second kind at each
// login; a sound broker sends none of the first.
const (
	answerBurst, answerRate   = 64, 8     // and so many a second
	messageBurst, messageRate = 2000, 200 //
	byteBurst, byteRate       = 1 << 20, 1 << 18
)

func newBudget(now time.Time) *budget {
	return &budget{last: now, answers: answerBurst, messages: messageBurst, bytes: byteBurst}
}

func (b *budget) refill() {
	now := time.Now()
	s := now.Sub(b.last).Seconds()
	b.last = now
	b.answers = min(b.answers+s*answerRate, answerBurst)
	b.messages = min(b.messages+s*messageRate, messageBurst)
	b.bytes = min(b.bytes+s*byteRate, byteBurst)
}

// answer counts an answer to nothing.
func (b *budget) answer(what string) error {
	b.refill()
	if b.answers--; b.answers >= 0 {
		return nil
	}
	return fmt.Errorf("%w: the broker sends %s, more than %d", link.ErrProtocol, what, answerBurst)
}

// message counts a message of so many bytes that nobody asked for.
func (b *budget) message(size int) error {
	b.refill()
	b.messages--
	b.bytes -= float64(size)
	if b.messages >= 0 && b.bytes >= 0 {
		return nil
	}
	return fmt.Errorf("%w: the broker sends messages that nobody subscribed to, over %d a second or %d KiB a second; "+
		"take this client out of its automatic subscriptions", link.ErrProtocol, messageRate, byteRate>>10)
}
