package gateway

import (
	"fmt"
	"log/slog"
	"reflect"

	"millrace/buffer"
	"millrace/drivers/peer"
	"millrace/gateway/config"
	"millrace/gateway/format"
	"millrace/gateway/format/jsonmsg"
	"millrace/gateway/link"
	"millrace/gateway/link/mqtt"
	"millrace/gateway/publisher"
	"millrace/gateway/record"
)

// destination is one receiver of the records, with its publisher.
type destination struct {
	*publisher.Publisher
	cfg       config.Destination
	certified peer.Certified // nil = it has no certificates
	trend     trend
	*task
}

// newDestination builds what publishes to a destination that the buffer knows.
func (g *Gateway) newDestination(cfg *config.Config, d *config.Destination) (*destination, error) {
	f, err := newFormat(cfg, d)
	if err != nil {
		return nil, err
	}
	dialer, err := g.o.dialer(d)
	if err != nil {
		return nil, err
	}
	p, err := publisher.New(g.buf, publisher.Options{
		Destination: d.Name, Receiver: PublicURL(d.URL), Dialer: dialer, Format: f, Log: g.log,
		Open: func(waiting []*record.Schema) format.Encoder { return f.Open(g.values, waiting) },
		Schema: func(s *buffer.Stream) *record.Schema {
			v, _ := g.schemas.Load(s)
			schema, _ := v.(*record.Schema)
			return schema
		},
		Order: publisher.Order(d.Order), Window: d.Window, WindowBytes: int(d.MaxInFlightBytes), MaxMessage: int(d.MaxMessage),
		BacklogMessages: d.BacklogLimit.Messages, BacklogBytes: float64(d.BacklogLimit.Bytes),
		AckTimeout: d.AckTimeout, RetryMin: d.Retry.Min, RetryMax: d.Retry.Max,
	})
	if err != nil {
		return nil, err
	}
	certified, _ := dialer.(peer.Certified)
	return &destination{Publisher: p, cfg: *d, certified: certified}, nil
}

// newFormat returns the format of a destination: json, so far the only word that config takes for `format`. A second one is a folder beside
// jsonmsg, its word in config's table, and a case here.
func newFormat(cfg *config.Config, d *config.Destination) (format.Format, error) {
	return jsonmsg.New(jsonmsg.Options{Gateway: cfg.Gateway, Topic: d.Topic, BigIntsAsText: d.Int64AsString})
}

// newDialer returns what dials the url: mqtt serves every scheme that config takes.
func newDialer(d *config.Destination) (link.Dialer, error) {
	return mqtt.New(mqtt.Options{URL: d.URL, ClientID: d.ClientID, Username: d.Username, Password: d.Password.Reveal(), KeepAlive: d.KeepAlive,
		TLS: peer.Files{CA: d.TLS.CA, Cert: d.TLS.Cert, Key: d.TLS.Key, ServerName: d.TLS.ServerName}})
}

// sameDestination reports whether a publisher need not notice: start concerns only destinations that the store does not know.
func sameDestination(a, b config.Destination) bool {
	a.Start = b.Start
	return reflect.DeepEqual(a, b)
}

func startOf(d *config.Destination) buffer.StartAt {
	if d.Start == config.StartOldest {
		return buffer.StartOldest
	}
	return buffer.StartNow
}

// warnAbsent names the destinations, of those that which picks, that the store keeps something for and the config does not name.
func warnAbsent(buf *buffer.Buffer, which func(name string) bool, log *slog.Logger) {
	for _, d := range buf.Stats().Destinations {
		if !d.Configured && d.Keeps() && which(d.Name) {
			log.Warn("a destination is gone from the config: it gets nothing new, and the store keeps what it has not acknowledged; if it was renamed, that does not go to the new name",
				"destination", d.Name, "records", d.Backlog, "quarantined", d.Quarantined, "losses_to_tell", d.Untold, "what_to_do", fmt.Sprintf("put it back, or give it up: millrace buffer forget %s", d.Name))
		}
	}
}
