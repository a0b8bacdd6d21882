package mqtt

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"millrace/drivers/peer"
	"millrace/gateway/link"
	"millrace/gateway/link/mqtt/brokersim"
)

// TestWordsOfTheLogin: what a broker's answer to the login means, in words that say what to do.
func TestWordsOfTheLogin(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer []byte
		kind   error
		words  []string
	}{
		{"closed", nil, link.ErrPeerClosed, []string{"closed the connection in place of an answer", "client_id, username or a policy", "mqtts://"}},
		{"closed in between", []byte{packetConnack, 2}, link.ErrPeerClosed, []string{"in place of an answer"}},
		{"code 1", []byte{packetConnack, 2, 0, 1}, link.ErrRefused, []string{"does not speak MQTT 3.1.1"}},
		{"code 2", []byte{packetConnack, 2, 0, 2}, link.ErrRefused, []string{"client id", "change client_id"}},
		{"code 3", []byte{packetConnack, 2, 0, 3}, nil, []string{"unavailable"}},
		{"code 4", []byte{packetConnack, 2, 0, 4}, link.ErrRefused, []string{"user name or password is wrong"}},
		{"code 5", []byte{packetConnack, 2, 0, 5}, link.ErrRefused, []string{"not authorised", "access rules"}},
		{"code 6", []byte{packetConnack, 2, 0, 6}, link.ErrProtocol, []string{"code 6"}},
		{"code 255", []byte{packetConnack, 2, 0, 255}, link.ErrProtocol, []string{"code 255"}},
		{"another packet", []byte{packetPuback, 2, 0, 1}, link.ErrProtocol, []string{"40 02 00 01", "is this the broker's port?"}},
		{"CONNACK of MQTT 5", []byte{packetConnack, 3, 0, 0, 0}, link.ErrProtocol, []string{"is this the broker's port?"}},
		{"ssh", []byte("SSH-2.0-OpenSSH"), link.ErrProtocol, []string{"is this the broker's port?"}},
		{"TLS alert", []byte{0x15, 3, 1, 0, 2, 2, 70}, link.ErrProtocol, []string{"speaks TLS", "mqtts://"}},
		{"TLS alert, cut", []byte{0x15, 3}, link.ErrProtocol, []string{"speaks TLS", "mqtts://"}},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n"), link.ErrProtocol, []string{"speaks HTTP", "ws://"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := scripted(t, Options{Username: "u", Password: "secret"}, func(p *otherEnd) {
				p.next()
				p.send(c.answer...)
			})
			_, err := d.Dial(context.Background(), nil)
			says(t, err, c.kind, append(c.words, "log in: ")...)
			if strings.Contains(fmt.Sprint(err), "secret") {
				t.Errorf("the password is in %v", err)
			}
		})
	}
	target, err := parseTarget("mqtt://broker:8883")
	if err != nil {
		t.Fatal(err)
	}
	says(t, target.explainLogin(peerError(io.EOF)), link.ErrPeerClosed, "8883 mostly speaks TLS", "mqtts://")
}

// hosts are servers of other kinds on the loopback, by name.
func hosts(t *testing.T) map[string]string {
	ca := newAuthority(t, "ca")
	plain := broker(t, brokersim.Options{})
	_, secure := secureBroker(t, &tls.Config{Certificates: []tls.Certificate{ca.pair(t, "127.0.0.1", time.Now().Add(time.Hour))}})
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	return map[string]string{
		"mqtt": plain.Addr(), "mqtts": secure, "http": web.Listener.Addr().String(), "nobody": closed.Addr().String(),
		"ssh":      serve(t, func(c net.Conn) { fmt.Fprintf(c, "SSH-2.0-OpenSSH_9\r\n"); _, _ = io.Copy(io.Discard, c) }),
		"openssl":  serve(t, answering([]byte{0x15, 3, 1, 0, 2, 2, 70})),
		"nginx":    serve(t, answering([]byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))),
		"hangs up": serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 512)) }),
	}
}

// answering reads what comes first, says this, and reads on.
func answering(b []byte) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 512))
		_, _ = c.Write(b)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}
}

// TestWordsOfTheWrongPort: each scheme against each kind of port that it is not for.
func TestWordsOfTheWrongPort(t *testing.T) {
	addr := hosts(t)
	for _, c := range []struct {
		scheme, host string
		kind         error
		words        []string
	}{
		{"mqtt", "mqtts", link.ErrPeerClosed, []string{"speaks TLS", "mqtts://"}},
		{"mqtt", "openssl", link.ErrProtocol, []string{"speaks TLS", "mqtts://"}},
		{"mqtt", "nginx", link.ErrProtocol, []string{"speaks HTTP", "ws://"}},
		{"mqtt", "ssh", link.ErrProtocol, []string{"is this the broker's port?"}},
		{"mqtt", "hangs up", link.ErrPeerClosed, []string{"in place of an answer"}},
		{"mqtt", "nobody", syscall.ECONNREFUSED, []string{"nothing listens there"}},
		{"mqtts", "mqtt", nil, []string{"does this port speak TLS"}},
		{"mqtts", "http", link.ErrProtocol, []string{"does not speak TLS", "mqtt://"}},
		{"mqtts", "nginx", link.ErrProtocol, []string{"does not speak TLS", "mqtt://"}},
		{"mqtts", "ssh", link.ErrProtocol, []string{"does not speak TLS", "mqtt://"}},
		{"mqtts", "hangs up", nil, []string{"does this port speak TLS"}},
		{"mqtts", "nobody", syscall.ECONNREFUSED, []string{"nothing listens there"}},
		{"ws", "mqtt", nil, []string{"does not speak HTTP", "mqtt://"}},
		{"ws", "mqtts", nil, []string{"speaks TLS", "wss://"}},
		{"ws", "openssl", nil, []string{"speaks TLS", "wss://"}},
		{"ws", "http", nil, []string{"404 Not Found", "/mqtt"}},
		{"ws", "ssh", nil, []string{"does not speak HTTP", "mqtt://"}},
		{"ws", "hangs up", nil, []string{"does not speak HTTP", "mqtt://"}},
		{"ws", "nobody", syscall.ECONNREFUSED, []string{"nothing listens there"}},
		{"wss", "http", link.ErrProtocol, []string{"does not speak TLS", "use ws://"}},
		{"wss", "mqtt", nil, []string{"does this port speak TLS", "ws://"}},
	} {
		t.Run(c.scheme+" to "+c.host, func(t *testing.T) {
			_, err := dialer(t, Options{URL: c.scheme + "://" + addr[c.host]}).Dial(context.Background(), nil)
			says(t, err, c.kind, c.words...)
		})
	}
}

// TestWordsOfTheHandshake: a broker that takes the connection and says nothing, and one that asked for a certificate and hangs up
// without a word at the login, which may have other causes.
func TestWordsOfTheHandshake(t *testing.T) {
	mute := dialer(t, Options{URL: "mqtts://" + serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })})
	mute.within = 100 * time.Millisecond
	_, err := mute.Dial(context.Background(), nil)
	says(t, err, link.ErrSilent, "connect: ", "does this port speak TLS?", "use mqtt:// in the url")

	ca := newAuthority(t, "ca")
	config := &tls.Config{Certificates: []tls.Certificate{ca.pair(t, "127.0.0.1", time.Now().Add(time.Hour))}, ClientAuth: tls.RequestClientCert}
	addr := serve(t, func(c net.Conn) { _, _ = tls.Server(c, config).Read(make([]byte, 512)) })
	_, err = dialer(t, Options{URL: "mqtts://" + addr, TLS: peer.Files{CA: ca.file(t)}}).Dial(context.Background(), nil)
	says(t, err, link.ErrPeerClosed, "log in: ", "in place of an answer; perhaps client_id", "asked for a client certificate, and none is given; give tls.cert and tls.key")
}

// TestWordsOfTheNetwork: what cannot be had on the loopback.
func TestWordsOfTheNetwork(t *testing.T) {
	target, err := parseTarget("mqtt://broker:1883")
	if err != nil {
		t.Fatal(err)
	}
	says(t, target.explainDial(&net.DNSError{Name: "broker", IsNotFound: true}), nil, "DNS")
	says(t, target.explainDial(&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}), syscall.ENETUNREACH, "no route")
	for err, kind := range map[error]error{
		io.EOF: link.ErrPeerClosed, io.ErrUnexpectedEOF: link.ErrPeerClosed, &net.OpError{Err: syscall.ECONNRESET}: link.ErrPeerClosed,
		&net.OpError{Err: syscall.EPIPE}:  link.ErrPeerClosed,
		&websocket.CloseError{Code: 1006}: link.ErrPeerClosed, &net.OpError{Err: syscall.ENETDOWN}: syscall.ENETDOWN,
	} {
		if got := peerError(err); kind != link.ErrPeerClosed {
			if got != err {
				t.Errorf("%v became %v", err, got)
			}
		} else {
			says(t, got, kind)
		}
	}
}
