package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"millrace/buffer"
	"millrace/drivers"
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

// Call calls a method of equipment, if the config allows it.
func (g *Gateway) Call(ctx context.Context, device, method string, arguments []string) (*web.Called, error) {
	start := time.Now()
	results, err := g.commands.Call(ctx, command.Request{Device: device, Method: method, Arguments: arguments, From: "the local socket"})
	if err != nil {
		return nil, err
	}
	called := &web.Called{Device: device, Method: method, Results: make([]web.Result, len(results)), Seconds: time.Since(start).Seconds()}
	for i, r := range results {
		called.Results[i] = web.NewResult(r.Name, r.Type, r.Reason, r.Value)
	}
	return called, nil
}

// askTime is how long a request that a tool asks for may keep its line from the polls.
const askTime = 10 * time.Second

// Ask passes a request that only reads on to the line of a url, between two polls. An empty one asks only whether there is
// such a line.
func (g *Gateway) Ask(ctx context.Context, driver, url string, request []byte) (*web.Asked, error) {
	conn := g.lineOf(driver, url)
	if conn == nil {
		return &web.Asked{}, nil
	}
	asked := &web.Asked{Line: true}
	if len(request) == 0 {
		return asked, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return asked, conn.poller.Do(ctx, func(d drivers.Driver) (err error) {
		a, ok := d.(drivers.Asker)
		if !ok {
			return fmt.Errorf("the driver %q passes no requests on", driver)
		}
		if asked.Answer, err = a.Ask(ctx, request); errors.Is(err, drivers.ErrDevice) {
			asked.Reason, err = err.Error(), nil
		}
		return err
	})
}

// lineOf returns the connection to which a url leads however it is spelled, over whichever of its paths, nil for none.
func (g *Gateway) lineOf(driver, url string) *connection {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.running.connections {
		same := func(of string) bool {
			if c.normal != nil {
				return c.normal(of) == c.normal(url)
			}
			return of == url
		}
		if c.devices[0].driver == driver && slices.ContainsFunc(c.urls, same) {
			return c
		}
	}
	return nil
}

// servePage serves the operator's page, /metrics and what the API has to look at.
func (g *Gateway) servePage(ctx context.Context, l *web.Listener) error {
	return web.Run(ctx, l, web.Handler(g, l.Most()), g.log)
}

// serveLocal serves the whole API on the socket in the store's directory.
func (g *Gateway) serveLocal(ctx context.Context) error {
	return web.RunLocal(ctx, g.config().Buffer.Path, g, g.descriptors.admit, g.log)
}
