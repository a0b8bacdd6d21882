package opcua

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
)

// refused connects and wants an error that holds the words.
func refused(t *testing.T, c drivers.Connection, want string) {
	t.Helper()
	d, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant …%s…", err, want)
	}
}

// trust moves the one certificate of rejected/ to trusted/, as the command does.
func trust(t *testing.T, dir string) {
	t.Helper()
	p := PKI{dir}
	all, err := p.List("rejected")
	if err != nil || len(all) != 1 {
		t.Fatalf("%d certificates in rejected/, want 1 (%v)", len(all), err)
	}
	if _, err := p.Trust(Thumbprint(all[0].Raw)[:8]); err != nil {
		t.Fatal(err)
	}
}

// trusting puts a certificate into trusted/.
func trusting(t *testing.T, dir string, der []byte) {
	t.Helper()
	write(t, filepath.Join(dir, "trusted", "server.der"), der)
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

var (
	identities sync.Map // keys are slow to make
	makeOnce   sync.Mutex
)

// identity returns a server's key and certificate, the same in all tests.
func identity(t testing.TB) *opcuasim.Identity {
	t.Helper()
	makeOnce.Lock()
	defer makeOnce.Unlock()
	if known, ok := identities.Load("server"); ok {
		return known.(*opcuasim.Identity)
	}
	made, err := opcuasim.NewIdentity(2048, nil)
	if err != nil {
		t.Fatal(err)
	}
	identities.Store("server", made)
	return made
}

// ownIn puts our own key and certificate, the same in all tests, into a directory.
func ownIn(t *testing.T, dir string) {
	t.Helper()
	makeOnce.Lock()
	defer makeOnce.Unlock()
	b, ok := identities.Load("own")
	if !ok {
		made, err := newOwn()
		if err != nil {
			t.Fatal(err)
		}
		b = made
		identities.Store("own", made)
	}
	write(t, filepath.Join(dir, "own", "millrace.pem"), b.([]byte))
}

func uris(names ...string) (all []string) {
	for _, p := range wire.Policies()[1:] {
		for _, n := range names {
			if p.Name == n {
				all = append(all, p.URI)
			}
		}
	}
	return all
}

var current = []string{"basic256sha256", "aes128-sha256-rsaoaep", "aes256-sha256-rsapss"}

// securedConnection describes a device with options beside a directory of certificates in which the server is trusted.
func securedConnection(t *testing.T, endpoint string, options map[string]string, addresses ...string) (drivers.Connection, string) {
	dir := t.TempDir()
	ownIn(t, dir)
	trusting(t, dir, identity(t).Certificate)
	c := connection(endpoint, 10*time.Second, addresses...)
	c.Devices[0].Options = map[string]string{"pki": dir}
	for k, v := range options {
		c.Devices[0].Options[k] = v
	}
	return c, dir
}

// TestSecured reads over each policy in each mode, with answers of several chunks and a renewal of the token between.
func TestSecured(t *testing.T) {
	s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...), MaxNodesPerRead: 1000}, 1000)
	s.AddVariable("long", func() any { return make([]float64, 20000) })
	for _, policy := range current {
		for _, mode := range []string{"sign", "sign-and-encrypt"} {
			t.Run(policy+" "+mode, func(t *testing.T) {
				c, _ := securedConnection(t, s.Endpoint(), map[string]string{"security_policy": policy, "security_mode": mode}, append(variables(1000), "ns=2;s=long")...)
				d, err := newDriver(c)
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				d.(*driver).set.lifetime = time.Second // renewed after 750 ms
				if err := d.Connect(t.Context()); err != nil {
					t.Fatal(err)
				}
				for begin := time.Now(); time.Since(begin) < 1800*time.Millisecond; time.Sleep(100 * time.Millisecond) {
					all := read(t, d)
					wantNumbers(t, all[:1000], nil)
					if all[1000].Value.Bits != 20000 {
						t.Fatalf("an array over chunks: %+v", all[1000].Reason)
					}
				}
				got := d.(*driver).link.channel.Security()
				if got.Policy.Name != policy || got.Mode.String() != mode {
					t.Errorf("connected by %s %v", got.Policy.Name, got.Mode)
				}
			})
		}
	}
}

// TestWithdrawnPolicies need a word of the config.
func TestWithdrawnPolicies(t *testing.T) {
	s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris("basic128rsa15", "basic256"), NoneToo: true}, 3)
	c, _ := securedConnection(t, s.Endpoint(), nil, variables(3)...)
	refused(t, c, `the server offers withdrawn security policies only: basic256 sign-and-encrypt, basic128rsa15 sign-and-encrypt, basic256 sign, basic128rsa15 sign, none; write "allow_insecure: true" to allow them`)
	c.Devices[0].Options["allow_insecure"] = "true"
	d := connect(t, c)
	wantNumbers(t, read(t, d), nil)
	if got := d.link.channel.Security(); got.Policy.Name != "basic256" {
		t.Errorf("connected by %s, want the stronger of two", got.Policy.Name)
	}
}

// TestChoice holds which endpoint is taken, and what is said when none fits.
func TestChoice(t *testing.T) {
	for _, c := range []struct {
		name    string
		offers  []string
		none    bool
		options map[string]string
		want    string
	}{
		{"strongest", current, true, nil, "aes256-sha256-rsapss sign-and-encrypt"},
		{"by mode", current, true, map[string]string{"security_mode": "sign"}, "aes256-sha256-rsapss sign"},
		{"by policy", current, true, map[string]string{"security_policy": "basic256sha256"}, "basic256sha256 sign-and-encrypt"},
		{"auto is a word", current[:1], true, map[string]string{"security_policy": "auto"}, "basic256sha256 sign-and-encrypt"},
		{"none, written", current, true, map[string]string{"security_policy": "none"}, "none none"},
		{"none, not written", nil, true, nil, `the server offers unsecured connections only, which anybody on the way can read and change; write "security_policy: none" to allow that`},
		{"none, not offered", current[:1], false, map[string]string{"security_policy": "none"},
			`the server takes no unsecured connections; it offers basic256sha256 sign-and-encrypt, basic256sha256 sign; remove "security_policy: none" to take the strongest of these`},
		{"not offered", current[:1], true, map[string]string{"security_policy": "aes256-sha256-rsapss", "security_mode": "sign"},
			"the server offers no endpoint with security_policy aes256-sha256-rsapss and security_mode sign; it offers basic256sha256 sign-and-encrypt, basic256sha256 sign, none; " +
				`write "security_policy: basic256sha256" and "security_mode: sign-and-encrypt" for the strongest of these`},
		{"unsecured only", nil, true, map[string]string{"security_mode": "sign"}, `the server offers no endpoint with security_mode sign; it offers unsecured connections only, ` +
			`which anybody on the way can read and change; write "security_policy: none" and no security_mode to allow that`},
		{"withdrawn only", []string{"basic256"}, true, map[string]string{"security_mode": "sign"}, `the server offers no endpoint with security_mode sign; it offers basic256 sign-and-encrypt, basic256 sign, none; ` +
			`write "security_policy: basic256", "security_mode: sign-and-encrypt" and "allow_insecure: true" for the strongest of these`},
		{"in OPC UA's spelling", current, true, map[string]string{"security_policy": "Aes128_Sha256_RsaOaep", "security_mode": "SignAndEncrypt"}, "aes128-sha256-rsaoaep sign-and-encrypt"},
		{"none, in OPC UA's spelling", current, true, map[string]string{"security_policy": "None"}, "none none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(c.offers...), NoneToo: c.none}, 1)
			conn, _ := securedConnection(t, s.Endpoint(), c.options, variables(1)...)
			made, err := newDriver(conn)
			if err != nil {
				t.Fatal(err)
			}
			defer made.Close()
			d := made.(*driver)
			got := ""
			if err := d.Connect(t.Context()); err != nil {
				got = err.Error()
			} else {
				got = d.link.channel.Security().Policy.Name + " " + d.link.channel.Security().Mode.String()
			}
			if got != c.want {
				t.Errorf("\ngot  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestStrippedEndpoints has a man in the middle who takes the better endpoints out of the list. He gets no session and no password.
func TestStrippedEndpoints(t *testing.T) {
	for _, c := range []struct {
		name string
		keep func(*ua.EndpointDescription) bool
		want string
	}{
		{"a weaker policy", func(e *ua.EndpointDescription) bool { return strings.HasSuffix(e.SecurityPolicyURI, "Basic256Sha256") },
			"the server also offers aes128-sha256-rsaoaep sign-and-encrypt, which the list of endpoints did not say: somebody on the way may have changed it"},
		{"signed only", func(e *ua.EndpointDescription) bool { return e.SecurityMode == ua.MessageSecurityModeSign },
			"which the list of endpoints did not say: somebody on the way may have changed it"},
		{"unsecured", func(e *ua.EndpointDescription) bool { return e.SecurityMode == ua.MessageSecurityModeNone },
			`the server offers unsecured connections only`},
		{"nothing stripped", func(*ua.EndpointDescription) bool { return true }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...), NoneToo: true, Username: "u", Password: "p",
				Offers: func(all []*ua.EndpointDescription) (kept []*ua.EndpointDescription) {
					for _, e := range all {
						if c.keep(e) {
							kept = append(kept, e)
						}
					}
					return kept
				}}, 1)
			conn, _ := securedConnection(t, s.Endpoint(), map[string]string{"username": "u", "password": "p"}, variables(1)...)
			if c.want == "" {
				wantNumbers(t, read(t, connect(t, conn)), nil)
			} else {
				refused(t, conn, c.want)
				refused(t, conn, c.want)
			}
			if n := s.Logins(); (n == 0) != (c.want != "") {
				t.Errorf("the password was sent %d times", n)
			}
		})
	}
}

// TestForgedSession has a server that shows a trusted certificate and does not prove that it has the key.
func TestForgedSession(t *testing.T) {
	for _, policy := range current {
		s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(policy), Forge: true}, 1)
		c, _ := securedConnection(t, s.Endpoint(), nil, variables(1)...)
		refused(t, c, "the server does not prove that its certificate is its own: the signature of the session is wrong")
	}
}

// TestPasswords logs in over each kind of channel, with servers that take the password encrypted and in clear text.
func TestPasswords(t *testing.T) {
	for _, c := range []struct {
		name    string
		clear   bool
		options map[string]string
		want    string
	}{
		{"encrypted twice", false, nil, ""},
		{"over a signed channel", false, map[string]string{"security_mode": "sign"}, ""},
		{"without security", false, map[string]string{"security_policy": "none"}, ""},
		{"clear in an encrypted channel", true, nil, ""},
		{"clear in a signed channel", true, map[string]string{"security_mode": "sign"}, `the server wants the password in clear text, which is refused`},
		{"clear without security", true, map[string]string{"security_policy": "none"}, `or write "allow_clear_password: true"`},
		{"clear, allowed", true, map[string]string{"security_policy": "none", "allow_clear_password": "true"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			long := strings.Repeat("pässwort", 40) // more than a block of RSA
			s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...), NoneToo: true, Username: "u", Password: long, ClearPassword: c.clear}, 1)
			conn, _ := securedConnection(t, s.Endpoint(), c.options, variables(1)...)
			conn.Devices[0].Options["username"], conn.Devices[0].Options["password"] = "u", long
			if c.want != "" {
				refused(t, conn, c.want)
				return
			}
			wantNumbers(t, read(t, connect(t, conn)), nil)
		})
	}
}

// TestFirstConnect is what a person meets: refused, told what to do, done, connected. Our own certificate is made once.
func TestFirstConnect(t *testing.T) {
	s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...)}, 3)
	dir := filepath.Join(t.TempDir(), "pki")
	c := connection(s.Endpoint(), 10*time.Second, variables(3)...)
	c.Devices[0].Options = map[string]string{"pki": dir}
	thumb := Thumbprint(identity(t).Certificate)
	for range 2 {
		refused(t, c, `the server's certificate "millrace simulated machine" (thumbprint `+thumb+`) is not trusted; `+
			`compare the thumbprint with what the server shows, then run: millrace opcua trust add `+thumb+` --pki `+dir)
	}
	trust(t, dir)
	d := connect(t, c)
	wantNumbers(t, read(t, d), nil)
	d.Close()
	before, err := os.ReadFile(filepath.Join(dir, "own", "millrace.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "own", "millrace.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	connect(t, c)
	if after, _ := os.ReadFile(filepath.Join(dir, "own", "millrace.pem")); !bytes.Equal(before, after) {
		t.Error("our own certificate was made anew")
	}
	if _, err := (PKI{dir}).Remove(thumb); err != nil {
		t.Fatal(err)
	}
	refused(t, c, "is not trusted")
}

// TestOwnIsMadeOnce has several devices that need our certificate at the same time.
func TestOwnIsMadeOnce(t *testing.T) {
	p := PKI{t.TempDir()}
	var all sync.WaitGroup
	var chains [4][]byte
	for i := range chains {
		all.Go(func() {
			_, chain, err := p.own()
			if err != nil {
				t.Error(err)
			}
			chains[i] = chain
		})
	}
	all.Wait()
	for _, c := range chains {
		if !bytes.Equal(c, chains[0]) {
			t.Fatal("two certificates of our own")
		}
	}
	left, err := os.ReadDir(filepath.Join(p.Path, "own"))
	if err != nil || len(left) != 2 {
		t.Errorf("own/ holds %v, want key and certificate", left)
	}
}

// TestSpoiltBytes has somebody on the way who changes one byte of what the server sends, at some place of the conversation. No wrong value is
// ever read.
func TestSpoiltBytes(t *testing.T) {
	s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris("aes256-sha256-rsapss")}, 3)
	c, _ := securedConnection(t, "opc.tcp://127.0.0.1:1", nil, variables(3)...)
	made, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	for at := 0; at < 6000; at += 173 {
		l, err := d.set.openVia(t.Context(), s.Addr(), at)
		if err != nil {
			continue
		}
		d.link = l
		if d.learn(t.Context()) == nil {
			if all, err := d.Read(t.Context(), drivers.Ref{}, nil); err == nil {
				wantNumbers(t, all, nil)
			}
		}
		d.link.dead = true
		d.Close()
	}
}

// openVia is open over a connection that spoils the byte at a place.
func (s *settings) openVia(ctx context.Context, addr string, at int) (*link, error) {
	plain := *s
	plain.host = addr
	l, err := plain.reach(ctx, wire.Unsecured())
	if err != nil {
		return nil, err
	}
	offers, chosen, err := plain.ask(ctx, l)
	l.close()
	if err != nil {
		return nil, err
	}
	remote, err := plain.trusted(chosen.certificate, chosen)
	if err != nil {
		return nil, err
	}
	key, chain, err := plain.pki.own()
	if err != nil {
		return nil, err
	}
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	l, err = plain.channel(ctx, &spoiler{Conn: tcp, at: at}, wire.Security{Policy: chosen.policy, Mode: chosen.mode, Chain: chain, Key: key,
		Remote: remote.Raw, RemoteKey: remote.PublicKey.(*rsa.PublicKey)})
	if err != nil {
		return nil, err
	}
	if err := plain.login(ctx, l, chosen, offers); err != nil {
		l.dead = true
		l.close()
		return nil, err
	}
	return l, nil
}

type spoiler struct {
	net.Conn
	at int
}

func (s *spoiler) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if s.at >= 0 && s.at < n {
		b[s.at] ^= 4
	}
	s.at -= n
	return n, err
}

// TestSecretiveServer: one that tells nothing without security has to allow that, and the error says so; also when it refuses the channel itself.
func TestSecretiveServer(t *testing.T) {
	const want = "; the server takes secured connections only, and tells nobody its endpoints"
	for _, status := range []ua.StatusCode{ua.StatusBadSecurityPolicyRejected, ua.StatusBadSecurityModeRejected, ua.StatusBadServiceUnsupported} {
		s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...), Secretive: uint32(status)}, 1)
		says := map[bool]string{true: want, false: "BadServiceUnsupported"}[status != ua.StatusBadServiceUnsupported]
		refused(t, connection(s.Endpoint(), time.Second, "i=2258"), says)
		_, err := Offers(t.Context(), s.Endpoint(), time.Second)
		_, err2 := FindServers(t.Context(), s.Endpoint(), time.Second)
		for _, err := range []error{err, err2} {
			if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "discovery") != (says == want) {
				t.Errorf("%v, want %q", err, says)
			}
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 8<<10)
		_, _ = c.Read(b) // the hello
		_, _ = c.Write(opcuasim.Frame("ACKF", []byte{0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}))
		_, _ = c.Read(b) // the channel is to be opened
		_, _ = c.Write(opcuasim.Frame("ERRF", binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(ua.StatusBadSecurityPolicyRejected)), 0xffffffff)))
		_, _ = c.Read(b) // until it is closed
	}()
	refused(t, connection("opc.tcp://"+l.Addr().String(), 5*time.Second, "i=2258"), "meet the requirements set by the server"+want)
}
