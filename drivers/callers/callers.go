// Package callers is what the drivers share whose devices make the connection: from where calls are taken, how many may wait that have not
// said yet who they are, and the loop that takes them. What a caller says, and which device it is, is the protocol's.
//
// It promises that callers cost little however many there are. drivers/modbus (tcp-listen) and drivers/opcua (reverse connect) call it.
package callers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// The bounds of callers that have not said yet who they are.
const (
	Most       = 64 // of one port
	MostOfHost = 16 // of these from one host, so that one cannot keep the others out
)

// Waiting are the calls of one port that have not said yet who they are. The zero value has none. Whoever has it guards it.
type Waiting struct{ hosts map[net.Conn]string }

// Add takes in a call, and reports whether there was room for it.
func (w *Waiting) Add(c net.Conn) bool {
	host, same := Host(c), 0
	for _, h := range w.hosts {
		if h == host {
			same++
		}
	}
	if len(w.hosts) >= Most || same >= MostOfHost {
		return false
	}
	if w.hosts == nil {
		w.hosts = map[net.Conn]string{}
	}
	w.hosts[c] = host
	return true
}

// Remove lets go of a call.
func (w *Waiting) Remove(c net.Conn) { delete(w.hosts, c) }

// Len is how many there are.
func (w *Waiting) Len() int { return len(w.hosts) }

// Close ends the calls. Who reads from one of them has to Remove it.
func (w *Waiting) Close() {
	for c := range w.hosts {
		_ = c.Close()
	}
}

// Listen opens a port for the calls of whose (a device, a server). Where another program has it, the error says inUse: what to do about that.
func Listen(ctx context.Context, address, whose, inUse string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	cure := "choose another address or port"
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaInUse) {
		cure = "another program has it, perhaps a millrace that runs; " + inUse
	}
	return nil, fmt.Errorf("listen on %q for the %s to call: %w; %s", address, whose, err, cure)
}

// wsaInUse is what Windows says instead of EADDRINUSE.
const wsaInUse = syscall.Errno(10048)

// Accept gives each call to greet until the listener is closed.
func Accept(l net.Listener, greet func(net.Conn)) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			greet(c)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			time.Sleep(100 * time.Millisecond) // out of descriptors, mostly
		}
	}
}

// Host is where a call comes from, without the port.
func Host(c net.Conn) string {
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	return host
}

// Allowed is from where calls are taken; nil = from everywhere.
type Allowed []netip.Prefix

// maxAllowed bounds the work for each call.
const maxAllowed = 64

// ParseAllowed reads addresses and networks: "10.1.0.0/16, 192.168.1.7, fd00::/8", 64 at most.
func ParseAllowed(text string) (Allowed, error) {
	var all Allowed
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		p, err := netip.ParsePrefix(part)
		if a, err2 := netip.ParseAddr(part); err2 == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("%.80q is no address or network", part)
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("%q is an IPv4 address in IPv6 form, as no caller has it", part)
		case p != p.Masked():
			return nil, fmt.Errorf("%q has more than its network: that is %s", part, p.Masked())
		}
		if all = append(all, p); len(all) > maxAllowed {
			return nil, fmt.Errorf("there are more than %d", maxAllowed)
		}
	}
	return all, nil
}

// HowToAllow is how to mend what ParseAllowed refuses.
const HowToAllow = "write addresses and networks, such as 10.1.0.0/16, 192.168.1.7"

// Takes reports whether a call comes from where calls are taken.
func (a Allowed) Takes(c net.Conn) bool {
	if a == nil {
		return true
	}
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	at := from.Addr().Unmap().WithZone("")
	for _, p := range a {
		if err == nil && p.Contains(at) {
			return true
		}
	}
	return false
}

// NotAllowed is why a call is refused that Allowed does not take, in words that name the option of both drivers.
const NotAllowed = "calls from an address that allow_from does not name"
