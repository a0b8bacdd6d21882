package publisher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// TLS names the files of a TLS connection. They are read again at every connect, so that a renewed file is
// used without a restart. The broker's certificate is always verified.
type TLS struct {
	CAFile     string // PEM certificates to trust; "" = those of the system
	CertFile   string // PEM certificate of this client, "" = none
	KeyFile    string // and its key
	ServerName string // the name that the broker's certificate must have; "" = the host of the URL
}

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
		return target{}, fmt.Errorf("read url: %w", err)
	}
	if u.User != nil {
		return target{}, errors.New("the url holds a user name; give it as username and password")
	}
	t := target{url: u, host: u.Host}
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl", "tls":
		t.secure, port = true, "8883"
	case "ws":
		t.web, port = true, "80"
	case "wss":
		t.web, t.secure, port = true, true, "443"
	default:
		return target{}, fmt.Errorf("url %q has no scheme that MQTT runs over; use mqtt://, mqtts://, ws:// or wss://", text)
	}
	if u.Hostname() == "" {
		return target{}, fmt.Errorf("url %q names no host", text)
	}
	if u.Port() == "" {
		t.host = net.JoinHostPort(u.Hostname(), port)
	}
	return t, nil
}

// dial opens the network connection, up to but not including the MQTT login.
func dial(ctx context.Context, t target, files TLS) (net.Conn, error) {
	var config *tls.Config
	if t.secure {
		var err error
		if config, err = files.load(t.url.Hostname()); err != nil {
			return nil, err
		}
	}
	if t.web {
		return dialWeb(ctx, t, config)
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", t.host)
	if err != nil || !t.secure {
		return raw, err
	}
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secure, nil
}

// dialWeb does not wait for the handshake, which knows no context, once ctx has ended.
func dialWeb(ctx context.Context, t target, config *tls.Config) (net.Conn, error) {
	timeout := time.Minute
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := mqtt.NewWebsocket(t.url.String(), config, timeout, nil, nil)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// load reads the files.
func (f *TLS) load(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if f.ServerName != "" {
		c.ServerName = f.ServerName
	}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA certificates: %q holds no PEM certificate", f.CAFile)
		}
	}
	if f.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// connect makes a session with the broker. The client that it returns is good for this session only.
func (p *Publisher) connect(ctx context.Context) (mqtt.Client, *conn, error) {
	within, cancel := context.WithTimeout(ctx, p.o.ConnectTimeout)
	defer cancel()
	raw, err := p.dial(within)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	c := wrap(raw)
	go c.write()
	client := mqtt.NewClient(p.clientOptions(c))
	token := client.Connect()
	stop := context.AfterFunc(ctx, func() { c.fail(ctx.Err()) })
	defer stop()
	if !token.WaitTimeout(2 * p.o.ConnectTimeout) {
		err = errors.New("no answer")
	} else {
		err = token.Error()
	}
	if errors.Is(err, packets.ErrorNetworkError) && c.lostFor() != nil {
		err = c.lostFor() // without the library's wrapping
	}
	if err != nil {
		c.fail(err)
		go client.Disconnect(0)
		return nil, nil, fmt.Errorf("log in: %w", err)
	}
	return client, c, nil
}

// publishTimeout is how long Publish may wait to hand a message over. Nothing holds it up but a connection
// that was lost at that moment, and then nobody waits for it.
const publishTimeout = 2 * time.Second

const (
	pingCheck = 5 * time.Second // the library looks that seldom whether a ping is due (paho v1.5.1 ping.go:41)
	pingNever = time.Hour       // session.alive decides, not the library
)

// clientOptions turn everything off that would send, store or connect on its own account.
func (p *Publisher) clientOptions(c *conn) *mqtt.ClientOptions {
	o := mqtt.NewClientOptions()
	o.AddBroker("tcp://" + p.target.host) // not dialled: the connection is there
	o.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return c, nil })
	o.SetClientID(p.o.ClientID)
	o.SetUsername(p.o.Username)
	o.SetPassword(p.o.Password)
	o.SetCleanSession(true)
	o.SetAutoReconnect(false)
	o.SetConnectRetry(false)
	o.SetOrderMatters(false)
	o.SetProtocolVersion(4)
	o.SetStore(noStore{})
	o.SetKeepAlive(p.o.KeepAlive)
	o.SetPingTimeout(pingNever)
	o.SetConnectTimeout(p.o.ConnectTimeout)
	o.SetWriteTimeout(publishTimeout)
	return o
}

// noStore is the client library's store of messages to send again: ours is the buffer.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}

// isRefusal reports whether the broker answered the login with no.
func isRefusal(err error) bool {
	return errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) || errors.Is(err, packets.ErrorRefusedNotAuthorised) ||
		errors.Is(err, packets.ErrorRefusedIDRejected) || errors.Is(err, packets.ErrorRefusedBadProtocolVersion)
}
