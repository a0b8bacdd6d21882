package opcua

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uacp"
	"github.com/gopcua/opcua/uasc"

	"millrace/gateway/telemetry"
)

// Bounds of the transport, told to the server in the handshake.
const (
	chunkSize  = 65535     // one chunk, the library's own default
	maxMessage = 2 << 20   // one response
	maxChunks  = 512       // chunks of one response
	minChunk   = 1024      // what we still cope with; the specification has 8192
	lifetime   = time.Hour // of the channel's token; the library renews it in time
)

// link is one connection: TCP, secure channel, session. It is never reconnected; a new one is opened.
//
// It stands on the library's secure channel, not on its Client: the Client starts goroutines of its
// own, ignores a session that could not be created and dereferences it, and cannot be closed while
// one of its requests hangs. Here the socket is ours, and closing it ends everything.
type link struct {
	tcp     *net.TCPConn
	channel *uasc.SecureChannel
	token   *ua.NodeID    // authentication token of the session, nil before
	timeout time.Duration // of one request
	session time.Duration // how long the server keeps the session without requests
	used    time.Time     // when the last request was answered
	dead    bool          // a request failed: the server will not answer a farewell

	maxRequest int // bytes of node ids in one request
}

// open connects and logs in. Each step has the request timeout as its deadline.
func (s *settings) open(ctx context.Context) (*link, error) {
	tcp, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{tcp: tcp, timeout: s.timeout}
	if err := s.openSession(ctx, l); err != nil {
		var refused statusError
		l.dead = !errors.As(err, &refused)
		l.close()
		return nil, err
	}
	return l, nil
}

func (s *settings) openSession(ctx context.Context, l *link) error {
	var conn *uacp.Conn
	err := l.bounded(ctx, func(context.Context) (err error) {
		conn, err = s.shakeHands(l)
		return err
	})
	if err != nil {
		return fmt.Errorf("shake hands with %s: %w", s.host, sayEOF(err, "the server closed the connection; is it an OPC UA server?"))
	}
	if err := s.secure(ctx, l, conn); err != nil {
		return err
	}
	return s.login(ctx, l)
}

// shakeHands exchanges Hello and Acknowledge (OPC 10000-6, 7.1.2). The library's own handshake takes
// the server's limits for the client's: it would allocate what the server says, and cut off a server
// that sends larger chunks than it receives. Here each side keeps its own.
func (s *settings) shakeHands(l *link) (*uacp.Conn, error) {
	ours := &uacp.Acknowledge{ReceiveBufSize: chunkSize, SendBufSize: chunkSize, MaxMessageSize: maxMessage, MaxChunkCount: maxChunks}
	conn, err := uacp.NewConn(l.tcp, ours)
	if err != nil {
		return nil, err
	}
	err = conn.Send("HELF", &uacp.Hello{
		ReceiveBufSize: chunkSize, SendBufSize: chunkSize, MaxMessageSize: maxMessage, MaxChunkCount: maxChunks, EndpointURL: s.endpoint,
	})
	if err != nil {
		return nil, err
	}
	b, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	var theirs uacp.Acknowledge
	if string(b[:4]) != "ACKF" {
		return nil, protocolError(fmt.Sprintf("the server answered with %q", b[:4]))
	}
	if _, err := theirs.Decode(b[8:]); err != nil {
		return nil, fmt.Errorf("decode the acknowledgement: %w", err)
	}
	if theirs.ReceiveBufSize < minChunk {
		return nil, protocolError(fmt.Sprintf("the server takes chunks of %d bytes only", theirs.ReceiveBufSize))
	}
	ours.SendBufSize = min(theirs.ReceiveBufSize, chunkSize)
	l.maxRequest = maxRequest
	if n := theirs.MaxMessageSize; n > 0 {
		l.maxRequest = int(min(n/2, maxRequest))
	}
	return conn, nil
}

func (s *settings) dial(ctx context.Context) (*net.TCPConn, error) {
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
	return c.(*net.TCPConn), nil
}

// secure opens the secure channel, with security policy None as yet.
func (s *settings) secure(ctx context.Context, l *link, conn *uacp.Conn) error {
	errs := make(chan error, 1) // never read: the library drops what does not fit
	channel, err := uasc.NewSecureChannel(s.endpoint, conn, &uasc.Config{
		SecurityPolicyURI: ua.SecurityPolicyURINone,
		SecurityMode:      ua.MessageSecurityModeNone,
		Lifetime:          uint32(s.lifetime / time.Millisecond),
		RequestTimeout:    s.timeout,
	}, errs)
	if err != nil {
		return fmt.Errorf("open secure channel: %w", err)
	}
	l.channel = channel
	if err := l.bounded(ctx, channel.Open); err != nil {
		return fmt.Errorf("open secure channel with %s: %w", s.host, sayEOF(err, "the server closed the connection; does it allow security policy None?"))
	}
	return nil
}

// login creates and activates the session.
func (s *settings) login(ctx context.Context, l *link) error {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	res, err := request[*ua.CreateSessionResponse](ctx, l, &ua.CreateSessionRequest{
		ClientDescription: &ua.ApplicationDescription{
			ApplicationURI:  "urn:millrace:gateway",
			ProductURI:      "urn:millrace",
			ApplicationName: ua.NewLocalizedText("millrace"),
			ApplicationType: ua.ApplicationTypeClient,
		},
		EndpointURL:             s.endpoint,
		SessionName:             "millrace " + s.device,
		ClientNonce:             nonce,
		RequestedSessionTimeout: float64(s.session / time.Millisecond),
		MaxResponseMessageSize:  maxMessage,
	})
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	identity, err := s.identity(l, res)
	if err != nil {
		return fmt.Errorf("activate session: %w", err)
	}
	l.token = res.AuthenticationToken
	l.session = time.Duration(min(max(res.RevisedSessionTimeout, 0), float64(24*time.Hour/time.Millisecond))) * time.Millisecond
	_, err = request[*ua.ActivateSessionResponse](ctx, l, &ua.ActivateSessionRequest{
		ClientSignature:    &ua.SignatureData{},
		LocaleIDs:          []string{"en"},
		UserIdentityToken:  ua.NewExtensionObject(identity),
		UserTokenSignature: &ua.SignatureData{},
	})
	if err != nil {
		return fmt.Errorf("activate session: %w", err)
	}
	return nil
}

// identity returns the user token that the server's policy for this channel asks for.
func (s *settings) identity(l *link, res *ua.CreateSessionResponse) (any, error) {
	wanted := ua.UserTokenTypeAnonymous
	if s.user != "" {
		wanted = ua.UserTokenTypeUserName
	}
	policy, certificate := userPolicy(res.ServerEndpoints, wanted)
	if s.user == "" {
		if policy == nil { // some servers list no endpoints here; let them refuse
			policy = &ua.UserTokenPolicy{PolicyID: "Anonymous"}
		}
		return &ua.AnonymousIdentityToken{PolicyID: policy.PolicyID}, nil
	}
	switch {
	case policy == nil:
		return nil, errors.New("the server takes no user names on this endpoint; remove username")
	case policy.SecurityPolicyURI == "" || policy.SecurityPolicyURI == ua.SecurityPolicyURINone:
		return nil, errors.New("the server wants the password in clear text, which is refused; have it ask for an encrypted password")
	}
	if certificate == nil {
		certificate = res.ServerCertificate
	}
	password, algorithm, err := l.channel.EncryptUserPassword(policy.SecurityPolicyURI, s.password, certificate, res.ServerNonce)
	if err != nil {
		return nil, fmt.Errorf("encrypt the password: %w", err)
	}
	return &ua.UserNameIdentityToken{PolicyID: policy.PolicyID, UserName: s.user, Password: password, EncryptionAlgorithm: algorithm}, nil
}

// userPolicy returns the first user token policy of the type among the endpoints without security.
func userPolicy(endpoints []*ua.EndpointDescription, t ua.UserTokenType) (*ua.UserTokenPolicy, []byte) {
	for _, e := range endpoints {
		if e.SecurityMode != ua.MessageSecurityModeNone {
			continue
		}
		for _, p := range e.UserIdentityTokens {
			if p.TokenType == t {
				return p, e.ServerCertificate
			}
		}
	}
	return nil, nil
}

// request sends one service request and waits for its response, for at most the timeout. A refusal
// by the server is a statusError.
func request[R ua.Response](ctx context.Context, l *link, req ua.Request) (res R, err error) {
	answered := false
	err = l.bounded(ctx, func(ctx context.Context) error {
		return l.channel.SendRequestWithTimeout(ctx, req, l.token, l.timeout, func(r ua.Response) error {
			if res, answered = r.(R); !answered {
				return protocolError(fmt.Sprintf("the server answered with %T", r))
			}
			return nil
		})
	})
	var code statusError
	if errors.As(err, &code) && answered && qualityOf(ua.StatusCode(code)) != telemetry.Bad {
		err = nil // a service result such as GoodOverload, which the library takes for an error
	}
	if errors.Is(err, io.EOF) {
		err = protocolError("the server closed the connection")
	}
	if err == nil && !answered {
		err = protocolError("the server answered nothing")
	}
	if err == nil {
		l.used = time.Now()
	}
	return res, err
}

// bounded runs one step under the request timeout. At its end the socket is closed, because that
// alone reliably wakes the library: it waits on locks while it renews the channel's token. A status
// that the server answers with becomes a statusError, a panic of the library in our goroutine an error.
func (l *link) bounded(ctx context.Context, step func(context.Context) error) (err error) {
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	stop := context.AfterFunc(limited, func() { l.tcp.Close() })
	defer stop()
	defer func() {
		if p := recover(); p != nil {
			err = protocolError(fmt.Sprintf("the OPC UA library panicked: %v", p))
		}
	}()
	err = step(limited)
	var code ua.StatusCode
	var network *net.OpError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return timeoutError(l.timeout)
	case errors.As(err, &code):
		return statusError(code)
	case errors.As(err, &network): // its own words hold the local port, which differs each time
		return protocolError("the connection is lost: " + network.Err.Error())
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

// expired reports whether the server may have ended the session for want of requests, which
// happens to groups that are polled once in hours.
func (l *link) expired() bool {
	return l.session > 0 && time.Since(l.used) > l.session*3/4
}

// close ends session and channel. A live server is told, for at most a second, so that it frees
// the session at once; a dead one is not.
func (l *link) close() {
	if l.token != nil && !l.dead {
		l.timeout = min(l.timeout, time.Second)
		_, _ = request[*ua.CloseSessionResponse](context.Background(), l, &ua.CloseSessionRequest{DeleteSubscriptions: true})
	}
	if l.dead {
		l.tcp.Close()
	}
	if l.channel != nil {
		l.channel.Close() // ends the library's goroutines; returns io.EOF always
	}
	l.tcp.Close()
}
