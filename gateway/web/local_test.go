package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/values"
)

// fake is a gateway with a store, values, and answers to what is asked of it.
type fake struct {
	snap    *Snapshot
	dir     string // of the store
	buf     *buffer.Buffer
	table   *values.Table
	refusal error // of reloads and writes
	wrote   [3]string
	told    sync.Map // what the watchdog was told
	acts    atomic.Uint64
}

func (f *fake) Snapshot() *Snapshot {
	f.snap.Judge()
	return f.snap
}
func (f *fake) Stalled() (string, []Stall) { return f.snap.Gateway, f.snap.Stalls }
func (f *fake) Acts() *atomic.Uint64       { return &f.acts }
func (f *fake) Ack(who string) (Seen, error) {
	f.wrote[0] = who
	return Seen{Losses: f.snap.Losses}, f.refusal
}
func (f *fake) ResetLearned(device, who string) ([]string, error) {
	f.wrote[0], f.wrote[1] = device, who
	return []string{"max_registers: 50"}, f.refusal
}
func (f *fake) Buffer() *buffer.Buffer { return f.buf }
func (f *fake) BeginReading(what string) (step, end func()) {
	tell := func(s string) func() { return func() { f.told.Store(what+s, true) } }
	f.told.Store(what, true)
	return tell(" step"), tell(" end")
}
func (f *fake) Values() *values.Table { return f.table }
func (f *fake) done() (*Written, error) {
	return &Written{f.wrote[0], f.wrote[1], f.wrote[2], 0.25}, f.refusal
}

func (f *fake) Reload(context.Context) (*Change, error) {
	if f.refusal != nil {
		return nil, f.refusal
	}
	return &Change{File: "/etc/millrace.yaml", Hash: "0123456789ab", Added: []string{"press-3"}, Kept: 2}, nil
}

// Trace shows three exchanges.
func (f *fake) Trace(_ context.Context, device string) (<-chan Exchange, error) {
	if device != "press-1" {
		return nil, errors.New("no such device")
	}
	c := make(chan Exchange, 3)
	for i := range 3 {
		c <- Exchange{At: int64(i), Request: []byte{1, 3}, Answer: []byte{1, 3, byte(i)}}
	}
	close(c)
	return c, nil
}

// Ask has one line.
func (f *fake) Ask(_ context.Context, driver, line string, request []byte) (*Asked, error) {
	if driver != "modbus" || line != "tcp://h:502" {
		return &Asked{}, nil
	}
	return &Asked{Line: true, Answer: append([]byte{7}, request...)}, nil
}

func (f *fake) Write(_ context.Context, device, tag, value string) (*Written, error) {
	f.wrote = [3]string{device, tag, value}
	return f.done()
}

func (f *fake) Call(_ context.Context, device, method string, arguments []string) (*Called, error) {
	f.wrote = [3]string{device, method, fmt.Sprintf("%q", arguments)}
	return &Called{Device: device, Method: method, Results: []Result{NewResult("took", "UInt64", "", telemetry.Uint(math.MaxUint64))}, Seconds: 0.25}, f.refusal
}

// newFake has n records of each of two devices in its store.
func newFake(t *testing.T, n int) *fake {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	b := openBuffer(t, dir)
	for _, device := range []string{"press-1", "press-2"} {
		s, err := b.Stream(device, []byte("schema of "+device))
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if _, err := b.Append(s, []byte(device), 1, int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &fake{snap: example(noon, "outage"), dir: dir, buf: b, table: values.New()}
}

func openBuffer(t *testing.T, dir string) *buffer.Buffer {
	t.Helper()
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}, CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// reopen closes the store, which puts all records on disk, and opens it again.
func (f *fake) reopen(t *testing.T) {
	t.Helper()
	if err := f.buf.Close(); err != nil {
		t.Fatal(err)
	}
	f.buf = openBuffer(t, f.dir)
}

// shortDir is a temporary directory whose path is short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve serves a gateway's socket until the test ends and returns the directory it is in.
func serve(t *testing.T, g Gateway) (dir string) {
	t.Helper()
	dir = shortDir(t)
	ctx, cancel := context.WithCancel(context.Background())
	l := &socket{path: filepath.Join(dir, socketName), bounds: Bounds{}, log: mute}
	if err := l.listen(ctx); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serveLocal(ctx, l, g, mute) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("socket: %v", err)
		}
	})
	return dir
}

func client(t *testing.T, dir string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// over asks through the socket as curl does.
func over(t *testing.T, dir, method, target string) (code int, body []byte) {
	t.Helper()
	open := func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(dir, socketName))
	}
	c := http.Client{Transport: &http.Transport{DialContext: open, DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a watch has no end
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// changes are the requests that change something: they are asked for at the socket only, and by POST only.
var changes = []string{"reload", "write", "call", "ask", "store/quarantine/retry", "store/quarantine/delete", "store/forget"}

func TestPageChangesNothing(t *testing.T) {
	f := newFake(t, 1)
	page := Handler(f, 0)
	status := func(method, path string) int {
		return request(page, method, "/api/v1/"+path).StatusCode
	}
	for _, path := range changes {
		if got := status("POST", path); got != http.StatusMethodNotAllowed {
			t.Errorf("POST %s at the page: %d", path, got)
		}
		if got := status("GET", path); got != http.StatusNotFound {
			t.Errorf("GET %s at the page: %d", path, got)
		}
	}
	for _, path := range []string{"store/records", "store/verify", "store/backup"} {
		if got := status("GET", path); got != http.StatusNotFound {
			t.Errorf("GET %s at the page: %d", path, got)
		}
	}
	for _, path := range []string{"snapshot", "values", "store", "store/quarantine", "schema/store.json"} {
		if got := status("GET", path); got != http.StatusOK {
			t.Errorf("GET %s at the page: %d", path, got)
		}
	}
	if f.wrote != [3]string{} {
		t.Errorf("written: %q", f.wrote)
	}
}

func TestSocketChangesByPostOnly(t *testing.T) {
	f := newFake(t, 1)
	dir := serve(t, f)
	for _, path := range changes {
		if code, _ := over(t, dir, "GET", "/api/v1/"+path); code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	for target, want := range map[string]int{"store/records?from=x": 400, "secrets": 404, "schema/..%2fweb.go": 404, "schema/none.json": 404} {
		if code, body := over(t, dir, "GET", "/api/v1/"+target); code != want {
			t.Errorf("GET %s: %d %s", target, code, body)
		}
	}
	if f.wrote != [3]string{} {
		t.Errorf("written: %q", f.wrote)
	}
}

// TestWriteAndReloadThroughTheSocket: what is asked for arrives as it is, and so do the gateway's words when it refuses.
func TestWriteAndReloadThroughTheSocket(t *testing.T) {
	f := newFake(t, 0)
	c := client(t, serve(t, f))
	ctx := t.Context()
	value := "21.5 &tag=other?"
	w, err := c.Write(ctx, "press 1/ä", "set=point", value)
	if want := (Written{"press 1/ä", "set=point", value, 0.25}); err != nil || *w != want {
		t.Errorf("write: %+v, %v", w, err)
	}
	called, err := c.Call(ctx, "press 1/ä", "start&now", []string{"21.5 &tag=other?", "", "21.5"})
	want := &Called{"press 1/ä", "start&now", []Result{{"took", "UInt64", json.Number("18446744073709551615"), ""}}, 0.25}
	if err != nil || !reflect.DeepEqual(called, want) || f.wrote != [3]string{"press 1/ä", "start&now", `["21.5 &tag=other?" "" "21.5"]`} {
		t.Errorf("call: %+v, %q, %v", called, f.wrote, err)
	}
	if called, err := c.Call(ctx, "press-1", "home", nil); err != nil || called.Method != "home" || f.wrote[2] != "[]" {
		t.Errorf("call without arguments: %+v, %q, %v", called, f.wrote, err)
	}
	change, err := c.Reload(ctx)
	if err != nil || change.String() != "devices added: press-3; connections untouched: 2" {
		t.Errorf("reload: %+v, %v", change, err)
	}
	f.refusal = errors.New("write \"press-1\": not in writes; name the tag there")
	if _, err := c.Write(ctx, "press-1", "speed", "1"); err == nil || err.Error() != f.refusal.Error() {
		t.Errorf("a refused write: %v", err)
	}
	if _, err := c.Call(ctx, "press-1", "start", nil); err == nil || err.Error() != f.refusal.Error() {
		t.Errorf("a refused call: %v", err)
	}
	f.refusal = errors.New("millrace.yaml:3:1: unknown key\nmillrace.yaml:9:1: " + strings.Repeat("another ", 1<<14))
	if _, err := c.Reload(ctx); err == nil || err.Error() != f.refusal.Error() {
		t.Errorf("a refused reload: %.200v", err)
	}
}

func TestRecordsThroughTheSocket(t *testing.T) {
	f := newFake(t, 100)
	c := client(t, serve(t, f))
	for want, q := range map[int]Query{200: {}, 100: {From: 51, To: 151}, 99: {Device: "press-2", FromTime: 1}, 20: {FromTime: 10, ToTime: 20}, 0: {Device: "none"}} {
		n, last := 0, uint64(0)
		err := c.Scan(t.Context(), q, func(r *StoredRecord) error {
			n++
			if r.Seq <= last || string(r.Payload) != r.Stream.Device || string(r.Stream.Schema) != "schema of "+r.Stream.Device {
				t.Errorf("record %+v of %+v after %d", r, r.Stream, last)
			}
			last = r.Seq
			return nil
		})
		if err != nil || n != want {
			t.Errorf("%+v: %d records, want %d; %v", q, n, want, err)
		}
	}
	enough := errors.New("enough")
	if err := c.Scan(t.Context(), Query{}, func(*StoredRecord) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the caller's own error: %v", err)
	}
}

func TestVerifyThroughTheSocket(t *testing.T) {
	f := newFake(t, 100)
	f.reopen(t)
	report, err := client(t, serve(t, f)).Verify(t.Context(), nil)
	if err != nil || report.Records != 200 || len(report.Problems) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestSocketBusy: more askers than there may be are told so, in words, and the next is answered when one has gone.
func TestSocketBusy(t *testing.T) {
	f := newFake(t, 1)
	c := &local{g: f, views: newViews(f, watches), log: mute, busy: make(chan struct{}, askers), ctx: t.Context()}
	for range askers {
		c.busy <- struct{}{}
	}
	r := request(c.handler(), "GET", "/api/v1/store")
	if text := body(t, r); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "try again") {
		t.Errorf("%s: %s", r.Status, text)
	}
	<-c.busy
	if r := request(c.handler(), "GET", "/api/v1/store"); r.StatusCode != http.StatusOK {
		t.Errorf("after one has gone: %s", r.Status)
	}
}

// TestSocketNotPossible: where no socket can be, the gateway runs without one and says so once.
func TestSocketNotPossible(t *testing.T) {
	for name, path := range map[string]string{"too long": strings.Repeat("long/", 25), "no directory": filepath.Join(t.TempDir(), "none")} {
		var text bytes.Buffer
		err := RunLocal(t.Context(), path, newFake(t, 0), nil, slog.New(slog.NewTextHandler(&text, nil)))
		if err != nil || strings.Count(text.String(), "no local endpoint") != 1 {
			t.Errorf("%s: %v, log %q", name, err, &text)
		}
	}
}

// TestRunLocalStops: the socket is its owner's alone, replaces a stale one, and goes with its gateway.
func TestRunLocalStops(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, socketName)
	if err := os.WriteFile(path, []byte("left by a crash"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- RunLocal(ctx, dir, newFake(t, 1), nil, mute) }()
	c, err := Dial(ctx, dir)
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); c, err = Dial(ctx, dir) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if st, err := c.Status(ctx); err != nil || !st.Running || st.Gateway != "press-shop" || st.Stats.NextSeq != 3 {
		t.Errorf("status %+v, %v", st, err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode: %v, %v", info, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNoGateway) {
		t.Errorf("dial after the end: %v", err)
	}
}

// TestSocketIsMadeAgain: whoever removes the store's directory takes the socket with it; commands find the gateway again.
func TestSocketIsMadeAgain(t *testing.T) {
	dir := serve(t, newFake(t, 1))
	before := client(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	time.Sleep(socketEvery + socketEvery/2) // no directory yet: it is tried again
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), dir)
	for end := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(end); c, err = Dial(t.Context(), dir) {
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Client{before, c} {
		if _, err := c.Status(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestWatchesLeaveSpace: as many watches as there may be, here and at the page, keep nobody else out, and one more is told why.
func TestWatchesLeaveSpace(t *testing.T) {
	f := newFake(t, 1)
	f.table, _ = plantTable()
	dir := serve(t, f)
	for range watches {
		resp, err := client(t, dir).ask(t.Context(), http.MethodGet, "values", url.Values{"watch": {"1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	c := client(t, dir)
	for range askers {
		if _, err := c.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Watch(t.Context(), "", "", false, func(*Value) error { return nil }); err == nil || !strings.Contains(err.Error(), "others watch") {
		t.Errorf("one watch more: %v", err)
	}
}

// TestReadersAreWatched: the watchdog is told of each reading of the store, of its steps and of its end.
func TestReadersAreWatched(t *testing.T) {
	f := newFake(t, 10)
	f.reopen(t)
	c := client(t, serve(t, f))
	if _, err := c.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Scan(t.Context(), Query{Device: "none"}, func(*StoredRecord) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"verify", "records"} {
		for _, s := range []string{"", " step", " end"} {
			for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // the end comes after the answer
				if _, told := f.told.Load(what + s); told {
					break
				} else if time.Now().After(end) {
					t.Fatalf("the watchdog was not told %q", what+s)
				}
			}
		}
	}
}

// TestSocketIsLost: a socket is to be made again where its file is gone, or is one at which nobody answers, as in a directory that was taken away and is back; not in
// one that is not the gateway's own, and not in the place of one that answers.
func TestSocketIsLost(t *testing.T) {
	dir, other, holds := shortDir(t), shortDir(t), true
	listen := func(dir string) *socket {
		l := &socket{path: filepath.Join(dir, socketName), bounds: Bounds{}, log: mute, holds: func() bool { return holds }}
		if err := l.listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		return l
	}
	l, b := listen(dir), listen(other)
	want := func(what string, lost bool) {
		t.Helper()
		holds = false
		if l.lost() {
			t.Errorf("%s, not the gateway's own: lost", what)
		}
		if holds = true; l.lost() != lost {
			t.Errorf("%s: lost %v", what, !lost)
		}
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	want("as it was", false)
	move(dir, dir+"x")
	want("no directory", true)
	move(other, dir)
	want("somebody answers", false)
	_ = b.l.Close()
	want("nobody answers", true)
	move(dir, other)
	move(dir+"x", dir)
	want("back", false)
	_ = l.l.Close()
}
