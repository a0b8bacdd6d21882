package opcua

import (
	"context"
	"fmt"
	"strings"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// CheckMethod says why a method of the config can never be called, or not safely: drivers.Caller. An index of a namespace may mean another
// method after an update of the server, of which nothing would tell.
func (d *driver) CheckMethod(m drivers.Method) error {
	if m.Object == "" {
		return unfit(`it has no key "object"; add the node id of the object that has the method, such as "nsu=urn:machine;s=Press"`)
	}
	if why := unsafe(m.Object); why != "" {
		return unfit("object " + why)
	}
	if _, wrong := parseAddress(m.Node); wrong != nil && !strings.HasPrefix(m.Node, "ns=") && !strings.HasPrefix(m.Node, "nsu=") {
		return nil // a name
	}
	if why := unsafe(m.Node); why != "" {
		return unfit("node " + why)
	}
	return nil
}

// unsafe says why a node id does not name one node for good, "" when it does.
func unsafe(text string) string {
	a, wrong := parseAddress(text)
	switch {
	case wrong != nil:
		return fmt.Sprintf("%q: %s; %s", clip(text), wrong.what, wrong.mend)
	case a.kind == byPath:
		return fmt.Sprintf("%q is a browse path; write its node id, which millrace opcua browse shows", clip(text))
	case a.ns > 0:
		return fmt.Sprintf("%q names its namespace by an index, which may mean another one after an update of the server; write nsu= and the namespace's URI, as millrace opcua browse shows it", clip(text))
	}
	return ""
}

// Call calls a method of the config: drivers.Caller. What it takes is asked of the server each time.
func (d *driver) Call(ctx context.Context, m drivers.Method, give func([]drivers.Argument) ([]telemetry.Value, error)) (_ []drivers.Result, err error) {
	defer caught(&err)
	if err := d.CheckMethod(m); err != nil {
		return nil, err
	}
	found, err := d.lookUp(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", clip(m.Node), err)
	}
	takes := make([]drivers.Argument, len(found.Inputs))
	for i := range takes {
		takes[i] = drivers.Argument{Name: found.Inputs[i].Name, Type: found.Inputs[i].Type, Array: found.Inputs[i].Array}
	}
	args, err := give(takes)
	if err != nil {
		return nil, err
	}
	values, err := d.call(ctx, found, args)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", clip(m.Node), d.broken(err))
	}
	results := make([]drivers.Result, len(values))
	for i, v := range values {
		results[i] = drivers.Result{Type: v.Type, Value: v.Value, Reason: v.Reason}
		if i < len(found.Outputs) {
			results[i].Name = found.Outputs[i].Name
		}
	}
	return results, nil
}

// lookUp finds a method on a session that stands. What the server refuses costs no link.
func (d *driver) lookUp(ctx context.Context, m drivers.Method) (*Method, error) {
	err := d.ready(ctx)
	if err == nil {
		var found *Method
		if found, err = d.method(ctx, m.Object, m.Node); err == nil {
			return found, nil
		}
	}
	if d.link == nil || d.link.channel.Err() != nil {
		return nil, d.broken(err)
	}
	return nil, err
}
