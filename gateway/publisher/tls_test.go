package publisher

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"millrace/gateway/link/mqtt/brokersim"
)

// authority is a test CA.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{t, cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns a certificate and its key as PEM.
func (a *authority) issue(host string, end time.Time) (cert, key []byte) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-2 * time.Hour),
		NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, _ := x509.MarshalPKCS8PrivateKey(k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func (a *authority) pair(host string, end time.Time) tls.Certificate {
	a.t.Helper()
	pair, err := tls.X509KeyPair(a.issue(host, end))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTLSRefusals: a broker that cannot prove who it is gets nothing, at the first connect and at every later
// one; once it can, everything arrives, without a restart.
func TestTLSRefusals(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	hour := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name string
		bad  tls.Certificate
		err  string
	}{
		{"wrong CA", other.pair("127.0.0.1", hour), "unknown authority"},
		{"wrong host", ca.pair("192.0.2.1", hour), "192.0.2.1, not 127.0.0.1"},
		{"expired", ca.pair("127.0.0.1", time.Now().Add(-time.Minute)), "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "ca.pem")
			write(t, file, ca.pem)
			good := ca.pair("127.0.0.1", hour)
			serving := make(chan *tls.Certificate, 1)
			serving <- &c.bad
			config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				cert := <-serving
				serving <- cert
				return cert, nil
			}}
			o := quick
			o.TLS = TLS{CAFile: file}
			r := newRig(t, rigOptions{publisher: o, broker: brokersim.Options{TLS: config}})
			r.append(0, 3)
			r.run()
			refused := func(when string) {
				t.Helper()
				r.await(when, func() bool { return strings.Contains(r.p.Stats().LastError, c.err) })
			}
			refused("refused at first")
			<-serving
			serving <- &good
			r.delivered()
			<-serving
			serving <- &c.bad
			sessions := r.p.Stats().Sessions
			r.broker.CutAll()
			refused("refused again")
			r.append(0, 3)
			time.Sleep(300 * time.Millisecond)
			if s := r.p.Stats(); s.Sessions != sessions || s.Unacked != 1 {
				t.Errorf("a session with a broker that proved nothing: %+v", s)
			}
			<-serving
			serving <- &good
			r.delivered()
		})
	}
}

// TestClientCertificateRenewed: the client's certificate expires, the file is renewed, nothing is restarted.
func TestClientCertificateRenewed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	dir := t.TempDir()
	files := TLS{CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	o := quick
	o.TLS = files
	config := &tls.Config{Certificates: []tls.Certificate{ca.pair("127.0.0.1", time.Now().Add(time.Hour))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}
	r := newRig(t, rigOptions{publisher: o, broker: brokersim.Options{TLS: config}})
	r.append(0, 3)
	r.run()
	says := func(text string) {
		t.Helper()
		r.await(text, func() bool { return strings.Contains(r.p.Stats().LastError, text) })
	}
	says("read CA certificates")
	write(t, files.CAFile, []byte("rubbish"))
	says("holds no PEM certificate")
	write(t, files.CAFile, ca.pem)
	says("read client certificate")
	cert, key := ca.issue("shop", time.Now().Add(-time.Minute))
	write(t, files.KeyFile, key)
	write(t, files.CertFile, cert)
	says("expired") // the broker's alert
	cert, key = ca.issue("shop", time.Now().Add(time.Hour))
	write(t, files.KeyFile, key)
	write(t, files.CertFile, cert)
	r.delivered()
	if r.got.sum() != 3 {
		t.Errorf("received %d readings", r.got.sum())
	}
}

func TestServerName(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, ca.pem)
	o := quick
	o.TLS = TLS{CAFile: file, ServerName: "broker.plant"}
	r := newRig(t, rigOptions{publisher: o, broker: brokersim.Options{TLS: &tls.Config{Certificates: []tls.Certificate{ca.pair("broker.plant", time.Now().Add(time.Hour))}}}})
	r.append(0, 3)
	r.run()
	r.delivered()
}

// webConn makes a websocket a stream.
type webConn struct {
	*websocket.Conn
	rest []byte
}

func (w *webConn) Read(p []byte) (int, error) {
	for len(w.rest) == 0 {
		_, data, err := w.ReadMessage()
		if err != nil {
			return 0, err
		}
		w.rest = data
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *webConn) Write(p []byte) (int, error) {
	return len(p), w.WriteMessage(websocket.BinaryMessage, p)
}

func (w *webConn) SetDeadline(t time.Time) error {
	w.SetReadDeadline(t)
	return w.SetWriteDeadline(t)
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		r := &rig{t: t, got: newAccount()}
		r.broker = brokersim.New(brokersim.Options{OnPublish: r.got.take})
		upgrade := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
		web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if ws, err := upgrade.Upgrade(w, q, nil); err == nil {
				r.broker.Serve(&webConn{Conn: ws})
			}
		}))
		o := rigOptions{publisher: quick}
		if secure {
			web.StartTLS()
			file := filepath.Join(t.TempDir(), "ca.pem")
			write(t, file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
			o.publisher.TLS.CAFile = file
		} else {
			web.Start()
		}
		o.publisher.URL = "ws" + strings.TrimPrefix(web.URL, "http") + "/mqtt"
		r.open(o)
		r.run()
		for i := range 300 {
			r.append(i%3, 3)
		}
		r.delivered()
		r.broker.CutAll()
		r.append(0, 3)
		r.delivered()
		if r.got.sum() != r.sent || r.p.Stats().Sessions != 2 {
			t.Errorf("secure %v: received %d of %d, %d sessions", secure, r.got.sum(), r.sent, r.p.Stats().Sessions)
		}
		r.stop()
		r.broker.Kill()
		web.Close()
	}
}
