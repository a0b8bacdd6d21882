package opcua

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/telemetry"
)

const maxHints = 5 // variables that are named instead of a folder

// explain adds to the reading of a node without a value, such as a folder, what can be read instead. One node is asked for in a poll.
func (d *driver) explain(ctx context.Context, g *group, readings []telemetry.Reading) error {
	plain := d.texts.reason(ua.StatusBadAttributeIDInvalid)
	asked := false
	for i := range readings {
		r, tag := &readings[i], readings[i].Tag
		if r.Quality != telemetry.Bad || r.Reason != plain || g.tags[tag].event != nil {
			continue
		}
		if g.ask.hints == nil {
			g.ask.hints = make([]string, len(g.tags))
		}
		if g.ask.hints[tag] == "" && !asked {
			asked = true
			hint, err := d.variablesOf(ctx, g.ask.ids[tag])
			if err != nil {
				return err
			}
			g.ask.hints[tag] = plain + "; " + hint
		}
		if g.ask.hints[tag] != "" {
			r.Reason = g.ask.hints[tag]
		}
	}
	return nil
}

// variablesOf names the variables below a node that is given as the encoded ReadValueId of its value.
func (d *driver) variablesOf(ctx context.Context, ask []byte) (string, error) {
	const behind = 4 + 4 + 2 + 4 // attribute, index range, data encoding
	if d.lost.often(anyBelow) {
		return "the node is no variable and has no value", nil
	}
	r, err := d.link.call(ctx, id.BrowseRequest_Encoding_DefaultBinary, id.BrowseResponse_Encoding_DefaultBinary, encodeBrowse(ask[:len(ask)-behind], ua.NodeClassVariable))
	d.lost.note(anyBelow, d.link.channel.Err())
	if err != nil {
		return "the node is no variable and has no value", unlessRefused(err)
	}
	all, more := r.variables()
	switch {
	case r.Err != nil:
		return "the node is no variable and has no value", unlessRefused(r.Err)
	case len(all) == 0:
		return "the node is no variable, and has none below it", nil
	case more > 0:
		return fmt.Sprintf("the node is no variable; read those below it: %s and %d more", strings.Join(all, ", "), more), nil
	}
	return "the node is no variable; read those below it: " + strings.Join(all, ", "), nil
}

// unlessRefused is the error of a link that is down, nil for one of this request alone.
func unlessRefused(err error) error {
	if _, refused := err.(statusError); refused || splittable(err) {
		return nil
	}
	return err
}

// encodeBrowse returns the body of a Browse request (OPC 10000-4, 5.9.2) for the nodes of some classes right below an encoded node.
func encodeBrowse(node []byte, classes ua.NodeClass) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = append(b, make([]byte, 2+8+4+4)...) // no view with its time and version; as many references as there are
		b = append(binary.LittleEndian.AppendUint32(b, 1), node...)
		b = append(b, 0, 0, 0, 0, 0, id.HierarchicalReferences, 1) // forward; with subtypes
		b = binary.LittleEndian.AppendUint32(b, uint32(classes))
		return append(b, 0, 0, 0, 0), nil // no names
	}
}

// variables takes a Browse response behind its header and returns the first few node ids of the first result, and how many more there are.
func (r *reader) variables() (all []string, more int) {
	if r.Count(1) == 0 {
		return nil, 0
	}
	r.U32()   // status: what cannot be browsed has nothing below it
	r.Bytes() // continuation point: what comes behind it is not needed
	for n := r.Count(10); n > 0 && r.Err == nil; n-- {
		r.NodeID()
		r.U8()
		node := r.ExpandedNodeID()
		r.U16()
		r.Bytes()
		r.LocalizedText()
		r.U32()
		r.ExpandedNodeID()
		if r.Err != nil || node.Server != 0 {
			continue
		}
		if len(all) < maxHints && len(node.Text) < 200 {
			all = append(all, spell(node))
		} else {
			more++
		}
	}
	return all, more
}
