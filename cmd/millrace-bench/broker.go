package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// broker is mosquitto as a child process, on loopback, with its own limits out of the way: its default
// of 1000 queued messages would be reported as losses of the gateway.
type broker struct {
	address string
	cmd     *exec.Cmd
}

const mosquittoConf = `listener %d 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 0
max_inflight_bytes 0
max_queued_bytes 0
set_tcp_nodelay true
log_type error
`

func startBroker(dir string) (*broker, error) {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("find mosquitto: %w; install it (apt-get install mosquitto)", err)
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, mosquittoConf, port), 0o644); err != nil {
		return nil, err
	}
	b := &broker{address: fmt.Sprintf("127.0.0.1:%d", port), cmd: exec.Command(path, "-c", conf)}
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	return b, waitListening(b.address)
}

func (b *broker) stop() {
	_ = b.cmd.Process.Kill()
	_, _ = b.cmd.Process.Wait()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func waitListening(address string) error {
	for range 200 {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("nothing listens on %s after 5 s", address)
}

// relay stands between gateway and broker so that an outage is one call. Copying is the kernel's.
type relay struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	down     bool
	conns    map[net.Conn]bool
}

func startRelay(to string) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, to: to, conns: map[net.Conn]bool{}}
	go r.accept()
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		if !r.track(c) {
			c.Close()
			continue
		}
		go r.serve(c)
	}
}

func (r *relay) serve(c net.Conn) {
	defer r.untrack(c)
	b, err := net.Dial("tcp", r.to)
	if err != nil || !r.track(b) {
		return
	}
	defer r.untrack(b)
	go func() {
		_, _ = io.Copy(c, b)
		c.Close()
	}()
	_, _ = io.Copy(b, c)
}

func (r *relay) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.down {
		r.conns[c] = true
	}
	return !r.down
}

func (r *relay) untrack(c net.Conn) {
	c.Close()
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
}

// set cuts the line or mends it. While it is cut, new connections are closed at once.
func (r *relay) set(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
	if down {
		for c := range r.conns {
			c.Close()
		}
	}
}
