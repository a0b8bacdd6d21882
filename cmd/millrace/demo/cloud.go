package demo

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// cloud is the receiving end: an MQTT client of the broker that books every message it gets.
type cloud struct {
	client  mqtt.Client
	account *account
	lose    func(n int) bool // tests plant a loss here: message number n does not arrive
	arrived int
	last    atomic.Int64 // when the last message came, nanoseconds since 1970
	log     *slog.Logger
}

// subscribe connects to the broker at address host:port, beside the uplink, and books what comes.
func subscribe(address string, lose func(int) bool, log *slog.Logger) (*cloud, error) {
	c := &cloud{account: newAccount(), lose: lose, log: log}
	c.client = mqtt.NewClient(mqtt.NewClientOptions().
		AddBroker("tcp://" + address).SetClientID("demo-cloud").
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetOrderMatters(true).
		SetConnectTimeout(5 * time.Second).SetWriteTimeout(5 * time.Second).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { log.Error("the cloud lost the broker", "cause", err) }))
	if err := wait(c.client.Connect()); err != nil {
		return nil, fmt.Errorf("connect the cloud to the broker: %w", err)
	}
	if err := wait(c.client.Subscribe("telemetry/#", 1, c.take)); err != nil {
		c.close()
		return nil, fmt.Errorf("subscribe the cloud: %w", err)
	}
	return c, nil
}

func wait(t mqtt.Token) error {
	if !t.WaitTimeout(10 * time.Second) {
		return fmt.Errorf("no answer within 10 s")
	}
	return t.Error()
}

// take is called for one message at a time, in the order of their arrival.
func (c *cloud) take(_ mqtt.Client, m mqtt.Message) {
	c.arrived++
	c.last.Store(time.Now().UnixNano())
	if c.lose != nil && c.lose(c.arrived) {
		return
	}
	if err := c.account.take(m.Payload(), time.Now()); err != nil {
		c.log.Error("the cloud got a message that it cannot read", "topic", m.Topic(), "cause", err)
	}
}

// still reports whether nothing has come for a while, so that nothing is to be expected any more.
func (c *cloud) still() bool { return time.Since(time.Unix(0, c.last.Load())) > 3*time.Second }

func (c *cloud) close() { c.client.Disconnect(100) }
