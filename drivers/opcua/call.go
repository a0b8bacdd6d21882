package opcua

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// maxArguments is how many arguments of a method are looked at.
const maxArguments = 64

// Method is a method of a server and what it takes and gives.
type Method struct {
	Name            string
	Inputs, Outputs []Argument
	object, node    []byte // encoded
}

// Argument is one of a method's, as the server describes it.
type Argument struct {
	Name, Description string
	Type              telemetry.DataType // of it, or of its elements
	Array             bool
	form              form
	datatype          []byte // its encoded node id
	rank              int32
}

// String returns the argument's name and OPC UA's name of its type.
func (a *Argument) String() string { return a.Name + " " + a.form.String() }

// Method looks a method up: by its node id, or by its name among those of the object.
func (c *Client) Method(ctx context.Context, object, method string) (m *Method, err error) {
	defer caught(&err)
	return c.method(ctx, object, method)
}

func (d *driver) method(ctx context.Context, object, method string) (*Method, error) {
	names, err := d.namespaces(ctx)
	if err != nil {
		return nil, err
	}
	m := &Method{Name: method}
	if m.object, err = encodeNode(object, names); err != nil {
		return nil, err
	}
	if _, wrong := parseAddress(method); wrong != nil {
		if method, err = d.methodNamed(ctx, object, method); err != nil {
			return nil, err
		}
	}
	if m.node, err = encodeNode(method, names); err != nil {
		return nil, err
	}
	return m, d.signature(ctx, method, m)
}

// methodNamed returns the node id of an object's method. Of two with one name, in two namespaces, none is taken.
func (d *driver) methodNamed(ctx context.Context, object, name string) (found string, err error) {
	var others []string
	for n, err := range d.Browse(ctx, object) {
		switch {
		case err != nil:
			return "", err
		case n.Type != "method":
		case n.Name == name && found != "" && n.ID != found:
			return "", fmt.Errorf("the object %s has more than one method %q; give the node id, %s or %s", object, name, found, n.ID)
		case n.Name == name:
			found = n.ID
		case len(others) < maxHints:
			others = append(others, fmt.Sprintf("%q", n.Name))
		}
	}
	switch {
	case found != "":
		return found, nil
	case len(others) == 0:
		return "", fmt.Errorf("the object %s has no methods; millrace opcua browse shows what there is", object)
	}
	return "", fmt.Errorf("the object %s has no method %q; it has %s", object, name, strings.Join(others, ", "))
}

// signature reads what a method takes and gives (OPC 10000-3, 5.7). One that says nothing takes and gives nothing.
func (d *driver) signature(ctx context.Context, method string, m *Method) error {
	var below []drivers.Node
	for n, err := range d.Browse(ctx, method) {
		if err != nil {
			return err
		}
		if below = append(below, n); len(below) == maxArguments {
			break
		}
	}
	for _, n := range below {
		to := map[string]*[]Argument{"InputArguments": &m.Inputs, "OutputArguments": &m.Outputs}[n.Name]
		if to == nil || n.Address == "" {
			continue
		}
		var err error
		if *to, err = d.arguments(ctx, n.Address); err != nil {
			return fmt.Errorf("read %s of %s: %w", n.Name, m.Name, err)
		}
	}
	return nil
}

// arguments reads a list of arguments and finds out which built-in types they have.
func (d *driver) arguments(ctx context.Context, address string) ([]Argument, error) {
	names, err := d.namespaces(ctx)
	if err != nil {
		return nil, err
	}
	node, err := encodeNode(address, names)
	if err != nil {
		return nil, err
	}
	r, err := d.request(ctx, [][]byte{attributeOf(node, ua.AttributeIDValue)})
	if err != nil {
		return nil, err
	}
	v := r.DataValue(0)
	if r.Err != nil {
		return nil, r.Err
	}
	if v.Status>>31 != 0 {
		return nil, refusal(v.Status)
	}
	all, err := argumentsIn(v.Variant)
	for i := range all {
		a := &all[i]
		if a.form.kind, err = d.builtin(ctx, a.datatype, wire.TypeNull); err != nil {
			return nil, err
		}
		a.form.array, a.Array = a.rank >= 0, a.rank >= 0
		a.Type = builtins[a.form.kind].typ
	}
	return all, err
}

// argumentsIn takes an array of Argument structures (OPC 10000-3, 8.6).
func argumentsIn(variant []byte) (all []Argument, err error) {
	r := newReader(variant)
	switch {
	case len(variant) == 0 || variant[0]&wire.MaskType == wire.TypeNull:
		return nil, nil
	case r.U8() != wire.TypeExtensionObject|wire.MaskArray:
		return nil, malformedError("the method's arguments are no list of arguments")
	}
	for n := r.Count(3); n > 0 && r.Err == nil; n-- {
		kind := r.ExpandedNodeID()
		encoding := r.U8()
		body := newReader(r.Bytes())
		if r.Err == nil && (encoding != 1 || kind.Number != id.Argument_Encoding_DefaultBinary || kind.NS != 0) {
			return nil, malformedError("one of the method's arguments is described in another way")
		}
		if len(all) == maxArguments {
			return nil, malformedError(fmt.Sprintf("the method has more than %d arguments", maxArguments))
		}
		all = append(all, body.argument())
		if body.Err != nil {
			return nil, body.Err
		}
	}
	return all, r.Err
}

func (r *reader) argument() Argument {
	a := Argument{Name: string(r.Bytes()), datatype: r.rawNodeID(), rank: int32(r.U32())}
	r.Take(4 * r.Count(4)) // dimensions
	a.Description = string(r.LocalizedText())
	return a
}

// Call calls a method with values of its inputs' types and returns what it gives. One that got no answer is never called again by
// itself.
func (c *Client) Call(ctx context.Context, m *Method, args []telemetry.Value) (results []NodeValue, err error) {
	defer caught(&err)
	if results, err = c.call(ctx, m, args); err != nil {
		err = c.broken(err)
	}
	if errors.Is(err, drivers.ErrLink) {
		err = fmt.Errorf("%w; %s", err, uncalled)
	}
	return results, err
}

// uncalled is what is to be said of a call without an answer that settles it.
const uncalled = "it is not known whether the server carried it out: see what the machine does"

// call calls a method (OPC 10000-4, 5.11.2).
func (d *driver) call(ctx context.Context, m *Method, args []telemetry.Value) (results []NodeValue, err error) {
	defer caught(&err)
	if len(args) != len(m.Inputs) {
		return nil, unfit(fmt.Sprintf("the method takes %d arguments, not %d", len(m.Inputs), len(args)))
	}
	body := append(binary.LittleEndian.AppendUint32(nil, 1), m.object...)
	body = binary.LittleEndian.AppendUint32(append(body, m.node...), uint32(len(args)))
	for i, v := range args {
		if body, err = m.Inputs[i].form.appendVariant(body, v); err != nil {
			return nil, fmt.Errorf("argument %q: %w", m.Inputs[i].Name, err)
		}
	}
	r, err := d.link.call(ctx, id.CallRequest_Encoding_DefaultBinary, id.CallResponse_Encoding_DefaultBinary,
		func(b []byte) ([]byte, error) { return append(b, body...), nil })
	if err == nil {
		d.decode.ctx, d.decode.group = ctx, nil
		results, err = d.results(&r, m)
	}
	var status refusal
	if err == nil || errors.As(err, &status) && !status.unsure() {
		return results, err
	}
	return nil, unknown(err, uncalled)
}

// results takes a Call response behind its header.
func (d *driver) results(r *reader, m *Method) (all []NodeValue, err error) {
	if n := r.Count(1); r.Err == nil && n != 1 {
		return nil, protocolError(fmt.Sprintf("the server answered with %d results for 1 call", n))
	}
	status, wrong := ua.StatusCode(r.U32()), ""
	for i := range r.Count(4) {
		if s := ua.StatusCode(r.U32()); s>>31 != 0 && i < len(m.Inputs) {
			wrong += fmt.Sprintf("; argument %q: %s", m.Inputs[i].Name, statusText(s))
		}
	}
	for n := r.Count(1); n > 0 && r.Err == nil; n-- {
		r.DiagnosticInfo()
	}
	for n := r.Count(1); n > 0 && r.Err == nil; n-- {
		from := r.B
		r.Variant(0)
		if len(all) < maxArguments && r.Err == nil {
			all = append(all, d.shown(&wire.DataValue{Variant: from[:len(from)-len(r.B)]}))
		}
	}
	switch {
	case r.Err != nil:
		return nil, r.Err
	case status>>30 != 0:
		return nil, fmt.Errorf("%w%s", refusal(status), wrong)
	}
	return all, nil
}
