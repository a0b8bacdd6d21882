package web

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)

// mute is a log for what no test reads.
var mute = slog.New(slog.DiscardHandler)

// get asks the handler as a browser on the same machine does.
func get(t *testing.T, s *Snapshot, method, target string) *http.Response {
	t.Helper()
	return request(Handler(showing(func() *Snapshot { return s }), 0), method, target)
}

// request asks a handler.
func request(h http.Handler, method, target string) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "http://localhost"+target, nil))
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOnlyGetAndHead(t *testing.T) {
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405} {
		for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/api/v1/snapshot"} {
			if got := get(t, example(noon, ""), method, path).StatusCode; got != want {
				t.Errorf("%s %s: status %d, want %d", method, path, got, want)
			}
		}
	}
	if got := get(t, example(noon, ""), "GET", "/etc/passwd").StatusCode; got != 404 {
		t.Errorf("unknown path: status %d, want 404", got)
	}
}

func TestEveryAnswerForbidsSniffingAndFraming(t *testing.T) {
	for _, path := range []string{"/", "/healthz", "/metrics", "/nothing"} {
		h := get(t, example(noon, ""), "GET", path).Header
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
			!strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: headers %v", path, h)
		}
	}
}

// TestHost holds the guard against DNS rebinding: on a loopback address only loopback names are answered.
func TestHost(t *testing.T) {
	cases := []struct {
		local, host string
		want        int
	}{
		{"127.0.0.1:80", "localhost", 200}, {"127.0.0.1:80", "localhost:8080", 200}, {"127.0.0.1:80", "127.0.0.1:8080", 200},
		{"[::1]:80", "[::1]:8080", 200}, {"[::1]:80", "[::1]", 200}, {"127.0.0.1:80", "127.8.8.8", 200},
		{"127.0.0.1:80", "evil.example", 421}, {"127.0.0.1:80", "evil.example:80", 421}, {"127.0.0.1:80", "localhost.evil.example", 421},
		{"127.0.0.1:80", "10.0.0.7", 421}, {"127.0.0.1:80", "", 421}, {"[::ffff:127.0.0.1]:80", "evil.example", 421},
		{"10.0.0.7:80", "edge-7.plant.example", 200}, {"10.0.0.7:80", "10.0.0.7", 200},
	}
	handler := Handler(showing(func() *Snapshot { return example(noon, "") }), 0)
	for _, c := range cases {
		addr, err := net.ResolveTCPAddr("tcp", c.local)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "http://localhost/healthz", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(addr)))
		r.Host = c.host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("host %q on %s: status %d, want %d", c.host, c.local, w.Code, c.want)
		}
	}
}

func TestHealth(t *testing.T) {
	full := example(noon, "outage")
	full.Buffer.Health = "no space left on device"
	silent := example(noon, "")
	for i := range silent.Devices {
		silent.Devices[i].Connected, silent.Devices[i].Reason = false, "connection refused"
	}
	cases := []struct {
		name         string
		s            *Snapshot
		alive, ready int
		problem      string
	}{
		{"well", example(noon, ""), 200, 200, ""},
		{"uplink down", example(noon, "outage"), 200, 503, `destination "cloud": down since 2026-03-01T12:26:48Z: dial tcp`},
		{"no device", silent, 200, 503, `device "meter-1": down since 2026-03-01T11:55:00Z: connection refused`},
		{"buffer", full, 503, 503, `store "/var/lib/millrace": failing: no space left on device`},
	}
	for _, c := range cases {
		alive, ready := get(t, c.s, "GET", "/healthz"), get(t, c.s, "GET", "/readyz")
		if alive.StatusCode != c.alive || ready.StatusCode != c.ready {
			t.Errorf("%s: healthz %d, readyz %d, want %d, %d", c.name, alive.StatusCode, ready.StatusCode, c.alive, c.ready)
		}
		var h Health
		if err := json.Unmarshal([]byte(body(t, ready)), &h); err != nil {
			t.Fatal(err)
		}
		if joined := strings.Join(h.Problems, "\n"); !strings.Contains(joined, c.problem) || (c.problem == "") != (joined == "") {
			t.Errorf("%s: problems %q, want %q among them", c.name, h.Problems, c.problem)
		}
	}
}

func TestSummary(t *testing.T) {
	drain := example(noon, "")
	drain.Destinations[0].BacklogReadings, drain.Destinations[0].OldestAge = 1234, time.Minute
	outage := example(noon, "outage")
	outage.Devices[2].Reason = ""
	broken := example(noon, "outage")
	broken.Buffer.Health = "disk full"
	two := example(noon, "")
	two.Devices[0].Connected, two.Devices[3].Reason = false, "timeout"
	refused := example(noon, "")
	refused.Config.Problem, refused.Config.Mistakes = "millrace.yaml:1:1: nonsense", 1
	held := example(noon, "")
	held.Destinations[0].Held = 1234
	held.Destinations[0].Breakers = []Breaker{{Device: "press-1", Topic: "a"}, {Device: "press-1", Topic: "b"}, {Device: "cnc-1", Topic: "c"}}
	cases := []struct {
		s           *Snapshot
		level, text string
	}{
		{held, LevelWarn, `destination "cloud": partly bad: it refuses messages of press-1, cnc-1: 1,234 records held back, the rest flows; the page has its reasons; see its policy for these topics.`},
		{refused, LevelWarn, `config "": refused: the last reload was refused; the one before runs on; ` + "`millrace check` shows every mistake."},
		{example(noon, ""), LevelOK, "All 4 devices live; everything delivered."},
		{drain, LevelOK, "All 4 devices live; 1,234 kept readings still to deliver."},
		{outage, LevelWarn, `destination "cloud": down since 2026-03-01T12:26:48Z: dial tcp 203.0.113.9:8883: connect: connection refused; its readings are kept, and it is tried again. Enough space for 41 h.`},
		{two, LevelWarn, `device "meter-1": down since 2026-03-01T11:55:00Z: not connected; it is tried again; see its power, its line and its url. And 1 more.`},
		{broken, LevelBad, `store "/var/lib/millrace": failing: disk full; see to its directory and its disk; the store goes on by itself then. And 2 more.`},
	}
	for _, c := range cases {
		c.s.Judge()
		if got := c.s.Summarise(); got.Level != c.level || got.Text != c.text {
			t.Errorf("got %q %q,\nwant %q %q", got.Level, got.Text, c.level, c.text)
		}
	}
}

// TestRetryAdvice: power and line are named where nothing answers, and not where the reason says what to do, or a server refuses.
func TestRetryAdvice(t *testing.T) {
	for reason, line := range map[string]bool{
		"":                    true,
		"no answer within 1s": true,
		"connect to 127.0.0.1:4851: connect: connection refused":                                              true,
		"the certificate of 10.0.0.5 is not trusted; compare the thumbprint":                                  false,
		"create session: BadTooManySessions: the server has reached its maximum number of sessions; stop one": false,
		"activate session: BadUserAccessDenied: user does not have permission":                                false,
		"connect: no answer within 2s; see whether the firewall drops":                                        false,
		"open: BadSecurityChecksFailed: an error occurred verifying security":                                 false,
		"BadHistoryOperationInvalid: the history operation is not valid":                                      false,
	} {
		d := Device{Name: "a", Reason: reason}
		st := d.judge(time.Now())
		if got := strings.Contains(st.Do, "its power"); got != line || !strings.HasPrefix(st.Do, "it is tried again") || st.State != StateDown {
			t.Errorf("%q: %q", reason, st.String())
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 0: "0.0 s", 400 * time.Millisecond: "0.4 s", 59 * time.Second: "59 s",
		192 * time.Second: "3 m 12 s", 100 * time.Minute: "1 h 40 m", 41 * time.Hour: "41 h", 100 * time.Hour: "4 d"} {
		if got := Span(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestImbalance(t *testing.T) {
	d := Device{Polled: 100, Suppressed: 10}
	a := Account{Before: 5, Delivered: 50, Buffered: 20, InFlight: 10, Dropped: Drops{Full: 1, Expired: 1, Rejected: 1, Shutdown: 1, Damaged: 1}}
	if got := d.Imbalance(&a); got != 0 {
		t.Errorf("a ledger that adds up: imbalance %d", got)
	}
	a.Delivered = 53
	if got := d.Imbalance(&a); got != -3 {
		t.Errorf("three too many: imbalance %d, want -3", got)
	}
}

// TestSnapshot holds the JSON that scripts and the page rely on.
func TestSnapshot(t *testing.T) {
	var got struct {
		Gateway string
		Summary Summary
		Devices []struct {
			Name   string
			Groups []struct {
				Interval float64 `json:"interval_seconds"`
				Tags     int
			}
			Accounts []struct{ Dropped map[string]uint64 }
		}
		Destinations []struct {
			Age float64 `json:"oldest_age_seconds"`
		}
		Buffer struct {
			OutageHours float64 `json:"outage_hours"`
		}
	}
	r := get(t, example(noon, "outage"), "GET", "/api/v1/snapshot")
	if err := json.Unmarshal([]byte(body(t, r)), &got); err != nil {
		t.Fatal(err)
	}
	if got.Gateway != "press-shop" || got.Summary.Level != LevelWarn || len(got.Devices) != 4 || got.Devices[1].Groups[0].Interval != 1 ||
		got.Devices[1].Groups[0].Tags != 21 || got.Devices[2].Accounts[0].Dropped["rejected"] != 12 || got.Destinations[0].Age != 193 || got.Buffer.OutageHours != 41.3 {
		t.Errorf("got %+v", got)
	}
}

// TestPageIsWhole holds that the page asks for nothing from elsewhere and that its policy fits its content.
func TestPageIsWhole(t *testing.T) {
	r := get(t, example(noon, ""), "GET", "/")
	page := body(t, r)
	if strings.Contains(page, "/*STYLE*/") || strings.Contains(page, "/*SCRIPT*/") || strings.Count(page, "</script>") != 1 {
		t.Error("the page is not assembled")
	}
	for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", `src="http`, `href="http`, "@import", "style=\""} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	policy := r.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, digest(pageJS)) || !strings.Contains(policy, digest(pageCSS)) || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
}

// TestRunStops holds that Run ends with its context, answers until then, and does not wait for idle peers.
func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Listen(ctx, "127.0.0.1:0", Bounds{}, mute)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- Run(ctx, l, Handler(showing(func() *Snapshot { return example(noon, "") }), 0), mute) }()
	idle, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	r, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not stop")
	}
	if _, err := Listen(context.Background(), "256.0.0.1:x", Bounds{}, mute); err == nil || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("listen on nonsense: %v", err)
	}
}

// TestRunReportsItsListener holds that a listener that breaks is not taken for a stop.
func TestRunReportsItsListener(t *testing.T) {
	l, err := Listen(context.Background(), "127.0.0.1:0", Bounds{}, mute)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Run(context.Background(), l, http.NotFoundHandler(), mute); err == nil {
		t.Error("no error from a closed listener")
	}
}

// TestSnapshotIsShared holds that many watchers cost the gateway one snapshot.
func TestSnapshotIsShared(t *testing.T) {
	taken := 0
	handler := Handler(showing(func() *Snapshot { taken++; return example(noon, "") }), 0)
	began := time.Now()
	for range 50 {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://localhost/healthz", nil))
	}
	if most := 1 + int(time.Since(began)/freshness); taken > most {
		t.Errorf("%d snapshots in %v, want at most %d", taken, time.Since(began), most)
	}
}

func BenchmarkMetrics1000Devices(b *testing.B) {
	s := example(noon, "")
	grow(s, 1000)
	handler := Handler(showing(func() *Snapshot { return s }), 0)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/metrics", nil))
		b.SetBytes(int64(w.Body.Len()))
	}
}
