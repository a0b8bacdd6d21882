package demo

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"millrace/gateway/link"
	"millrace/gateway/link/mqtt"
)

// cloud is the receiving end: a client of the broker that books every message it gets.
type cloud struct {
	link    link.Link
	account *account
	lose    func(n int) bool // tests plant a loss here: message number n does not arrive
	arrived int
	last    atomic.Int64 // when the last message came, nanoseconds since 1970
	closing atomic.Bool
	done    sync.WaitGroup
	log     *slog.Logger
}

// subscribe connects to the broker at address host:port, beside the uplink, and books what comes.
func subscribe(address string, lose func(int) bool, log *slog.Logger) (*cloud, error) {
	c := &cloud{account: newAccount(), lose: lose, log: log}
	d, err := mqtt.New(mqtt.Options{URL: "mqtt://" + address, ClientID: "demo-cloud", KeepAlive: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	if c.link, err = d.Dial(context.Background(), nil); err != nil {
		return nil, fmt.Errorf("connect the cloud to the broker: %w", err)
	}
	c.done.Go(c.book)
	if err := c.link.Subscribe("telemetry/#"); err != nil {
		c.close()
		return nil, fmt.Errorf("subscribe the cloud: %w", err)
	}
	return c, nil
}

// book takes messages in the order of their arrival until the session ends.
func (c *cloud) book() {
	for {
		select {
		case m := <-c.link.Inbox():
			c.take(&m)
		case <-c.link.Changed():
			if err := c.link.Err(); err != nil {
				c.rest()
				if !c.closing.Load() {
					c.log.Error("the cloud lost the broker", "cause", err)
				}
				return
			}
		}
	}
}

// rest takes what had come before the session ended.
func (c *cloud) rest() {
	for {
		select {
		case m := <-c.link.Inbox():
			c.take(&m)
		default:
			return
		}
	}
}

func (c *cloud) take(m *link.Message) {
	c.arrived++
	c.last.Store(time.Now().UnixNano())
	if c.lose != nil && c.lose(c.arrived) {
		return
	}
	if err := c.account.take(m.Payload, time.Now()); err != nil {
		c.log.Error("the cloud got a message that it cannot read", "topic", m.Topic, "cause", err)
	}
}

// still reports whether nothing has come for a while, so that nothing is to be expected any more.
func (c *cloud) still() bool { return time.Since(time.Unix(0, c.last.Load())) > 3*time.Second }

func (c *cloud) close() {
	c.closing.Store(true)
	_ = c.link.Close()
	c.done.Wait()
}
