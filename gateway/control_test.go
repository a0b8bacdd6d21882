package gateway

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
)

// endpoint serves the local endpoint of a store with n records until the test ends.
func endpoint(t *testing.T, n int) (*control, *httptest.Server) {
	t.Helper()
	b, err := buffer.Open(filepath.Join(t.TempDir(), "store"), buffer.Options{Destinations: []string{"cloud"}, CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
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
	c := &control{g: &Gateway{set: set{cfg: &config.Config{Gateway: "shop"}}, buf: b, log: slog.New(slog.DiscardHandler)}, busy: make(chan struct{}, askers), ctx: t.Context()}
	server := httptest.NewServer(c.handler())
	t.Cleanup(server.Close)
	return c, server
}

func TestControlRecords(t *testing.T) {
	_, server := endpoint(t, 100)
	for query, want := range map[string]int{"": 200, "from=51&to=151": 100, "device=press-2": 100, "from_time=10&to_time=20": 20, "to=1": 0} {
		resp, err := http.Get(server.URL + "/v1/records?" + query)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		_, err = readLines(resp.Body, recordsOf(func(r *StoredRecord) error {
			n++
			if string(r.Payload) != r.Stream.Device || string(r.Stream.Schema) != "schema of "+r.Stream.Device {
				t.Errorf("record %+v of %+v", r, r.Stream)
			}
			return nil
		}))
		_ = resp.Body.Close()
		if err != nil || n != want {
			t.Errorf("%q: %d records, want %d; %v", query, n, want, err)
		}
	}
	for query, want := range map[string]int{"/v1/records?from=x": 400, "/v1/forget?destination=cloud": 405, "/v1/secrets": 404} {
		resp, err := http.Get(server.URL + query)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %s, want %d", query, resp.Status, want)
		}
	}
}

// TestControlBusy: more askers than there may be are told so, in words.
func TestControlBusy(t *testing.T) {
	c, server := endpoint(t, 1)
	for range askers {
		c.busy <- struct{}{}
	}
	resp, err := http.Get(server.URL + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "try again") {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

// TestControlNotPossible: where no socket can be, the gateway runs without one and says so once.
func TestControlNotPossible(t *testing.T) {
	for name, path := range map[string]string{"too long": strings.Repeat("long/", 25), "no directory": filepath.Join(t.TempDir(), "none")} {
		var log bytes.Buffer
		g := &Gateway{set: set{cfg: &config.Config{Buffer: config.Buffer{Path: path}}}, log: slog.New(slog.NewTextHandler(&log, nil))}
		if err := g.serveControl(t.Context()); err != nil || !strings.Contains(log.String(), "no local endpoint") {
			t.Errorf("%s: %v, log %q", name, err, &log)
		}
	}
}

// TestControlStops: the endpoint ends with its context, waits for open requests and takes its socket away.
func TestControlStops(t *testing.T) {
	c, _ := endpoint(t, 1)
	c.g.set.cfg.Buffer.Path = t.TempDir()
	path := filepath.Join(c.g.set.cfg.Buffer.Path, socketName)
	if len(path) >= socketPath {
		t.Skip("the temporary directory's path is too long for a socket")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.g.serveControl(ctx) }()
	var asked *client
	for end := time.Now().Add(10 * time.Second); asked == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		asked = dialControl(ctx, c.g.set.cfg.Buffer.Path)
	}
	if asked == nil {
		t.Fatal("nobody answers")
	}
	if st, err := asked.Status(ctx); err != nil || st.Gateway != "shop" || st.Stats.NextSeq != 3 {
		t.Errorf("status %+v, %v", st, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
	if dialControl(t.Context(), c.g.set.cfg.Buffer.Path) != nil {
		t.Error("somebody still answers")
	}
}

// FuzzControlAnswer: whatever answers at the socket, the client ends with an answer or an error.
func FuzzControlAnswer(f *testing.F) {
	f.Add([]byte("{\"stream\":{\"ID\":0,\"Device\":\"a\",\"Schema\":\"AA==\"}}\n{\"record\":{\"stream\":0,\"seq\":1}}\n{\"end\":true}\n"))
	f.Add([]byte("{\"record\":{\"stream\":7}}\n"))
	f.Add([]byte("{\"record\":{\"stream\":-1}}\n"))
	f.Add([]byte("{\"end\":true,\"error\":\"no\"}"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		_, err := readLines(bytes.NewReader(answer), recordsOf(func(r *StoredRecord) error {
			if r.Stream == nil {
				t.Error("record without stream")
			}
			return nil
		}))
		if escaped := bytes.Contains(answer, []byte(`\u`)); err == nil && !escaped && !bytes.Contains(bytes.ToLower(answer), []byte("end")) {
			t.Error("an answer without an end was taken for whole")
		}
	})
}

// fakeView is a store of the records 1 to 40, whose times are their numbers, in three sealed segments and a tail.
type fakeView struct {
	viewer
	stream *buffer.Stream
	read   int
}

func (f *fakeView) Segments() (out []buffer.SegmentInfo) {
	for i := range uint64(3) {
		out = append(out, buffer.SegmentInfo{FirstSeq: 10*i + 1, LastSeq: 10*i + 10, MinAt: int64(10*i + 1), MaxAt: int64(10*i + 10), Sealed: true})
	}
	return out
}

func (f *fakeView) Scan(_ context.Context, from, to uint64, give func(*buffer.Record) error) error {
	for seq := max(from, 1); seq < min(to, 41); seq++ {
		f.read++
		if err := give(&buffer.Record{Seq: seq, At: int64(seq), Stream: f.stream}); err != nil {
			return err
		}
	}
	return nil
}

// TestScanWindow: every window of times and numbers gives its records, and segments outside of it are not read.
func TestScanWindow(t *testing.T) {
	c, _ := endpoint(t, 0)
	s, err := c.g.buf.Stream("press-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for from := range int64(43) {
		for to := range int64(43) {
			for _, last := range []uint64{0, 15} {
				v := &fakeView{stream: s}
				var got []uint64
				if err := scan(t.Context(), v, Query{FromTime: from, ToTime: to, To: last}, func(r *StoredRecord) error { got = append(got, r.Seq); return nil }); err != nil {
					t.Fatal(err)
				}
				var want []uint64
				for n := int64(1); n <= 40; n++ {
					if n >= from && (to == 0 || n < to) && (last == 0 || uint64(n) < last) {
						want = append(want, uint64(n))
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("from %d to %d before %d: %d, want %d", from, to, last, got, want)
				}
				if v.read > len(want)+28 {
					t.Fatalf("from %d to %d before %d: %d records read for %d", from, to, last, v.read, len(want))
				}
			}
		}
	}
}
