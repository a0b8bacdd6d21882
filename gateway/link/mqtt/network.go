package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"millrace/drivers/peer"
	"millrace/gateway/link"
)

// target is a broker's address.
type target struct {
	url    *url.URL
	host   string // with port
	secure bool
	web    bool
}

// parseTarget reads the URL of a broker.
func parseTarget(text string) (target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return target{}, errors.New("the url cannot be read; write scheme://host:port") // url.Error would quote a password
	}
	if u.User != nil {
		return target{}, errors.New("the url holds a user name; give it as username and password")
	}
	t := target{url: u}
	switch u.Scheme {
	case "mqtt":
	case "mqtts":
		t.secure = true
	case "ws":
		t.web = true
	case "wss":
		t.web, t.secure = true, true
	default:
		return target{}, fmt.Errorf("url %q has no scheme that MQTT runs over; use mqtt://, mqtts://, ws:// or wss://", text)
	}
	if u.Hostname() == "" || u.Port() == "" {
		return target{}, fmt.Errorf("url %q names no host and port", text)
	}
	t.host = net.JoinHostPort(u.Hostname(), u.Port())
	return t, nil
}

// dial opens the network connection, up to but not including the MQTT login.
func (t *target) dial(ctx context.Context, secure *peer.TLS) (conn net.Conn, secured *peer.Handshake, err error) {
	var config *tls.Config
	if t.secure {
		if secured, err = secure.Begin(t.url.Hostname()); err != nil {
			return nil, nil, err
		}
		config = secured.Config
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", t.host)
	if err != nil {
		return nil, nil, err
	}
	conn = raw
	if t.web {
		conn, err = t.openWeb(ctx, raw, config)
	} else if t.secure {
		c := tls.Client(raw, config)
		conn, err = c, c.HandshakeContext(ctx)
	}
	if err != nil {
		_ = raw.Close()
		return nil, nil, secured.Failed(err)
	}
	return conn, secured, nil
}

// maxUpgrade bounds what a server may send before the websocket is open, TLS included: some 10 KiB of certificates and
// 1 KiB of headers are usual. Short headers cost 20 times their bytes in memory.
const maxUpgrade = 64 << 10

// openWeb makes a connection a websocket. Every byte is counted until it is open.
func (t *target) openWeb(ctx context.Context, raw net.Conn, config *tls.Config) (net.Conn, error) {
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })() // the library looks at the deadline only
	budget := &upgradeConn{Conn: raw}
	budget.left.Store(maxUpgrade)
	d := websocket.Dialer{
		TLSClientConfig: config, Subprotocols: []string{"mqtt"}, ReadBufferSize: 4096, WriteBufferSize: 16 << 10,
		NetDialContext: func(context.Context, string, string) (net.Conn, error) { return budget, nil },
	}
	ws, resp, err := d.DialContext(ctx, t.url.String(), nil)
	if resp != nil && err != nil {
		return nil, upgradeError(resp.StatusCode)
	}
	if err != nil {
		return nil, err
	}
	budget.left.Store(math.MaxInt64)
	return newWebConn(ws), nil
}

// upgradeError is the status of an HTTP answer that is no websocket.
type upgradeError int

func (status upgradeError) Error() string {
	return fmt.Sprintf("the server answers %d %s in place of a websocket", int(status), http.StatusText(int(status)))
}

// upgradeConn bounds what is read until the websocket is open.
type upgradeConn struct {
	net.Conn
	left atomic.Int64
}

// Read fails when the budget is used up.
func (c *upgradeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left.Add(int64(-n)) < 0 {
		return 0, fmt.Errorf("the server sent over %d bytes in answer to the websocket upgrade", maxUpgrade)
	}
	return n, err
}

// maxFrame bounds one websocket frame; MQTT packets may be cut anywhere (MQTT 3.1.1 section 6).
const maxFrame = 1 << 20

// webConn is a websocket as a stream of bytes.
type webConn struct {
	net.Conn // below it
	ws       *websocket.Conn
	r        io.Reader // of the message being read, nil for none
	empty    bool      // nothing of it has come yet
	unasked  *budget   // messages that carry nothing
}

// newWebConn bounds the frames and answers pings, of which MQTT needs none.
func newWebConn(ws *websocket.Conn) *webConn {
	c := &webConn{Conn: ws.NetConn(), ws: ws, unasked: newBudget()}
	pong := ws.PingHandler()
	ws.SetReadLimit(maxFrame)
	ws.SetPingHandler(func(data string) error {
		if err := c.unasked.answer("websocket pings"); err != nil {
			return err
		}
		return pong(data)
	})
	ws.SetPongHandler(func(string) error { return c.unasked.answer("websocket pongs") })
	return c
}

// Read reads on in the messages.
func (c *webConn) Read(p []byte) (int, error) {
	for {
		if c.r == nil {
			kind, r, err := c.ws.NextReader()
			if err != nil {
				return 0, frameError(err)
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("%w: the server sent a websocket frame of text (MQTT 3.1.1 section 6)", link.ErrProtocol)
			}
			c.r, c.empty = r, true
		}
		n, err := c.r.Read(p)
		c.empty = c.empty && n == 0
		if errors.Is(err, io.EOF) {
			if c.r, err = nil, nil; c.empty {
				err = c.unasked.answer("empty websocket messages")
			}
		}
		if n > 0 || err != nil {
			return n, frameError(err)
		}
	}
}

// frameError marks what the library finds wrong with a frame; it has no type for that.
func frameError(err error) error {
	if err != nil && strings.HasPrefix(err.Error(), "websocket: ") && !is[*websocket.CloseError](err) {
		return fmt.Errorf("%w: %w", link.ErrProtocol, err)
	}
	return err
}

// Write sends one frame.
func (c *webConn) Write(p []byte) (int, error) {
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline bounds writing: the library sets its own on the connection below.
func (c *webConn) SetWriteDeadline(t time.Time) error { return c.ws.SetWriteDeadline(t) }
