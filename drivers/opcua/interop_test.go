package opcua

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

const nodeFolder = "../../gateway/faults/testdata/opcua"

// nodeOPCUA starts npm's node-opcua, which shares no code with us, with every policy and mode. Without it the test skips. Where nothing more is asked
// for, it is one for all tests.
func nodeOPCUA(t *testing.T, more ...string) (endpoint string) {
	t.Helper()
	if len(more) == 0 {
		return common.start(t)
	}
	endpoint, _ = nodeOPCUAIn(t, t.TempDir(), more...)
	return endpoint
}

// nodeOPCUAIn starts it with its certificates in a directory. said passes on what it prints of writes, as long as somebody takes it.
func nodeOPCUAIn(t *testing.T, dir string, more ...string) (endpoint string, said <-chan string) {
	t.Helper()
	endpoint, said, end := startNode(t, dir, more)
	t.Cleanup(end)
	return endpoint, said
}

var starting sync.Mutex

// startNode starts it until somebody calls end.
func startNode(t *testing.T, dir string, more []string) (endpoint string, said <-chan string, end func()) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(nodeFolder, "node_modules")); err != nil {
		drivertest.Lacks(t, "node-opcua is not installed: npm ci --ignore-scripts --prefix gateway/faults/testdata/opcua")
	}
	starting.Lock() // it takes some seconds of a processor, which the clocks of other tests would miss
	defer starting.Unlock()
	for range 3 { // another process may take the port first
		if endpoint, said, end = tryNode(t, dir, more); endpoint != "" {
			return endpoint, said, end
		}
		end()
	}
	t.Fatal("node-opcua does not start")
	return "", nil, nil
}

// tryNode returns no endpoint when node-opcua has ended before it served.
func tryNode(t *testing.T, dir string, more []string) (endpoint string, said <-chan string, end func()) {
	t.Helper()
	port := drivertest.FreePort(t)
	// Basic128Rsa15 pads as node has forbidden since.
	cmd := exec.Command("node", append([]string{"--security-revert=CVE-2023-46809", filepath.Join(nodeFolder, "server.js"), fmt.Sprint(port), "0", dir, "secured"}, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("node cannot be run: %v", err)
	}
	end = func() { cmd.Process.Kill(); cmd.Wait() }
	lines, held := bufio.NewScanner(out), make(chan string, 1000)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "READY") {
			go func() {
				for lines.Scan() {
					if strings.HasPrefix(lines.Text(), "HOLDS ") && len(held) < cap(held) {
						held <- lines.Text()
					}
				}
				close(held)
			}()
			return fmt.Sprintf("opc.tcp://127.0.0.1:%d", port), held, end
		}
	}
	return "", nil, end
}

// nodeUser is one way to log in to node-opcua, and one that it refuses.
type nodeUser struct {
	name         string
	login, wrong map[string]string
	refusal      string
}

func nodeUsers(t *testing.T, known string) []nodeUser {
	t.Helper()
	other, _ := userFiles(t, nil)
	stranger := filepath.Join(other, "user.pem")
	return []nodeUser{
		{name: "anonymous"},
		{"password", map[string]string{"username": "operator", "password": "päss"}, map[string]string{"username": "operator", "password": "wrong"},
			"activate session: BadUserAccessDenied"},
		{"certificate", map[string]string{"user_certificate": filepath.Join(known, "user.der"), "user_key": filepath.Join(known, "user.key")},
			map[string]string{"user_certificate": stranger}, "the server must know and trust the user's certificate first: " + stranger},
	}
}

// TestNodeOPCUA reads from node-opcua over each policy and mode, the withdrawn ones too, as each of the three kinds of users, while the token is renewed. A wrong
// password, and the certificate of a stranger, are refused over each.
func TestNodeOPCUA(t *testing.T) {
	t.Parallel()
	known, der := userFiles(t, nil)
	directory := t.TempDir()
	write(t, filepath.Join(directory, "user.der"), der)
	url, _ := nodeOPCUAIn(t, directory)
	c := nodeDevice(t, url)
	c.Devices[0].Groups = connection(url, 0, "ns=1;s=Interop.Double", "ns=1;s=Interop.String", "ns=1;s=Interop.Broken", "ns=1;s=Interop.Missing", "i=2253", "i=85").Devices[0].Groups
	trusted := c.Devices[0].Options
	if d := connect(t, c); d.link.channel.Security().Policy.URI != ua.SecurityPolicyURIAes256Sha256RsaPss || d.link.channel.Security().Mode != wire.ModeSignAndEncrypt {
		t.Errorf("by default %s", d.link.channel.Security().Policy.Name)
	}
	users := nodeUsers(t, known)
	for _, policy := range wire.Policies() {
		for _, mode := range []string{"", "sign", "sign-and-encrypt"} {
			if (policy.Name == "none") != (mode == "") {
				continue
			}
			for _, user := range users {
				t.Run(policy.Name+" "+mode+" "+user.name, func(t *testing.T) {
					t.Parallel()
					c := c
					c.Devices = slices.Clone(c.Devices)
					as := func(login map[string]string) {
						options := map[string]string{"security_policy": policy.Name, "security_mode": mode, "allow_insecure": fmt.Sprint(policy.Insecure)}
						maps.Copy(options, trusted)
						maps.Copy(options, login)
						c.Devices[0].Options = options
					}
					if user.refusal != "" {
						as(user.wrong)
						refused(t, c, user.refusal)
					}
					as(user.login)
					withTokens(t, time.Second, func(life time.Duration) error { return readsNode(t, c, life) })
				})
			}
		}
	}
}

// openFor connects with tokens that live for so long. They are renewed after three quarters of that.
func openFor(t *testing.T, c drivers.Connection, life time.Duration) (*driver, error) {
	t.Helper()
	made, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	d := made.(*driver)
	d.set.lifetime, d.set.queue = life, 100 // a machine that stands still for a second loses nothing
	return d, d.Connect(t.Context())
}

// withTokens shows something with short tokens. When node-opcua stands still for half of a token's life, it has lost the token before it sees that it is
// to be renewed: tokens that live twice as long show the same.
func withTokens(t *testing.T, life time.Duration, show func(life time.Duration) error) {
	t.Helper()
	for ; ; life *= 2 {
		err := show(life)
		if err == nil {
			return
		}
		if !forgot(err) || life > 10*time.Second {
			t.Fatalf("tokens of %v: %v", life, err)
		}
		t.Logf("tokens of %v: %v", life, err)
	}
}

// forgot reports whether an error is what node-opcua makes of a token that has expired: it takes no request under it, answers without a signature, or,
// encrypted, not at all.
func forgot(err error) bool {
	return strings.Contains(err.Error(), "BadSecureChannelTokenUnknown") || strings.Contains(err.Error(), "came after the channel's token had expired") || errors.As(err, new(timeoutError))
}

// readsNode polls until the token was renewed.
func readsNode(t *testing.T, c drivers.Connection, life time.Duration) error {
	t.Helper()
	d, err := openFor(t, c, life)
	defer d.Close()
	if err != nil {
		return err
	}
	var last []telemetry.Reading
	first, _ := d.link.channel.Times()
	for begin, polls := time.Now(), 0; polls < 5 || time.Since(begin) < life+200*time.Millisecond; polls++ { // one node is explained in a poll
		time.Sleep(20 * time.Millisecond)
		r, err := d.Read(t.Context(), drivers.Ref{}, nil)
		if err != nil {
			return err
		}
		if r[0].Value != telemetry.Float64(2.718281828459045) || r[1].Value.Text != "Größe 5 µm" {
			t.Fatalf("read %+v %+v", r[0], r[1])
		}
		if !strings.HasPrefix(r[2].Reason, "BadCommunicationError") || !strings.HasPrefix(r[3].Reason, "BadNodeIdUnknown") {
			t.Fatalf("bad nodes read %+v %+v", r[2], r[3])
		}
		last = r
	}
	for tag, want := range map[int]string{4: "; the node is no variable; read those below it: i=2254, i=2255, ", 5: "; the node is no variable, and has none below it"} {
		if !strings.HasPrefix(last[tag].Reason, "BadAttributeIdInvalid: ") || !strings.Contains(last[tag].Reason, want) {
			t.Errorf("a node without a value reads %q", last[tag].Reason)
		}
	}
	if now, _ := d.link.channel.Times(); !now.After(first) {
		t.Error("the token was never renewed")
	}
	return nil
}

// watchMachine returns what tells for how long the machine has held up a process that only sleeps.
func watchMachine(t *testing.T) func() time.Duration {
	var longest atomic.Int64
	done := make(chan struct{})
	go func() {
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				longest.Store(max(longest.Load(), int64(time.Since(last))))
			}
		}
	}()
	t.Cleanup(func() { close(done) })
	return func() time.Duration { return time.Duration(longest.Load()) }
}

// judgeMissing tells of missing changes: of two within one sample, as a machine makes that stood still, the server tells the last.
func judgeMissing(t *testing.T, before []uint64, longest time.Duration) {
	t.Helper()
	switch {
	case len(before) > 0 && longest > 25*time.Millisecond:
		t.Logf("before %v a change is missing; the machine stood still for up to %v", before, longest)
	case len(before) > 0:
		t.Errorf("before %v a change is missing", before)
	}
}

// TestNodeOPCUASubscribed subscribes two groups of node-opcua, signed and encrypted, while the token is renewed again and again: no change is missing. A folder
// and a node that is not there say what is wrong.
func TestNodeOPCUASubscribed(t *testing.T) {
	t.Parallel()
	url, _ := nodeOPCUAIn(t, t.TempDir()) // of its own: no change may be missing
	dir := t.TempDir()
	ownIn(t, dir)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	c := connection(url, 10*time.Second, "ns=1;s=Interop.Tick")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	slow := connection(url, 0, "ns=1;s=Interop.Missing", "i=2253", "ns=1;s=Interop.String", "ns=1;s=Interop.Broken", "ns=1;s=Interop.Int32Array").Devices[0].Groups[0]
	c.Devices[0].Groups = append(c.Devices[0].Groups, slow)
	c.Devices[0].Options = map[string]string{"pki": dir, "server_name": host}
	refused(t, c, "is not trusted; compare the thumbprint")
	trust(t, dir)
	var reasons map[uint32]telemetry.Reading
	withTokens(t, time.Second, func(life time.Duration) (err error) { reasons, err = countsNode(t, c, life); return err })
	for tag, want := range []string{"BadNodeIdUnknown: ", "BadAttributeIdInvalid: ", "", "BadCommunicationError: ", ""} {
		if r, ok := reasons[uint32(tag)]; !ok || !strings.HasPrefix(r.Reason, want) || (want == "") != (r.Quality == telemetry.Good) {
			t.Errorf("tag %d: %+v", tag, r)
		}
	}
	if r := reasons[1]; !strings.Contains(r.Reason, "; the node is no variable; read those below it: i=2254, ") {
		t.Errorf("a folder reads %q", r.Reason)
	}
}

// countsNode takes what two groups are pushed, until the token was renewed again and again. The first has one tag that counts, and no number may be missing where the machine did not stand still. It
// returns the last readings of the other.
func countsNode(t *testing.T, c drivers.Connection, life time.Duration) (map[uint32]telemetry.Reading, error) {
	t.Helper()
	stalled, missing := watchMachine(t), []uint64(nil)
	d, err := openFor(t, c, life)
	defer d.Close()
	if err != nil {
		return nil, err
	}
	for g := range 2 {
		if ok, err := d.Subscribe(t.Context(), drivers.Ref{Group: g}); !ok || err != nil {
			return nil, fmt.Errorf("subscribe: %t, %w", ok, err)
		}
	}
	count, last, reasons, renewals := 0, uint64(0), map[uint32]telemetry.Reading{}, map[time.Time]bool{}
	for late := time.After(time.Minute + 10*life); count < 10 || len(renewals) < 4; {
		select {
		case p := <-d.Pushed():
			if p.Err != nil {
				return nil, p.Err
			}
			if p.Lost > 0 {
				t.Errorf("%d lost: %s", p.Lost, p.Note)
			}
			for _, r := range p.Readings {
				if p.Group.Group == 1 {
					reasons[r.Tag] = r
					continue
				}
				if count > 0 && r.Value.Bits != last+1 {
					missing = append(missing, r.Value.Bits)
				}
				last = r.Value.Bits
				count++
			}
			at, _ := d.link.channel.Times()
			renewals[at] = true
		case <-late:
			t.Fatalf("only %d changes, %d tokens of %v", count, len(renewals), life)
		}
	}
	judgeMissing(t, missing, stalled())
	return reasons, nil
}
