package gateway

import (
	"errors"
	"fmt"
	"log/slog"

	"millrace/buffer"
	"millrace/gateway/config"
	"millrace/gateway/format/jsonmsg"
	"millrace/gateway/pipeline"
	"millrace/gateway/poller"
	"millrace/gateway/publisher"
	"millrace/gateway/record"
)

func bufferOptions(cfg *config.Config, log *slog.Logger) buffer.Options {
	o := buffer.Options{
		MaxSize:        cfg.Buffer.MaxSize,
		MaxAge:         cfg.Buffer.MaxAge,
		CommitInterval: cfg.Buffer.CommitInterval,
		TailBytes:      cfg.Buffer.Memory,
		Starts:         map[string]buffer.StartAt{},
		Log:            log,
	}
	if cfg.Buffer.WhenFull == config.DropNewest {
		o.WhenFull = buffer.DropNewest
	}
	for i := range cfg.Destinations {
		o.Destinations = append(o.Destinations, cfg.Destinations[i].Name)
		if cfg.Destinations[i].Start == config.StartOldest {
			o.Starts[cfg.Destinations[i].Name] = buffer.StartOldest
		}
	}
	return o
}

// newLine builds the driver of a connection, the way of its readings into the buffer, and the poller.
func (g *Gateway) newLine(c config.Connection, devices []plantDevice) (*line, error) {
	d, err := c.Protocol.New(c.Connection)
	if err != nil {
		return nil, fmt.Errorf("prepare device %q: %w", c.Devices[0].Name, err)
	}
	sinks := make([][]poller.Sink, len(c.Devices))
	for i, dev := range c.Devices {
		for j := range dev.Groups {
			s, err := newSink(dev, &dev.Groups[j], g.buf)
			if err != nil {
				return nil, fmt.Errorf("prepare device %q group %q: %w", dev.Name, dev.Groups[j].Name, err)
			}
			sinks[i] = append(sinks[i], pipeline.New(dev.Groups[j].Tags, reports(dev.Groups[j].Report), s).Take)
		}
	}
	log := g.log.With("url", PublicURL(c.Connection.URL))
	return &line{url: c.Connection.URL, devices: devices, poller: poller.New(&c.Connection, d, sinks, g.dials.enter, log)}, nil
}

func reports(rs []config.TagReport) []pipeline.Report {
	if rs == nil {
		return nil
	}
	out := make([]pipeline.Report, len(rs))
	for i, r := range rs {
		out[i] = pipeline.Report{OnChange: r.OnChange, Deadband: r.Deadband, Percent: r.DeadbandPercent, Silence: r.Heartbeat}
	}
	return out
}

// stream is the pipeline's sink: one stream of the buffer.
type stream struct {
	buf *buffer.Buffer
	*buffer.Stream
}

func newSink(dev *config.Device, g *config.Group, b *buffer.Buffer) (stream, error) {
	schema := record.Schema{Device: dev.Name, Group: g.Name, Tags: make([]record.Tag, len(g.Tags))}
	for i := range g.Tags {
		t := &g.Tags[i]
		schema.Tags[i] = record.Tag{Name: t.Name, Unit: t.Unit, Type: t.Type}
	}
	s, err := b.Stream(dev.Name, record.AppendSchema(nil, &schema))
	return stream{b, s}, err
}

// Append gives one record to the buffer. A record that the buffer does not take, because it is full or the record too
// large, is counted by the buffer, and one whose fsync failed is kept in its memory: none of these ends the poller. Only
// a closed buffer does.
func (s stream) Append(payload []byte, readings int, at int64) error {
	_, err := s.buf.Append(s.Stream, payload, readings, at)
	if errors.Is(err, buffer.ErrFull) || errors.Is(err, buffer.ErrTooLarge) || errors.Is(err, buffer.ErrNotDurable) {
		return nil
	}
	return err
}

func newUplink(cfg *config.Config, d *config.Destination, b *buffer.Buffer, log *slog.Logger) (*publisher.Publisher, error) {
	format, err := jsonmsg.New(jsonmsg.Options{Gateway: cfg.Gateway, Epoch: b.Epoch(), Topic: d.Topic, BigIntsAsText: d.Int64AsString})
	if err != nil {
		return nil, err
	}
	o := publisher.Options{
		Destination: d.Name, URL: d.URL, ClientID: d.ClientID, Format: format, Log: log,
		Username: d.Username, Password: d.Password.Reveal(),
		TLS:    publisher.TLS{CAFile: d.TLS.CA, CertFile: d.TLS.Cert, KeyFile: d.TLS.Key, ServerName: d.TLS.ServerName},
		Window: d.Window, WindowBytes: int(d.MaxInFlightBytes), MaxMessage: int(d.MaxMessage), KeepAlive: d.KeepAlive,
		BacklogMessages: d.BacklogLimit.Messages, BacklogBytes: float64(d.BacklogLimit.Bytes),
	}
	if d.Order == config.OldestFirst {
		o.Order = publisher.OldestFirst
	}
	return publisher.New(b, o)
}
