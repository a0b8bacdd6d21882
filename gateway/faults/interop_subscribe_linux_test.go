package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// subscribedDevice is subscribed to what node-opcua counts by itself: Beat each 100 ms, or Tick each 400 ms. It is sampled more often: of two changes within
// one sample the server would tell the second only.
func subscribedDevice(addr, counter, options string) string {
	return fmt.Sprintf("  - name: beats\n    driver: opcua\n    url: opc.tcp://%s\n%s    timeout: 2s\n    groups:\n"+
		"      - name: all\n        interval: 20ms\n        tags:\n", addr, options) +
		fmt.Sprintf(tagLine+tagLine+tagLine, "beat", counter, "text", "String", "missing", "Missing")
}

// throughPath starts node-opcua, and a gateway that is subscribed to a counter of it over a path that can break. more waits for further changes.
func throughPath(t *testing.T, counter, options string) (b *bed, path *Proxy, more func(what string)) {
	t.Helper()
	need(t, mosquitto(), nodeOPCUA())
	path, err := NewProxy(startNodeOPCUA(t).addr)
	must(t, err)
	t.Cleanup(path.Close)
	b = newBed(t, 0, Setup{More: subscribedDevice(path.Addr(), counter, options)})
	b.start()
	more = func(what string) {
		t.Helper()
		_, before := b.beats()
		b.until(60*time.Second, "beats "+what, func() bool { _, n := b.beats(); return n > before+10 })
	}
	more("at first")
	return b, path, more
}

const unsecured = "    security_policy: none\n"

// startSecured starts node-opcua with every policy, and returns the options of a device that trusts it.
func startSecured(t *testing.T) (p *peer, security string) {
	t.Helper()
	theirs, ours := t.TempDir(), t.TempDir()
	p = startPeer(t, "nodeopcua", "node", "testdata/opcua/server.js", "PORT", "FIRST", theirs, "secured")
	certificate, err := os.ReadFile(filepath.Join(theirs, "pki", "own", "certs", "certificate.pem"))
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(ours, "trusted"), 0o700))
	must(t, os.WriteFile(filepath.Join(ours, "trusted", "node.pem"), certificate, 0o600))
	host, err := os.Hostname() // which the certificate is for
	must(t, err)
	return p, fmt.Sprintf("    pki: %q\n    server_name: %q\n    security_mode: sign-and-encrypt\n", ours, host)
}

// TestInteropSubscribed, F22: node-opcua is frozen, stopped in peace, and killed and started again. Each is noticed, values come again within 10 s, and
// every change is received, or missing in a gap message that names the cause. So it is unsecured, and signed and encrypted.
func TestInteropSubscribed(t *testing.T) {
	t.Parallel()
	need(t, mosquitto(), nodeOPCUA())
	t.Run("unsecured", func(t *testing.T) {
		t.Parallel()
		breakNodeOPCUA(t, startNodeOPCUA(t), unsecured)
	})
	t.Run("secured", func(t *testing.T) {
		t.Parallel()
		p, security := startSecured(t)
		breakNodeOPCUA(t, p, security)
	})
}

func breakNodeOPCUA(t *testing.T, p *peer, security string) {
	b := newBed(t, 0, Setup{More: subscribedDevice(p.addr, "Tick", security)})
	b.start()
	b.until(60*time.Second, "beats", func() bool { _, n := b.beats(); return n > 10 })
	m := b.messages("beats")
	if reason, _ := badOf(m, "missing"); reason == "" || len(b.valuesOf("text")) != 1 {
		t.Errorf("missing is bad for %q, text came %d times, want once", reason, len(b.valuesOf("text")))
	}

	for _, fault := range []struct {
		name        string
		begin, mend func()
	}{
		{"frozen", func() { p.proc.signal(syscall.SIGSTOP) }, func() { p.proc.signal(syscall.SIGCONT) }},
		{"stopped", func() { p.proc.signal(syscall.SIGTERM) }, func() { p.proc.kill(); p.start(0) }},
		{"killed", func() { p.proc.kill() }, func() { p.start(0) }},
	} {
		down := time.Now()
		fault.begin()
		b.until(60*time.Second, "a bad reading", func() bool { _, ok := badOf(since(b.messages("beats"), down), "beat"); return ok })
		noticed := time.Now()
		reason, _ := badOf(since(b.messages("beats"), down), "beat")
		time.Sleep(pick(10*time.Second, 40*time.Second))
		fault.mend()
		up := time.Now()
		b.until(60*time.Second, "beats again", func() bool { return goodIn(since(b.messages("beats"), up), "beat") })
		t.Logf("FIGURES %s: %s: noticed after %.1f s as %q, resumed %.1f s after its end", t.Name(), fault.name,
			noticed.Sub(down).Seconds(), reason, time.Since(up).Seconds())
		if *long && time.Since(up) > 10*time.Second { // short forms run on machines that have no time for it
			t.Errorf("%s: resumed %v after its end, the bar is 10 s", fault.name, time.Since(up))
		}
		_, before := b.beats()
		b.until(60*time.Second, "more beats", func() bool { _, n := b.beats(); return n > before+10 })
		b.until(60*time.Second, "the gap of the outage, whole", func() bool {
			return slices.ContainsFunc(b.gapsOf("beats"), func(g Gap) bool {
				return g.Cause == "outage" && g.Reason == reason && g.From < noticed.UnixMilli() && g.To > up.UnixMilli()
			})
		})
	}
	silent, n := b.beats()
	if silent != 0 {
		t.Errorf("%d of %d changes are missing in no gap message: %+v", silent, n, b.gapsOf("beats"))
	}
	t.Logf("FIGURES %s: %d changes, %d silent losses", t.Name(), n, silent)
}

func since(all []Message, at time.Time) []Message {
	for i := range all {
		if all[i].TS > at.UnixMilli() {
			return all[i:]
		}
	}
	return nil
}

func badOf(all []Message, tag string) (string, bool) {
	for i := range all {
		if reason, ok := all[i].Bad[tag].(string); ok {
			return reason, true
		}
	}
	return "", false
}

func goodIn(all []Message, tag string) bool {
	for i := range all {
		if _, ok := all[i].Values[tag]; ok {
			return true
		}
	}
	return false
}

// valuesOf returns all values of a tag, in order.
func (b *bed) valuesOf(tag string) (all []any) {
	for _, m := range b.messages("beats") {
		if v, ok := m.Values[tag]; ok {
			all = append(all, v)
		}
	}
	return all
}

// beats returns how many changes are missing where no gap message tells it, and how many were received. A number that begins anew is another
// process.
func (b *bed) beats() (silent, received int64) {
	gaps := b.gapsOf("beats")
	last, lastAt := int64(0), int64(0)
	take := func(v any, at int64) {
		n, err := v.(json.Number).Int64()
		must(b.t, err)
		told := slices.ContainsFunc(gaps, func(g Gap) bool { return g.From <= at && g.To >= lastAt })
		if received++; last > 0 && n != last+1 && !told {
			silent += max(n-last-1, 1)
		}
		last, lastAt = n, at
	}
	for _, m := range b.messages("beats") {
		for _, e := range m.Earlier {
			if e.Tag == "beat" && e.Bad == "" {
				take(e.Value, m.TS)
			}
		}
		if v, ok := m.Values["beat"]; ok {
			take(v, m.TS)
		}
	}
	return silent, received
}
