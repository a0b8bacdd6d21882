package modbus

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/callers"
)

// Listens says where the line waits for its device: see drivers.Listener.
func (d *driver) Listens() drivers.Listening {
	if d.link.network != netListen {
		return drivers.Listening{}
	}
	return drivers.Listening{Address: d.link.address, Caller: string(bytes.TrimRight(d.link.slot.registration, "\r\n")), Key: "registration"}
}

// listen makes the line reachable. It does not wait for the device's call.
func (l *link) listen(ctx context.Context) (err error) {
	if l.slot.listener != nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.listeners == nil {
		l.listeners = new(listeners)
	}
	l.slot.listener, err = l.listeners.join(ctx, l.address, &l.slot.slot)
	return err
}

// deafen closes the listener, or leaves it to the other lines that share it.
func (l *link) deafen() {
	if l.slot.listener == nil {
		return
	}
	l.listeners.leave(l.slot.listener, &l.slot.slot)
	l.slot.listener = nil
}

// pick takes up the newest call of the device.
func (l *link) pick() (*wire, error) {
	if l.slot.listener == nil {
		return nil, errNotConnected
	}
	c, called := l.slot.listener.take(&l.slot.slot)
	switch {
	case c == nil && called:
		return nil, callEnded
	case c == nil:
		return nil, neverCalled
	}
	l.calls++
	return &wire{framing: l.framing, port: c, drain: drainOf(c, false), prompt: promptOf(c, false), heartbeat: l.slot.heartbeat}, nil
}

// incoming makes the newest call the connection of the line, where it has none.
func (l *link) incoming(ctx context.Context) error {
	if l.slot.listener == nil {
		return errNotConnected
	}
	if l.wire != nil {
		return nil
	}
	return l.open(ctx)
}

// Warning says what came unasked, which callers were refused, to which path the line has moved, or which further connection failed: see
// drivers.Warner.
func (d *driver) Warning() string {
	if text := d.link.strays.warning(time.Now()); text != "" {
		return text
	}
	if d.link.slot.listener == nil {
		if text := d.link.spares.warning(time.Now()); text != "" {
			return text
		}
		return d.lanes.warning(time.Now())
	}
	return d.link.slot.listener.warning(time.Now())
}

// setListen reads the options of a line whose device calls.
func (l *link) setListen(given map[string]string, r *reporter) {
	l.slot.address, l.slot.registration = l.address, r.packet(given, "registration")
	l.slot.heartbeat = r.packet(given, "heartbeat_packet")
	if h := l.slot.heartbeat; l.framing == mbap && len(h) >= 4 && h[2] == 0 && h[3] == 0 {
		r.add("heartbeat_packet", fmt.Sprintf("heartbeat_packet %q: it begins like a frame of Modbus TCP", given["heartbeat_packet"]), "leave it out: a frame that answers nothing is ignored")
	}
	if text, ok := given["allow_from"]; ok {
		allow, err := callers.ParseAllowed(text)
		if l.slot.allow = allow; err != nil {
			r.add("allow_from", fmt.Sprintf("allow_from: %v", err), callers.HowToAllow)
		}
	}
	_, allows := given["allow_from"]
	_, registers := given["registration"]
	_, beats := given["heartbeat_packet"]
	if (registers || beats || allows) && l.network != netListen {
		r.add("url", "registration, heartbeat_packet and allow_from are of devices that call", "use tcp-listen://:1502 or rtu-listen://:1502, or leave them out")
	}
	if l.closeAfter && l.network == netListen {
		r.add("close_after_poll", "close_after_poll of a device that calls: nobody but the device can make the connection again", "leave it out")
	}
}

// packet reads a text, or bytes as 0x and hex digits.
func (r *reporter) packet(given map[string]string, name string) []byte {
	text, ok := given[name]
	if !ok {
		return nil
	}
	b := []byte(text)
	if digits, isHex := strings.CutPrefix(text, "0x"); isHex {
		var err error
		if b, err = hex.DecodeString(digits); err != nil {
			r.add(name, fmt.Sprintf("%s %q: after 0x come pairs of hex digits", name, text), "write it like 0x67772D37, or as a text")
			return nil
		}
	}
	if strings.Trim(string(b), "\r\n") == "" && name == "registration" || len(b) == 0 || len(b) > maxPacket {
		r.add(name, fmt.Sprintf("%s %q: it has %d bytes", name, text, len(b)), fmt.Sprintf("use 1 to %d bytes, not only a line's end", maxPacket))
		return nil
	}
	return b
}
