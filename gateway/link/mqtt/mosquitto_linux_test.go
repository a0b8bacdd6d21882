package mqtt

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"millrace/drivers/drivertest"
	"millrace/drivers/peer"
	"millrace/gateway/link"
)

// mosquitto is a real broker with four listeners on the loopback.
type mosquitto struct{ plain, secure, web, closed string }

// lookMosquitto returns the broker's path.
func lookMosquitto(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	drivertest.Lacks(t, "mosquitto is missing; apt-get install mosquitto")
	return ""
}

func startMosquitto(t *testing.T, ca *authority) mosquitto {
	t.Helper()
	path, dir := lookMosquitto(t), t.TempDir()
	cert, key := ca.issue(t, "127.0.0.1", time.Now().Add(time.Hour))
	for name, data := range map[string][]byte{"ca.pem": ca.pem, "cert.pem": cert, "key.pem": key, "passwd": nil} {
		write(t, filepath.Join(dir, name), data)
	}
	m := mosquitto{fmt.Sprintf("127.0.0.1:%d", drivertest.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", drivertest.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", drivertest.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", drivertest.FreePort(t))}
	var conf bytes.Buffer
	fmt.Fprintf(&conf, "per_listener_settings true\npersistence false\nlog_dest stderr\n")
	if os.Getuid() == 0 {
		fmt.Fprintln(&conf, "user root") // else it becomes a user who cannot read the test's directory
	}
	listener := func(addr, more string) {
		host, port, _ := net.SplitHostPort(addr)
		fmt.Fprintf(&conf, "listener %s %s\n%s\n", port, host, more)
	}
	listener(m.plain, "allow_anonymous true")
	listener(m.secure, fmt.Sprintf("allow_anonymous true\ncafile %[1]s/ca.pem\ncertfile %[1]s/cert.pem\nkeyfile %[1]s/key.pem", dir))
	listener(m.web, "allow_anonymous true\nprotocol websockets")
	listener(m.closed, "allow_anonymous false\npassword_file "+filepath.Join(dir, "passwd"))
	write(t, filepath.Join(dir, "conf"), conf.Bytes())
	cmd := exec.Command(path, "-c", filepath.Join(dir, "conf"))
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	await(t, "mosquitto listens", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("mosquitto has ended: %v\n%s", err, log.String())
		default:
		}
		conn, err := net.Dial("tcp", m.closed)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return m
}

// TestMosquitto: a broker that is not ours understands us, over each transport, and its refusals are understood.
func TestMosquitto(t *testing.T) {
	ca := newAuthority(t, "ca")
	m := startMosquitto(t, ca)
	files := peer.Files{CA: ca.file(t)}
	for name, url := range map[string]string{"tcp": "mqtt://" + m.plain, "tls": "mqtts://" + m.secure, "websocket": "ws://" + m.web + "/mqtt"} {
		t.Run(name, func(t *testing.T) { mosquittoTakes(t, Options{URL: url, TLS: files}) })
	}
	for _, c := range []struct {
		name, url string
		kind      error
		words     string
	}{
		{"anonymous", "mqtt://" + m.closed, link.ErrRefused, "not authorised"},
		{"plain to TLS", "mqtt://" + m.secure, nil, "mqtts://"},
		{"TLS to plain", "mqtts://" + m.plain, nil, "does this port speak TLS"},
		{"plain to websocket", "mqtt://" + m.web, link.ErrProtocol, "speaks HTTP"},
		{"websocket to plain", "ws://" + m.plain, nil, "does not speak HTTP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := dialer(t, Options{URL: c.url, TLS: files}).Dial(context.Background(), nil)
			says(t, err, c.kind, c.words)
		})
	}
}

// mosquittoTakes publishes with every QoS, and a will, to a watcher who finds a retained message there.
func mosquittoTakes(t *testing.T, o Options) {
	idle := o.URL[:5] == "mqtt:" // not all three: it takes its time
	if idle {
		o.KeepAlive = 3 * time.Second
	}
	before := open(t, dialer(t, o), &link.Message{Topic: "plant/state", Payload: []byte("offline"), QoS: 1, Retain: true})
	if err := before.Send(link.Message{Topic: "plant/kept", Payload: []byte("old"), QoS: 1, Retain: true}); err != nil {
		t.Fatal(err)
	}
	before.Flush()
	acks(t, before, 1)
	o.ClientID = "watcher"
	watcher := open(t, dialer(t, o), nil)
	if err := watcher.Subscribe("plant/#"); err != nil {
		t.Fatal(err)
	}
	expect := func(topic, payload string, retained bool) {
		t.Helper()
		select {
		case m := <-watcher.Inbox():
			if m.Topic != topic || string(m.Payload) != payload || m.Retain != retained {
				t.Fatalf("message %q: %.20q, retained %v; want %q", m.Topic, m.Payload, m.Retain, topic)
			}
		case <-time.After(patience):
			t.Fatalf("no message of %q: %v", topic, watcher.Err())
		}
	}
	expect("plant/kept", "old", true)
	large := string(bytes.Repeat([]byte("x"), 60_000))
	for qos := range byte(3) {
		if err := before.Send(link.Message{Topic: "plant/live", Payload: []byte(large), QoS: qos}); err != nil {
			t.Fatal(err)
		}
		before.Flush()
		expect("plant/live", large, false)
	}
	acks(t, before, 3)
	if idle {
		time.Sleep(6 * time.Second) // mosquitto closes after 1.5 keep-alives without a ping
	}
	if before.Err() != nil || watcher.Err() != nil {
		t.Fatalf("a session has ended: %v, %v", before.Err(), watcher.Err())
	}
	_ = before.conn.Close() // no farewell
	expect("plant/state", "offline", false)
	if err := watcher.Send(link.Message{Topic: "plant/state", QoS: 1, Retain: true}); err != nil { // forgets it
		t.Fatal(err)
	}
	watcher.Flush()
	acks(t, watcher, 1)
}
