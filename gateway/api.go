package gateway

import (
	"context"
	"time"

	"millrace/buffer"
	"millrace/gateway/command"
	"millrace/gateway/values"
	"millrace/gateway/web"
)

// Buffer returns the store, for the API.
func (g *Gateway) Buffer() *buffer.Buffer { return g.buf }

// Values returns the last readings of all tags, for the API.
func (g *Gateway) Values() *values.Table { return g.values }

// Write writes a value to equipment, if the config allows it.
func (g *Gateway) Write(ctx context.Context, device, tag, value string) (*web.Written, error) {
	start := time.Now()
	if err := g.commands.Write(ctx, command.Request{Device: device, Tag: tag, Value: value, From: "the local socket"}); err != nil {
		return nil, err
	}
	return &web.Written{Device: device, Tag: tag, Value: value, Seconds: time.Since(start).Seconds()}, nil
}

// servePage serves the operator's page, /metrics and what the API has to look at.
func (g *Gateway) servePage(ctx context.Context, l *web.Listener) error {
	return web.Run(ctx, l, web.Handler(g), g.log)
}

// serveLocal serves the whole API on the socket in the store's directory.
func (g *Gateway) serveLocal(ctx context.Context) error {
	return web.RunLocal(ctx, g.config().Buffer.Path, g, g.log)
}
