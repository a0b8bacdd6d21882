package gateway

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/web"
)

// fillStore appends until not even an empty record is taken.
func fillStore(t *testing.T, b *buffer.Buffer, s *buffer.Stream) {
	rng := rand.NewChaCha8([32]byte{})
	for payload := make([]byte, 4000); ; {
		_, _ = rng.Read(payload)
		_, err := b.Append(s, payload, 1, time.Now().UnixMicro())
		switch {
		case err == nil:
		case !errors.Is(err, buffer.ErrFull):
			t.Fatal(err)
		case len(payload) == 0:
			return
		default:
			payload = payload[:len(payload)/2]
		}
	}
}

// TestFullStoreIsSaid: while a full store refuses every reading /readyz, /healthz and the log say so; when the destination
// that filled it is renamed, what it has makes way, and the new one loses nothing.
func TestFullStoreIsSaid(t *testing.T) {
	p := plan{devices: []string{device("a")}, buffer: ", when_full: drop-newest"}
	b := newGatewayBed(t, p)
	b.polled(2, "a")
	b.broker.Stop()
	s, err := b.g.buf.Stream("other", []byte("other"))
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, b.g.buf, s)
	page := web.Handler(b.g, 0)
	losing := func(path, status string) bool {
		var h web.Health
		unpack(t, page, path, &h)
		full := func(p string) bool {
			return strings.HasPrefix(p, "store") && strings.Contains(p, ": losing data since ")
		}
		return h.Status == status && slices.ContainsFunc(h.Problems, full)
	}
	wait := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	wait("/readyz and /healthz do not say it", func() bool { return losing("/readyz", "failing") && losing("/healthz", "attention") })
	wait("the log does not say it", func() bool { return strings.Contains(b.log.String(), "losing data since") })
	before := b.g.Snapshot().Devices[0].Accounts[0]
	wait("the readings of the plant are not refused", func() bool {
		fillStore(t, b.g.buf, s)
		return b.g.Snapshot().Devices[0].Accounts[0].Dropped.Full > before.Dropped.Full
	})

	b.write(p)
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.file, []byte(strings.Replace(string(text), "name: cloud", "name: sky", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	change, err := b.g.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(change.String(), "is not sent under the new one") {
		t.Errorf("change %q", change)
	}
	if !strings.Contains(b.log.String(), `a destination is gone from the config`) || !strings.Contains(b.log.String(), "millrace buffer forget cloud") {
		t.Error("the log does not warn of the old name")
	}
	if _, err = b.g.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.log.String(), `a destination is gone from the config`); n != 1 {
		t.Errorf("of a destination that is gone the log warns %d times", n)
	}
	wait("it is still full", func() bool { return !losing("/readyz", "failing") })
	b.polled(5, "a")
	snap := b.g.Snapshot()
	if a := snap.Devices[0].Accounts[0]; a.Destination != "sky" || a.Buffered+a.InFlight == 0 || !snap.Buffer.Refusing.IsZero() {
		t.Errorf("the new name: %+v", snap.Devices[0].Accounts)
	}
	if len(snap.Absent) != 1 || snap.Absent[0].Name != "cloud" {
		t.Errorf("absent: %+v", snap.Absent)
	}
}

// TestWarnAbsent: of one for which the store keeps something, and of no other.
func TestWarnAbsent(t *testing.T) {
	dir, log := t.TempDir()+"/store", &safeBuffer{}
	for _, names := range [][]string{{"cloud", "old", "empty"}, {"cloud"}} {
		b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: names, CommitInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		warnAbsent(b, func(string) bool { return true }, slog.New(slog.NewTextHandler(log, nil)))
		if err := b.RemoveDestination("empty"); len(names) > 1 && err != nil {
			t.Fatal(err)
		}
		s, err := b.Stream("press", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Append(s, []byte("x"), 1, 1); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if said := log.String(); strings.Count(said, "level=WARN") != 1 || !strings.Contains(said, "destination=old records=1") || !strings.Contains(said, "millrace buffer forget old") {
		t.Errorf("%q", said)
	}
}
