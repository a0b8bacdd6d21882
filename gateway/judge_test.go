package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/values"
	"millrace/gateway/web"
)

// shown is a gateway that has only a snapshot and a store to show, judged as the real one is.
type shown struct {
	web.Gateway // nil: nothing is asked but what follows
	judge       *judge
	snap        web.Snapshot
	buf         *buffer.Buffer
}

func (f *shown) Acts() *atomic.Uint64 { return new(atomic.Uint64) }

func (f *shown) Snapshot() *web.Snapshot {
	s := f.snap
	s.Devices = slices.Clone(s.Devices)
	s.Judge()
	f.judge.stamp(&s)
	return &s
}
func (f *shown) Buffer() *buffer.Buffer                                     { return f.buf }
func (f *shown) Values() *values.Table                                      { return values.New() }
func (f *shown) ResetLearned(string, string) ([]string, error)              { return nil, nil }
func (f *shown) Ack(string) (web.Seen, error)                               { return web.Seen{}, nil }
func (f *shown) Reload(context.Context) (*web.Change, error)                { return nil, errStopping }
func (f *shown) BeginReading(string) (step, end func())                     { return func() {}, func() {} }
func (f *shown) Trace(context.Context, string) (<-chan web.Exchange, error) { return nil, errStopping }

var judged = time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)

// stateRows builds each row of the table of states in web/README.md, by kind and state; reason is what must be told.
var stateRows = map[string]struct {
	build  func(*web.Snapshot)
	reason string
	ready  string
}{
	"device down": {func(s *web.Snapshot) { s.Devices[0].Reason = "no answer within 1s" }, "no answer within 1s", "attention"},
	"device down, every tag bad": {func(s *web.Snapshot) {
		s.Devices[0].Bad, s.Devices[0].BadTag, s.Devices[0].BadReason = 48, "t1", "exception 2: illegal data address"
	}, `it answers, and all its 48 tags are bad, first "t1": exception 2: illegal data address`, "attention"},
	"device partly bad": {func(s *web.Snapshot) {
		s.Devices[0].Bad, s.Devices[0].BadTag, s.Devices[0].BadReason = 1, "t7", "timeout"
	},
		`1 of 48 tags bad, first "t7": timeout`, "attention"},
	"device partly bad, by a rule": {func(s *web.Snapshot) { s.Devices[0].Rule = web.RuleFault{What: "r", Mend: "see it"} }, "partly bad since 2026-03-01T12:30:00Z: r; see it", "attention"},
	"device down, by a rule":       {func(s *web.Snapshot) { s.Devices[0].Tags, s.Devices[0].Rule = 0, web.RuleFault{What: "r", Mend: "m"} }, "down since 2026-03-01T12:30:00Z: r; m", "attention"},
	"device late":                  {late("poll"), `group "fast" misses polls of every 1s: one takes 1.8s; poll it less often, or fewer tags`, "attention"},
	"device late, by answers":      {func(s *web.Snapshot) { late("poll")(s); s.Devices[0].Groups[0].Planned = 120 * time.Millisecond }, `one takes 1.8s where the plan has 120ms: the device answers slowly, or only when it is asked again after its timeout; see what`, "attention"},
	"device late, by line":         {late("line"), `one waits 1.8s for others of its line, the longest 1.5s for group "g" of "d", which gives no answer; poll those`, "attention"},
	"device late, by machine":      {late("machine"), `one begins 1.8s late because the machine does not give the gateway its time`, "attention"},
	"device late, by store":        {late("store"), `the store takes 1.8s for the readings of one; see whether its disk is slow`, "attention"},
	"device late, at first": {func(s *web.Snapshot) {
		s.Devices[0].Beginning, s.Devices[0].LineAt = true, `a poll of group "g" of "d" for 5s`
	}, `its first poll is not over yet: its line is at a poll of group "g" of "d" for 5s; see what`, "attention"},
	"device late, not polled": {func(s *web.Snapshot) { s.Devices[0].Groups[0].LastAt = judged.Add(-time.Minute) }, `group "fast" was last polled at 2026-03-01T12:29:00Z; see what else`, "attention"},
	"device late, by one poll": {func(s *web.Snapshot) {
		s.Devices[0].Groups[0].LastAt, s.Devices[0].LineAt = judged.Add(-time.Minute), `a poll of group "g" of "d" for 55s`
	}, `at 2026-03-01T12:29:00Z: its line is at a poll of group "g" of "d" for 55s; see what`, "attention"},
	"device contested": {func(s *web.Snapshot) {
		s.Devices[0].Trouble = web.Trouble{State: web.StateContested, Since: judged, What: "two callers", Mend: "choose"}
	}, "contested since 2026-03-01T12:30:00Z: two callers; choose", "attention"},
	"device changed": {func(s *web.Snapshot) {
		s.Changes = []web.DeviceChange{{Device: "press-1", Since: judged, What: "namespace 2 is another one", Mend: "write nsu="}}
	}, "changed since 2026-03-01T12:30:00Z: namespace 2 is another one; write nsu=; `millrace ack` takes it as it is", "attention"},
	"device on spare path": {func(s *web.Snapshot) {
		s.Devices[0].Trouble = web.Trouble{State: web.StateOnSpare, Since: judged, What: "over b, because a failed", Mend: "see to it"}
	}, "on spare path since 2026-03-01T12:30:00Z: over b, because a failed; see to it", "attention"},
	"destination down": {func(s *web.Snapshot) {
		s.Destinations[0].State, s.Destinations[0].LastError = "connecting", "connection refused"
	}, "Z: connection refused", "failing"},
	"destination partly bad": {func(s *web.Snapshot) { s.Destinations[0].Breakers = []web.Breaker{{Device: "press-1", Topic: "a"}} }, `it refuses messages of press-1 on topic "a"`, "attention"},
	"destination stuck": {func(s *web.Snapshot) {
		s.Destinations[0].Stuck, s.Destinations[0].BacklogRecords = judged, 100
	}, "since 2026-03-01T12:30:00Z: it is connected, and the oldest of the 100 records that wait for it does not go out", "failing"},
	"destination late":   {func(s *web.Snapshot) { s.Destinations[0].Behind = judged }, "it takes fewer records than come, and what waits grows; see what slows", "attention"},
	"destination absent": {func(s *web.Snapshot) { s.Absent = []web.Absent{{Name: "old", Records: 1, Readings: 2}} }, "keeps 2 readings in the store", "attention"},
	"destination losing data": {func(s *web.Snapshot) {
		s.Losses = []web.Loss{{Destination: "cloud", Readings: 1234, Causes: "1,234 full", From: judged, To: judged, Losing: true}}
	}, "1,234 readings (1,234 full), the last noticed at 2026-03-01T12:30:00Z", "failing"},
	"destination lost data": {func(s *web.Snapshot) {
		s.Losses = []web.Loss{{Destination: "cloud", Readings: 1234, Causes: "1,234 full", From: judged, To: judged}}
	}, "since 2026-03-01T12:30:00Z: 1,234 readings (1,234 full), the last noticed at", "failing"},
	"store losing data": {func(s *web.Snapshot) { s.Buffer.Refusing = judged }, "since 2026-03-01T12:30:00Z: it is full, and new readings are refused", "failing"},
	"store lost data": {func(s *web.Snapshot) {
		s.Losses = []web.Loss{{Readings: 2, Causes: "2 damages to the store's files", From: judged, To: judged}}
	}, "readings that nobody can count, by 2 damages to the store's files", "failing"},
	"store changed": {func(s *web.Snapshot) { s.Buffer.Remade = judged }, "changed since 2026-03-01T12:30:00Z: its directory, or the lock in it, was taken away while in use", "attention"},
	"store failing": {func(s *web.Snapshot) { s.Buffer.Health = "degraded: no space left on device" }, "no space left on device", "failing"},
	"store hung": {func(s *web.Snapshot) {
		s.Stalls = []web.Stall{{Kind: "store", Name: "/data", What: "writing its files", Since: judged, Limit: 10 * time.Second}}
	}, "writing its files takes longer than 10s", "failing"},
	"store hung, read": {func(s *web.Snapshot) {
		s.Stalls = []web.Stall{{Kind: "store", Name: "/data", What: "a step of verify", Since: judged, Limit: 10 * time.Minute}}
	}, "a step of verify takes longer than 10m0s", "failing"},
	"config hung": {func(s *web.Snapshot) {
		s.Stalls = []web.Stall{{Kind: "config", Name: "/etc/millrace.yaml", What: "a reload", Since: judged, Limit: time.Minute}}
	}, "a reload takes longer than 1m0s", "failing"},
	"device hung": {func(s *web.Snapshot) {
		s.Stalls = []web.Stall{{Kind: "device", Name: "press-1", What: "a poll", Since: judged, Limit: time.Minute}}
	}, "a poll takes longer than 1m0s", "failing"},
	"destination hung": {func(s *web.Snapshot) {
		s.Stalls = []web.Stall{{Kind: "destination", Name: "cloud", What: "a step of its session", Since: judged, Limit: time.Minute}}
	}, "a step of its session takes longer than 1m0s", "failing"},
	"process hung": {func(s *web.Snapshot) {
		s.Stalls = []web.Stall{{Kind: "process", Name: "shop", What: "taking its state", Since: judged, Limit: 10 * time.Second}}
	}, "taking its state takes longer than 10s", "failing"},
	"certificate expired": {func(s *web.Snapshot) { s.Certificates = certificate(false, -time.Hour) },
		`"broker.plant", which destination "cloud" shows, ended on 2026-03-01: connections are refused`, "failing"},
	"certificate expired, an authority of ours": {func(s *web.Snapshot) {
		s.Certificates = certificate(true, -time.Hour)
		s.Certificates[0].Authority = "root"
	}, `the authority "root" in this file, on which the certificate of destination "cloud" rests, ended on 2026-03-01: connections are refused from then on; put its successor in its place or beside it`, "failing"},
	"certificate expired, an authority of the machine": {func(s *web.Snapshot) {
		s.Certificates = certificate(false, -time.Hour)
		s.Certificates[0].Authority = "root"
	}, `the authority "root" of this machine's own list, on which the certificate of destination "cloud" rests, ended on 2026-03-01: connections are refused from then on; update this machine's list`, "failing"},
	"certificate expires soon, two authorities of a file": {func(s *web.Snapshot) {
		s.Certificates = append(certificate(true, 20*24*time.Hour), certificate(true, 10*24*time.Hour)...)
		s.Certificates[0].Authority, s.Certificates[1].Authority = "root", "other"
	}, `the authority "other" in this file, on which the certificate of destination "cloud" rests, ends on 2026-03-11; put its successor`, "attention"},
	"certificate expires this week": {func(s *web.Snapshot) { s.Certificates = certificate(false, 7*24*time.Hour) },
		`"broker.plant", which destination "cloud" shows, ends on 2026-03-08; have a new one`, "attention"},
	"certificate expires this week, made yesterday": {func(s *web.Snapshot) {
		s.Certificates = certificate(false, 24*time.Hour)
		s.Certificates[0].NotBefore = judged.Add(-24 * time.Hour)
	}, `expires this week since 2026-02-28T12:30:00Z: "broker.plant"`, "attention"},
	"certificate expires soon": {func(s *web.Snapshot) { s.Certificates = certificate(true, 30*24*time.Hour) },
		`our own certificate for destination "cloud" ends on 2026-03-31; put a new one`, "attention"},
	"certificate expires soon, used twice": {func(s *web.Snapshot) {
		s.Certificates = append(certificate(true, 8*24*time.Hour), certificate(true, 8*24*time.Hour)...)
		s.Certificates = append(s.Certificates, certificate(true, 31*24*time.Hour)...)
	}, `our own certificate for destination "cloud" ends on 2026-03-09`, "attention"},
	"certificate renewed": {func(s *web.Snapshot) {
		s.Certificates = certificate(true, 3650*24*time.Hour)
		s.Certificates[0].Replaced = judged.Add(48 * time.Hour)
	}, "it replaces one that ends on 2026-03-03 and has the same key; trust it in the servers", "attention"},
	"login exposed": {func(s *web.Snapshot) {
		s.Exposures = []web.Exposure{{Device: "press-1", What: "its password goes unencrypted", Mend: "encrypt"}}
	}, "its password goes unencrypted; encrypt", "attention"},
	"config refused": {func(s *web.Snapshot) {
		s.Config.Problem, s.Config.Mistakes, s.Config.ProblemAt = "x:1:1: no", 1, judged
	}, "the last reload was refused; the one before runs on; `millrace check` shows", "attention"},
	"config refused, for a restart": {func(s *web.Snapshot) {
		s.Config.Problem, s.Config.ProblemAt = "reload config: a.b cannot change; restart it, or not", judged
	}, "the last reload was refused, and the config before runs on: a.b cannot change; restart it, or not", "attention"},
	"clock not set": {func(s *web.Snapshot) {
		s.Clock = web.Clock{State: web.StateUnset, Reason: "the kernel says that nothing sets it", Since: judged}
	}, "nothing sets it", "attention"},
	"clock jumped": {func(s *web.Snapshot) { s.Clock = web.Clock{State: web.StateJumped, Reason: "by 1h0m0s", Since: judged} }, "by 1h0m0s", "attention"},
}

// certificate is a certificate of the destination that ends so much later.
func certificate(own bool, left time.Duration) []web.Certificate {
	return []web.Certificate{{Kind: "destination", Owner: "cloud", Own: own, Name: map[bool]string{true: "/etc/own.pem", false: "broker.plant"}[own], NotAfter: judged.Add(left)}}
}

func wellSnapshot() web.Snapshot {
	d := func(name string) web.Device {
		return web.Device{Name: name, Connected: true, Tags: 48, Good: 48, Groups: []web.Group{{Name: "fast", Interval: time.Second, LastAt: judged}}}
	}
	return web.Snapshot{Now: judged, Devices: []web.Device{d("press-1"), d("press-2")}, Buffer: web.Buffer{Path: "/data", Health: web.HealthOK},
		Destinations: []web.Destination{{Name: "cloud", State: web.StateConnected}}, Config: web.Config{File: "/etc/millrace.yaml"}}
}

// TestStatesSaySame walks every row of the table of states: the page, /metrics, /readyz, the log and what commands print
// say it in the same words.
func TestStatesSaySame(t *testing.T) {
	readme, err := os.ReadFile("web/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "## States")
	table, _, _ = strings.Cut(table, "\n## ")
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\| `([a-z ]+)` \\|").FindAllStringSubmatch(table, -1) {
		listed[m[1]+" "+m[2]] = true
	}
	for name, row := range stateRows {
		key, _, _ := strings.Cut(name, ",")
		if !listed[key] {
			t.Errorf("web/README.md lacks %q in its table of states", key)
		}
		t.Run(name, func(t *testing.T) { sayOne(t, key, row.reason, row.ready, row.build) })
	}
	for key := range listed {
		if _, has := stateRows[key]; !has {
			t.Errorf("no row here builds %q", key)
		}
	}
}

func sayOne(t *testing.T, key, reason, ready string, build func(*web.Snapshot)) {
	log := &safeBuffer{}
	dir := t.TempDir()
	buf, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Close()
	f := &shown{judge: &judge{log: slog.New(slog.NewJSONHandler(log, nil)), states: map[string]*standing{}}, snap: wellSnapshot(), buf: buf}
	build(&f.snap)
	snap := f.Snapshot()
	if len(snap.States) != 1 {
		t.Fatalf("states %+v, want one", snap.States)
	}
	st := &snap.States[0]
	text := st.String()
	if st.Kind+" "+st.State != key || !strings.Contains(text, reason) || st.Since.IsZero() || st.Do == "" || st.Reason == "" {
		t.Errorf("%q; want %q, with %q, since and what to do", text, key, reason)
	}
	if d := &snap.Devices[0]; key == "device "+d.State != (st.Kind == "device" && st.State != web.StateHung) || d.Up == (key == "device down") {
		t.Errorf("the device is %q, up %v", d.State, d.Up)
	}
	page := web.Handler(f, 0)
	var shown struct {
		Summary web.Summary
		States  []struct{ Text string }
	}
	unpack(t, page, "/api/v1/snapshot", &shown)
	if !strings.HasPrefix(shown.Summary.Text, text) || len(shown.States) != 1 || shown.States[0].Text != text {
		t.Errorf("the page says %q and %q, want %q", shown.Summary.Text, shown.States, text)
	}
	var health web.Health
	unpack(t, page, "/readyz", &health)
	if !slices.Equal(health.Problems, []string{text}) || health.Status != ready {
		t.Errorf("/readyz says %+v, want %q and %q", health, ready, text)
	}
	metrics := httptest.NewRecorder()
	page.ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "http://localhost/metrics", nil))
	series := fmt.Sprintf(`millrace_state_since_seconds{kind=%q,name=%q,state=%q} `, st.Kind, st.Name, st.State)
	if n := strings.Count(metrics.Body.String(), "\nmillrace_state_since_seconds{"); n != 1 || !strings.Contains(metrics.Body.String(), series) {
		t.Errorf("/metrics lacks %s, or has others", series)
	}
	f.judge.tell(f.Snapshot())
	f.judge.tell(f.Snapshot())
	if quoted, _ := json.Marshal(text); strings.Count(log.String(), string(quoted)) != 1 {
		t.Errorf("the log says %q, want %q once", log.String(), text)
	}
	commandsSay(t, f, dir, text)
}

// commandsSay asks as `millrace health`, `values` and `buffer status` do; they print what they get a line each.
func commandsSay(t *testing.T, f *shown, dir, text string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- web.RunLocal(ctx, dir, f, nil, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-ended }()
	var c *web.Client
	for end := time.Now().Add(10 * time.Second); c == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c, _ = web.Dial(ctx, dir)
	}
	if c == nil {
		t.Fatal("nobody answers at the socket")
	}
	defer c.Close()
	snap, err := c.Snapshot(ctx)
	if err != nil || len(snap.States) != 1 || snap.States[0].String() != text {
		t.Errorf("a command gets %v, %v; want %q", snap.States, err, text)
	}
	store, err := c.Status(ctx)
	if err != nil || len(store.States) != 1 || store.States[0].String() != text {
		t.Errorf("buffer status gets %v, %v; want %q", store.States, err, text)
	}
}

func unpack(t *testing.T, h http.Handler, path string, v any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatal(err)
	}
}
