package faults

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inForce is what the reload scenarios read of /api/v1/snapshot.
type inForce struct {
	Epoch  string `json:"epoch"`
	Config struct {
		Hash    string `json:"hash"`
		Reloads int    `json:"reloads"`
		Refused int    `json:"refused"`
		Problem string `json:"problem"`
	} `json:"config"`
	Devices []struct {
		Name     string `json:"name"`
		Connects struct {
			Attempts   int `json:"attempts"`
			IdleCloses int `json:"idle_closes"`
		} `json:"connects"`
		Groups []struct {
			Polls    int `json:"polls"`
			Overruns int `json:"overruns"`
		} `json:"groups"`
	} `json:"devices"`
	Destinations []struct {
		Sent       int `json:"sent"`
		Reconnects int `json:"reconnects"`
	} `json:"destinations"`
	Process struct {
		RSSBytes   int `json:"rss_bytes"`
		OpenFiles  int `json:"open_files"`
		Goroutines int `json:"goroutines"`
	} `json:"process"`
}

func (b *bed) inForce() *inForce {
	b.t.Helper()
	_, body, err := b.gateway.Get("/api/v1/snapshot")
	must(b.t, err)
	var s inForce
	must(b.t, json.Unmarshal(body, &s))
	return &s
}

func (s *inForce) polls(device string) (polls, overruns int) {
	for _, d := range s.Devices {
		if d.Name == device {
			return d.Groups[0].Polls, d.Groups[0].Overruns
		}
	}
	return 0, 0
}

// enoughPolls is how many must have been due before their lateness is judged.
const enoughPolls = 20

// untouched says what a reload may not have done to a device and a destination that did not change: their counts begin
// afresh with a new poller and a new session, and the connections that they had before are in none. A slow machine polls late, and less often than it is answered, but connects no more often
// than it counts. late says that polls came late, of which the machine may be the cause.
func (b *bed) untouched(before *inForce, device string) (late, err error) {
	b.t.Helper()
	accepted, sessions := b.device(device).Accepted(), b.sessions()
	now := b.inForce()
	behind := func() bool { return now.connects(device) < accepted || now.Destinations[0].Reconnects+1 < sessions }
	for end := time.Now().Add(10 * time.Second); behind() && now.newer(before, device) && time.Now().Before(end); now = b.inForce() { // a connection is counted a moment after it is taken
		time.Sleep(100 * time.Millisecond)
	}
	var errs []error
	polls, overruns := now.polls(device)
	was, overran := before.polls(device)
	switch {
	case !now.newer(before, device):
		errs = append(errs, fmt.Errorf("%s was restarted: %d polls, before it %d", device, polls, was))
	case now.connects(device) < accepted:
		errs = append(errs, fmt.Errorf("%s was restarted: it took %d connections, and %d are counted", device, accepted, now.connects(device)))
	case polls-was < enoughPolls: // to say that more than one in twenty was late
	case (overruns-overran)*20 > polls-was+20*b.stalledTicks(): // a poll of this machine may come late; a reload must not be why
		late = fmt.Errorf("%s missed %d ticks of %d", device, overruns-overran, polls-was)
	}
	if d, was := now.Destinations[0], before.Destinations[0]; d.Sent < was.Sent || d.Reconnects != was.Reconnects || d.Reconnects+1 < sessions {
		errs = append(errs, fmt.Errorf("the destination was restarted: %d messages sent, before it %d; %d reconnects, before it %d; %d sessions",
			d.Sent, was.Sent, d.Reconnects, was.Reconnects, sessions))
	}
	return late, errors.Join(errs...)
}

// newer reports whether the counts of a device have not begun afresh.
func (s *inForce) newer(before *inForce, device string) bool {
	polls, _ := s.polls(device)
	was, _ := before.polls(device)
	return polls >= was
}

// connects returns how often a device was connected to, as the gateway counts that.
func (s *inForce) connects(device string) int {
	for i := range s.Devices {
		if d := &s.Devices[i]; d.Name == device {
			return d.Connects.Attempts + d.Connects.IdleCloses
		}
	}
	return 0
}

// sessions returns how many sessions the broker has granted the gateway.
func (b *bed) sessions() (n int) {
	for _, c := range b.tap.Connects() {
		if c.Answered && c.Code == 0 {
			n++
		}
	}
	return n
}

// stalledTicks returns how many ticks of 100 ms a device may have missed because the machine itself stood still.
func (b *bed) stalledTicks() (n int) {
	const interval = 100 * time.Millisecond
	stalls, _ := b.machine.stalled()
	for _, s := range stalls {
		if d := s.To.Sub(s.From); d > interval/2 {
			n += 1 + int(d/interval)
		}
	}
	return n
}

func (b *bed) device(name string) *Device {
	return b.devices[slices.IndexFunc(b.devices, func(d *Device) bool { return d.Name == name })]
}

// configOf returns the bed's config in the n-th variant: the second device changes, the third is there in every other
// one, and every third has a mistake in its last line.
func (b *bed) configOf(n int) (text string, valid bool) {
	s := b.setup
	if n%2 == 1 {
		s.Devices = append(append([]*Device(nil), s.Devices[:2]...), s.Devices[3:]...)
	}
	text = s.String()
	head, rest, _ := strings.Cut(text, "- name: "+s.Devices[1].Name+"\n")
	before, after, _ := strings.Cut(rest, "    timeout: ")
	_, after, _ = strings.Cut(after, "\n")
	text = fmt.Sprintf("%s- name: %s\n%s    timeout: %ds\n%s", head, s.Devices[1].Name, before, 3+n%4, after)
	if n%3 == 2 {
		return text + "nonsense: true\n", false
	}
	return text, true
}

// write puts a config in place of the old one, at once.
func (b *bed) write(text string) {
	b.t.Helper()
	must(b.t, os.WriteFile(b.gateway.Config+".new", []byte(text), 0o644))
	must(b.t, os.Rename(b.gateway.Config+".new", b.gateway.Config))
}

// reload puts the n-th variant into force, by the command or by SIGHUP, and waits for what comes of it.
func (b *bed) reload(n int) {
	b.t.Helper()
	text, valid := b.configOf(n)
	b.write(text)
	before := b.inForce().Config
	if n%5 == 0 {
		code, out := run(b.gateway.Binary, "reload", "--config", b.gateway.Config)
		if valid != (code == 0) || !valid && !strings.Contains(out, `unknown key "nonsense"`) {
			b.t.Fatalf("reload %d: exit %d: %s", n, code, out)
		}
	} else {
		b.gateway.Signal(syscall.SIGHUP)
	}
	b.until(time.Minute, fmt.Sprintf("the outcome of reload %d", n), func() bool {
		now := b.inForce().Config
		return now.Reloads+now.Refused > before.Reloads+before.Refused
	})
	now := b.inForce().Config
	switch {
	case valid && (now.Refused > before.Refused || now.Problem != ""):
		b.t.Fatalf("reload %d was refused: %s", n, now.Problem)
	case !valid && (now.Reloads > before.Reloads || now.Hash != before.Hash || !strings.Contains(now.Problem, `millrace.yaml:`)):
		b.t.Fatalf("reload %d of an invalid config: %+v, before it %+v", n, now, before)
	}
}

// faultReload, F27: again and again under load the config is reloaded, valid and not. Nothing is lost, nothing comes
// twice, what does not change is not touched, and nothing is left behind.
func faultReload(t *testing.T) {
	b := newBed(t, 12, Setup{Words: 4})
	for _, d := range b.devices[1:3] { // those that change: many a reload meets a poll in flight
		d.Slow(40 * time.Millisecond)
	}
	b.start()
	b.await(50, 20*time.Second)
	rounds := pick(30, 1000)
	most := rounds + 500
	for n := range 10 { // until everything has been used once
		b.reload(n)
	}
	first := b.inForce()
	begin, since, from, again := time.Now(), first, time.Now(), 0
	for n := 0; n < rounds; n++ {
		b.reload(n)
		time.Sleep(20 * time.Millisecond)
		if n%10 != 0 {
			continue
		}
		now := b.inForce()
		for _, device := range []string{b.devices[0].Name, b.devices[11].Name} {
			polls, _ := now.polls(device)
			if was, _ := since.polls(device); polls-was < enoughPolls {
				if n > most {
					t.Fatalf("after %d reloads: %s has %d polls, at first %d", n, device, polls, was)
				}
				rounds = max(rounds, n+11)
			}
			late, err := b.untouched(since, device)
			starved := b.machine.starved(from, time.Now())
			if err != nil || late != nil && starved < tooBusy {
				t.Fatalf("after %d reloads: %v", n, errors.Join(late, err))
			}
			if late != nil { // what follows is counted anew, ten reloads at least: what reloads do they do each time
				t.Logf("%v; processes waited for a processor %.0f %% of the time: looking once more", late, 100*starved)
				since, from = b.inForce(), time.Now()
				if again++; again < 5 {
					rounds = max(rounds, n+11)
				}
				break
			}
		}
	}
	last := b.inForce()
	_, missed := last.polls(b.devices[0].Name)
	p, q := first.Process, last.Process
	t.Logf("FIGURES %s: %d reloads in %.0f s; goroutines %d then %d, descriptors %d then %d, RSS %.1f then %.1f MiB; %d ticks of an unchanged device missed", t.Name(),
		rounds, time.Since(begin).Seconds(), p.Goroutines, q.Goroutines, p.OpenFiles, q.OpenFiles, float64(p.RSSBytes)/(1<<20), float64(q.RSSBytes)/(1<<20), missed)
	if q.Goroutines > p.Goroutines+8 || q.OpenFiles > p.OpenFiles+8 || float64(q.RSSBytes) > 1.5*float64(p.RSSBytes)+8e6 {
		t.Error("reloads leave something behind")
	}
	b.write(b.setup.String()) // all devices are there at the end
	if code, out := run(b.gateway.Binary, "reload", "--config", b.gateway.Config); code != 0 {
		t.Fatalf("the last reload: exit %d: %s", code, out)
	}
	_, out := run(b.gateway.Binary, "check", "--config", b.gateway.Config)
	b.until(time.Minute, "the page to show the config that check prints: "+out, func() bool {
		return strings.Contains(out, "config "+b.inForce().Config.Hash)
	})
	b.logs("nonsense")
	if r := b.judge(); r.Duplicates > 0 {
		t.Errorf("%d messages came twice, want none: no session was lost", r.Duplicates)
	}
}

// controlEverythingRestarts is a gateway whose reload restarts everything: the judge of F27 has to see it.
func controlEverythingRestarts(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3, Setup{Words: 2})
	b.start()
	b.await(50, 20*time.Second)
	before := b.inForce()
	must(t, errors.Join(b.untouched(before, b.devices[0].Name)))
	text, _ := b.configOf(1)
	b.write(text)
	b.stop()
	b.start()
	b.until(time.Minute, "the page", func() bool { _, err := b.gateway.Snapshot(); return err == nil })
	_, err := b.untouched(before, b.devices[0].Name)
	if err == nil || !strings.Contains(err.Error(), "the destination was restarted") || !strings.Contains(err.Error(), b.devices[0].Name+" was restarted") {
		t.Errorf("everything was restarted and F27 saw only: %v", err)
	}
}

// faultNewerStore, F27: an older binary finds a store that a newer one has written to. It refuses in words and touches
// nothing; the newer one goes on where it was.
func faultNewerStore(t *testing.T) {
	b := newBed(t, 3, Setup{Words: 4})
	b.start()
	b.await(20, 20*time.Second)
	epoch := b.inForce().Epoch
	b.net.Refuse()
	b.net.Cut()
	time.Sleep(pick(3*time.Second, 5*time.Minute)) // a backlog
	b.stop()
	state := filepath.Join(b.setup.Path, "state.db")
	older, err := os.ReadFile(state)
	must(t, err)
	must(t, os.WriteFile(state, raiseFormat(t, older, epoch), 0o640))
	before := contents(t, b.setup.Path)
	must(t, b.gateway.Start())
	code, err := b.gateway.Wait(20 * time.Second)
	must(t, err)
	if log := b.gateway.Log(); code != 3 || !strings.Contains(log, "store was written by a newer version") || !strings.Contains(log, b.setup.Path) {
		t.Errorf("an older binary on a newer store ended with %d and said: %s", code, log[max(0, len(log)-500):])
	}
	for name, sum := range contents(t, b.setup.Path) {
		if before[name] != sum {
			t.Errorf("an older binary changed %s of a newer store", name)
		}
	}
	must(t, os.WriteFile(state, older, 0o640))
	b.start()
	b.heal()
	b.judge()
}

// raiseFormat returns a state.db of the next format: its head is a length and a checksum, the format, the store's number,
// the numbers reserved, then the epoch (buffer/DESIGN.md).
func raiseFormat(t *testing.T, file []byte, epoch string) []byte {
	t.Helper()
	name, err := hex.DecodeString(epoch)
	must(t, err)
	out, raised := bytes.Clone(file), 0
	for at := 25; at+8 <= len(out); at++ {
		head := out[at-25 : at+8]
		if !bytes.HasPrefix(out[at:], name) || binary.BigEndian.Uint32(head) != uint32(len(head)) {
			continue
		}
		head[8]++
		binary.BigEndian.PutUint32(head[4:], crc32.Checksum(head[8:], crc32.MakeTable(crc32.Castagnoli)))
		raised++
	}
	if raised == 0 {
		t.Fatal("state.db has no head where DESIGN.md puts it")
	}
	return out
}

// contents returns a checksum of each file of the store.
func contents(t *testing.T, dir string) map[string]uint32 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.db"))
	must(t, err)
	sums := map[string]uint32{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		sums[filepath.Base(file)] = crc32.ChecksumIEEE(data)
	}
	return sums
}
