package mqtt

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/gorilla/websocket"

	"millrace/drivers/peer"
	"millrace/gateway/link"
)

// peerError marks an end that came from the other side, as that of a broker which dislikes a message: not one by silence,
// by us or by the machine's own network.
func peerError(err error) error {
	switch {
	case peer.Closed(err), is[*websocket.CloseError](err):
		return fmt.Errorf("%w (%w)", link.ErrPeerClosed, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: nothing can be sent for %v (%w)", link.ErrSilent, writeTimeout, err)
	}
	return err
}

// is reports whether there is an error of this type in err.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// loginError says what an answer to the login is that is no CONNACK. head is what came of it.
func loginError(head []byte, err error) error {
	switch {
	case len(head) >= 2 && head[0] == 0x15 && head[1] == 3:
		return fmt.Errorf("%w: this port speaks TLS; use mqtts:// in the url", link.ErrProtocol)
	case len(head) >= 4 && string(head) == "HTTP":
		return fmt.Errorf("%w: this port speaks HTTP; use ws:// in the url, or the port for MQTT over TCP", link.ErrProtocol)
	case err == nil:
		return fmt.Errorf("%w: the answer to the login begins with % x, which is not MQTT; is this the broker's port?", link.ErrProtocol, head)
	}
	return peerError(err)
}

// explainLogin adds what is probably wrong when the broker ends the connection in place of an answer.
func (t *target) explainLogin(err error) error {
	if !errors.Is(err, link.ErrPeerClosed) {
		return err
	}
	hint := "perhaps client_id, username, certificate or a policy of the broker forbids it"
	switch {
	case !t.secure && t.url.Port() == "8883":
		hint = "port 8883 mostly speaks TLS: use mqtts:// in the url"
	case !t.secure && !t.web:
		hint = "perhaps client_id, username or a policy of the broker forbids it, or the port speaks TLS (then mqtts:// in the url)"
	}
	return fmt.Errorf("the broker closed the connection in place of an answer; %s: %w", hint, err)
}

// explainDial says what a failed dial means to who wrote the config.
func (t *target) explainDial(err error) error {
	switch {
	case is[tls.RecordHeaderError](err):
		return fmt.Errorf("%w: %w", link.ErrProtocol, err)
	case is[*peer.HandshakeError](err):
		return err
	}
	notHTTP := strings.Contains(err.Error(), "malformed HTTP") || errors.Is(peerError(err), link.ErrPeerClosed)
	others := "mqtt://, or wss:// if this port speaks TLS"
	if t.secure {
		others = "mqtts://"
	}
	for _, cause := range []struct {
		found bool
		hint  string
	}{
		{is[*net.DNSError](err), "the host name is not known here; check the url and this machine's DNS"},
		{errors.Is(err, syscall.ECONNREFUSED), "nothing listens there; is the broker running, and is the port right?"},
		{errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH), "there is no route to it; check the network"},
		{is[upgradeError](err), "is this the broker's websocket address? The path is mostly /mqtt"},
		{t.web && notHTTP, "this port does not speak HTTP; use the broker's websocket port, or " + others},
	} {
		if cause.found {
			return fmt.Errorf("%w; %s", err, cause.hint)
		}
	}
	return err
}
