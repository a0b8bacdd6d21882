package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
)

// link is one connection: TCP, secure channel, session. It is never reconnected; a new one is opened.
type link struct {
	channel *wire.Channel
	asked   *wire.Call
	token   []byte        // authentication token of the session, encoded; nil before
	timeout time.Duration // of one request
	session time.Duration // how long the server keeps the session without requests
	used    time.Time     // when the last request was answered
	dead    bool          // a request failed: the server will not answer a farewell
	types   *types
}

// open connects, opens the channel and logs in. Each step has the request timeout as its deadline.
func (s *settings) open(ctx context.Context) (*link, error) {
	if offers, chosen, asked := s.reverse.recall(); chosen != nil {
		return s.enterSecured(ctx, offers, chosen, asked)
	}
	l, err := s.reach(ctx, wire.Unsecured())
	if err != nil {
		return nil, err
	}
	if s.policy == wire.None() {
		if err := s.enter(ctx, l); err != nil {
			return nil, l.abandon(err)
		}
		return l, nil
	}
	offers, chosen, err := s.ask(ctx, l)
	if err != nil {
		return nil, l.abandon(err)
	}
	l.close()
	return s.enterSecured(ctx, offers, chosen, time.Now())
}

// enterSecured logs in on a connection of its own to the endpoint that was chosen. offers were asked for without security.
func (s *settings) enterSecured(ctx context.Context, offers []endpoint, chosen *endpoint, asked time.Time) (*link, error) {
	l, err := s.secure(ctx, chosen)
	if errors.Is(err, drivers.ErrAbsent) {
		s.reverse.remember(offers, chosen, asked)
	}
	if err != nil {
		return nil, err
	}
	if err := s.login(ctx, l, chosen, offers); err != nil {
		return nil, l.abandon(err)
	}
	return l, nil
}

// enter asks and logs in on one channel without security.
func (s *settings) enter(ctx context.Context, l *link) error {
	offers, chosen, err := s.ask(ctx, l)
	if err != nil {
		return err
	}
	return s.login(ctx, l, chosen, offers)
}

// ask asks the server for its endpoints and chooses one.
func (s *settings) ask(ctx context.Context, l *link) ([]endpoint, *endpoint, error) {
	offers, err := l.endpoints(ctx, s.endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("ask %s for its endpoints: %w", s.host, err)
	}
	chosen, err := s.choose(offers)
	if err == nil {
		err = s.reverse.itself(chosen)
	}
	return offers, chosen, err
}

// abandon closes a link that is not complete. A server that still answers is told.
func (l *link) abandon(err error) error {
	l.dead = l.channel.Err() != nil
	l.close()
	return err
}

// reach connects and opens a channel of the given security.
func (s *settings) reach(ctx context.Context, security wire.Security) (*link, error) {
	tcp, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	return s.channel(ctx, tcp, security)
}

// channel opens a channel over a connection, which it closes when that fails.
func (s *settings) channel(ctx context.Context, tcp net.Conn, security wire.Security) (*link, error) {
	words := func(status uint32) string { return statusText(ua.StatusCode(status)) }
	l := &link{channel: wire.New(tcp, security, words), asked: wire.NewCall(), timeout: s.timeout}
	l.types = newTypes(l)
	if err := l.hello(ctx, tcp, s.endpoint); err != nil {
		l.channel.Close()
		return nil, fmt.Errorf("shake hands with %s: %w", s.host, sayEOF(err, "the server closed the connection; is it an OPC UA server?"))
	}
	if opened := l.channel.Open(ctx, s.timeout, s.lifetime); opened != nil {
		l.channel.Close()
		var status wire.StatusError
		err := judged(opened, true, l.timeout)
		if errors.As(opened, &status) {
			err = unopenedError{ua.StatusCode(status)}
		}
		if security.Mode == wire.ModeNone {
			err = sayEOF(undisclosed(err), "the server closed the connection; it may take secured connections only, and tell nobody which")
		}
		return nil, fmt.Errorf("open secure channel with %s: %w", s.host, err)
	}
	return l, nil
}

// hello shakes hands, within the request timeout counted from its begin: a server that sends a byte now and then gains nothing by it.
func (l *link) hello(ctx context.Context, tcp net.Conn, endpoint string) error {
	if err := tcp.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return protocolError("the connection is closed")
	}
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	err := l.channel.Hello(endpoint)
	if !stop() {
		return ctx.Err()
	}
	if err == nil {
		err = tcp.SetDeadline(time.Time{}) // from now on each request has a deadline of its own
	}
	return judged(err, true, l.timeout)
}

func (s *settings) dial(ctx context.Context) (net.Conn, error) {
	if s.reverse != nil {
		return s.called(ctx)
	}
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
func (l *link) call(ctx context.Context, service, want uint16, body func(b []byte) ([]byte, error)) (reader, error) {
	return l.callFor(ctx, l.timeout, service, want, body)
}

func (l *link) callFor(ctx context.Context, timeout time.Duration, service, want uint16, body func(b []byte) ([]byte, error)) (reader, error) {
	r, err := l.exchange(ctx, l.asked, timeout, service, want, body)
	if err != nil {
		return r, judged(err, l.channel.Err() != nil, timeout)
	}
	l.used = time.Now()
	return r, nil
}

func (l *link) exchange(ctx context.Context, call *wire.Call, timeout time.Duration, service, want uint16, body func(b []byte) ([]byte, error)) (reader, error) {
	if err := l.renewed(ctx); err != nil {
		return reader{}, err
	}
	answer, err := l.channel.Do(ctx, call, timeout, l.build(service, timeout, body))
	if err != nil {
		return reader{}, err
	}
	r := newReader(answer)
	return r, r.Response(want)
}

// build returns what appends a request to the server.
func (l *link) build(service uint16, timeout time.Duration, body func(b []byte) ([]byte, error)) func([]byte, uint32) ([]byte, error) {
	return func(b []byte, request uint32) ([]byte, error) {
		b, err := body(wire.AppendHeader(b, service, l.sessionToken(), request, timeout))
		if err != nil {
			err = fmt.Errorf("BUG: encode a request: %w", err)
		}
		return b, err
	}
}

// renewed renews the channel's token when that is due.
func (l *link) renewed(ctx context.Context) error {
	if err := l.channel.Renew(ctx, l.timeout); err != nil {
		return judged(err, true, l.timeout)
	}
	return nil
}

func (l *link) sessionToken() []byte {
	if l.token == nil {
		return wire.NoToken()
	}
	return l.token
}

// sayEOF replaces the bare end of a connection by what it likely means.
func sayEOF(err error, meaning string) error {
	var closed closedError
	if errors.Is(err, io.EOF) || errors.As(err, &closed) {
		return errors.New(meaning)
	}
	return err
}

// expired reports whether the server may have ended the session or the channel for want of requests, which
// happens to groups that are polled once in hours.
func (l *link) expired() bool {
	now := time.Now()
	_, end := l.channel.Times()
	return l.session > 0 && now.Sub(l.used) > l.session*3/4 || now.After(end)
}

// close ends session and channel. A live server is told, for at most a second, so that it frees
// the session at once; a dead one is not.
func (l *link) close() {
	l.timeout = min(l.timeout, time.Second)
	if l.token != nil && !l.dead {
		_, err := l.call(context.Background(), id.CloseSessionRequest_Encoding_DefaultBinary, id.CloseSessionResponse_Encoding_DefaultBinary, encode(&closeSession{true}))
		l.dead = err != nil
	}
	if !l.dead {
		_ = l.channel.Farewell(l.timeout, func(b []byte, request uint32) []byte { // is not answered
			return wire.AppendHeader(b, id.CloseSecureChannelRequest_Encoding_DefaultBinary, wire.NoToken(), request, 0)
		})
	}
	l.channel.Close()
}
