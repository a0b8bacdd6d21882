package mqtt

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"millrace/gateway/link"
)

// budget is what a broker may send unasked before it costs it the session: answers to nothing, and messages that nobody
// subscribed to.
type budget struct{ answers, messages, bytes *rate.Limiter }

// Bounds of the unasked. Brokers with automatic subscriptions or retained messages send some of the second kind at each
// login; a sound broker sends none of the first.
const (
	answerBurst, answerRate   = 64, 8     // and so many a second
	messageBurst, messageRate = 2000, 200 //
	byteBurst, byteRate       = 1 << 20, 1 << 18
)

func newBudget() *budget {
	return &budget{rate.NewLimiter(answerRate, answerBurst), rate.NewLimiter(messageRate, messageBurst), rate.NewLimiter(byteRate, byteBurst)}
}

// answer counts an answer to nothing.
func (b *budget) answer(what string) error {
	if b.answers.Allow() {
		return nil
	}
	return fmt.Errorf("%w: the broker sends %s, more than %d", link.ErrProtocol, what, answerBurst)
}

// message counts a message of so many bytes that nobody asked for.
func (b *budget) message(size int) error {
	if b.messages.Allow() && b.bytes.AllowN(time.Now(), size) {
		return nil
	}
	return fmt.Errorf("%w: the broker sends messages that nobody subscribed to, over %d a second or %d KiB a second; "+
		"take this client out of its automatic subscriptions", link.ErrProtocol, messageRate, byteRate>>10)
}
