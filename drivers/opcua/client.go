package opcua

import (
	"context"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// Client is a connected driver with what only people ask for: the tools of an integrator. Its session is its own.
type Client struct {
	*driver
	typeNames map[string]string // of data types that are not OPC UA's own, by their encoded node ids
}

// Dial connects to a server as the driver of one device does.
func Dial(ctx context.Context, c drivers.Connection) (*Client, error) {
	made, err := newDriver(c)
	if err != nil {
		return nil, err
	}
	d := made.(*driver)
	if err := d.Connect(ctx); err != nil {
		return nil, err
	}
	return &Client{driver: d, typeNames: map[string]string{}}, nil
}

// NodeValue is what a server says of a node's value.
type NodeValue struct {
	Type           string          // as OPC UA calls it: "Double", "Int32[]"; "" for no value
	Value          telemetry.Value // KindNone where there is none, or none that can be shown
	Status, Reason string          // the status's name; what it means, or why there is no value
	Source, Server time.Time       // zero for none
}

// toolNodes is how many nodes are read in one request.
const toolNodes = 100

// Values reads the tags of the first group.
func (c *Client) Values(ctx context.Context) (all []NodeValue, err error) {
	defer caught(&err)
	ask := &c.groups[0][0].ask
	for at := 0; at < len(ask.ids); {
		n := min(toolNodes, c.most, len(ask.ids)-at)
		some, err := c.values(ctx, ask.ids[at:at+n], ask.reasons[at:at+n])
		if n > 1 && err != nil && splittable(err) { // one of them spoils the answer
			c.most = max(n/4, 1)
			continue
		}
		if err != nil && splittable(err) {
			some = []NodeValue{{Reason: err.Error()}}
		} else if err != nil {
			return all, err
		}
		all, at = append(all, some...), at+n
	}
	return all, nil
}

// values reads some nodes in one request; those without an id have a reason.
func (c *Client) values(ctx context.Context, ids [][]byte, reasons []string) ([]NodeValue, error) {
	all := make([]NodeValue, len(ids))
	var nodes [][]byte
	for i := range ids {
		if all[i].Reason = reasons[i]; ids[i] != nil {
			nodes = append(nodes, ids[i])
		}
	}
	if len(nodes) == 0 {
		return all, nil
	}
	r, err := c.request(ctx, nodes)
	if err != nil {
		return nil, err
	}
	for i := range ids {
		if ids[i] == nil {
			continue
		}
		v := r.DataValue(0)
		if r.Err != nil {
			return nil, r.Err
		}
		all[i] = c.shown(&v)
	}
	return all, nil
}

// moment returns a DateTime, zero for one that is not set.
func moment(dateTime int64) time.Time {
	if dateTime <= 0 {
		return time.Time{}
	}
	return telemetry.Value{Kind: telemetry.KindTime, Bits: uint64(ticksOf(dateTime))}.AsTime()
}

func (d *driver) shown(v *wire.DataValue) (n NodeValue) {
	status := ua.StatusCode(v.Status)
	n.Status = "Good"
	if status&0xFFFF0000 != 0 {
		n.Status, n.Reason, _ = strings.Cut(statusText(status), ": ")
	}
	n.Source, n.Server = moment(v.Source), moment(v.Server)
	if f := formIn(v.Variant); f.kind != wire.TypeNull {
		n.Type = f.String()
	}
	if v.Variant == nil && status>>31 != 0 {
		return n
	}
	value, reason := d.decode.value(v.Variant, wanted{})
	if n.Value = value; reason != "" {
		n.Reason = strings.TrimPrefix(n.Reason+"; "+reason, "; ")
	}
	return n
}
