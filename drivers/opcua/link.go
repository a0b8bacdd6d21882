package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gopcua/opcua/id"

	"millrace/drivers"
)

// link is one connection: TCP, secure channel, session. It is never reconnected; a new one is opened.
// It starts no goroutine: whatever the server sends is read and judged by the caller of a request.
type link struct {
	tcp      net.Conn
	channel  *channel
	token    []byte        // authentication token of the session, encoded; nil before
	timeout  time.Duration // of one request
	lifetime time.Duration // of the channel's token, asked of the server
	session  time.Duration // how long the server keeps the session without requests
	used     time.Time     // when the last request was answered
	dead     bool          // a request failed: the server will not answer a farewell
}

// open connects and logs in. Each step has the request timeout as its deadline.
func (s *settings) open(ctx context.Context) (*link, error) {
	tcp, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{tcp: tcp, channel: newChannel(tcp), timeout: s.timeout, lifetime: s.lifetime}
	if err := s.openSession(ctx, l); err != nil {
		var refused statusError
		l.dead = !errors.As(err, &refused)
		l.close()
		return nil, err
	}
	return l, nil
}

func (s *settings) openSession(ctx context.Context, l *link) error {
	err := l.bounded(ctx, func() error { return l.channel.hello(s.endpoint) })
	if err != nil {
		return fmt.Errorf("shake hands with %s: %w", s.host, sayEOF(err, "the server closed the connection; is it an OPC UA server?"))
	}
	err = l.bounded(ctx, func() error { return l.channel.open(l.lifetime) })
	if err != nil {
		return fmt.Errorf("open secure channel with %s: %w", s.host, sayEOF(err, "the server closed the connection; does it allow security policy None?"))
	}
	return s.login(ctx, l)
}

func (s *settings) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: s.timeout}
	c, err := d.DialContext(ctx, "tcp", s.host)
	if err != nil {
		var op *net.OpError
		switch {
		case errors.As(err, &op) && op.Timeout():
			err = timeoutError(s.timeout)
		case op != nil:
			err = op.Err // without the address again
		}
		return nil, fmt.Errorf("connect to %s: %w", s.host, err)
	}
	return c, nil
}

// call sends one request and waits for its response, for at most the timeout. It returns a reader
// behind the response's header, which is valid until the next call. A refusal by the server is a statusError.
func (l *link) call(ctx context.Context, service, want uint16, body func(b []byte) ([]byte, error)) (r reader, err error) {
	err = l.bounded(ctx, func() error {
		if time.Now().After(l.channel.renew) {
			if err := l.channel.open(l.lifetime); err != nil {
				return final("renew the secure channel", err)
			}
		}
		token := l.token
		if token == nil {
			token = noToken
		}
		b := l.channel.begin()
		b, err := body(appendHeader(b, service, token, l.channel.request, l.timeout))
		if err != nil {
			return fmt.Errorf("BUG: encode a request: %w", err)
		}
		answer, err := l.channel.do(b)
		if err != nil {
			return err
		}
		r = reader{b: answer}
		return r.response(want)
	})
	if errors.Is(err, io.EOF) {
		err = closedError("the server closed the connection")
	}
	if err == nil {
		l.used = time.Now()
	}
	return r, err
}

// final is an error after which the link is of no use, whatever the cause.
func final(what string, err error) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return protocolError(what + ": " + err.Error())
}

// bounded runs one step under the request timeout, counted from its begin: a server that sends
// a byte now and then gains nothing by it. When ctx ends, the socket is closed.
func (l *link) bounded(ctx context.Context, step func() error) error {
	if err := l.tcp.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return protocolError("the connection is closed")
	}
	stop := context.AfterFunc(ctx, func() { l.tcp.Close() })
	err := step()
	if !stop() {
		return ctx.Err()
	}
	var network *net.OpError
	switch {
	case !errors.As(err, &network):
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
	case network.Timeout():
		err = timeoutError(l.timeout)
	case drivers.IsClosed(network):
		err = closedError("the connection is lost: " + network.Err.Error())
	default: // its own words hold the local port, which differs each time
		err = protocolError("the connection is lost: " + network.Err.Error())
	}
	return err
}

// sayEOF replaces the bare EOF of a closed connection by what it likely means.
func sayEOF(err error, meaning string) error {
	if errors.Is(err, io.EOF) {
		return errors.New(meaning)
	}
	return err
}

// expired reports whether the server may have ended the session or the channel for want of requests, which
// happens to groups that are polled once in hours.
func (l *link) expired() bool {
	now := time.Now()
	return l.session > 0 && now.Sub(l.used) > l.session*3/4 || now.After(l.channel.end)
}

// close ends session and channel. A live server is told, for at most a second, so that it frees
// the session at once; a dead one is not.
func (l *link) close() {
	if l.token != nil && !l.dead {
		l.timeout = min(l.timeout, time.Second)
		ctx := context.Background()
		_, err := l.call(ctx, id.CloseSessionRequest_Encoding_DefaultBinary, id.CloseSessionResponse_Encoding_DefaultBinary, encode(&closeSession{true}))
		if err == nil {
			_ = l.bounded(ctx, l.channel.farewell) // is not answered
		}
	}
	l.tcp.Close()
}
