package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/buffer"
)

// answering listens in a new directory and answers the same to whoever asks, and then nothing more.
func answering(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = shortDir(t)
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			t.Cleanup(func() { _ = c.Close() })
			go func() {
				if n, _ := c.Read(make([]byte, 4096)); n > 0 {
					_, _ = io.WriteString(c, text)
				}
			}()
		}
	}()
	return dir
}

// TestClientGivesUp: a gateway that hangs keeps no command waiting, before its answer or in the midst of it (FOUND S9).
func TestClientGivesUp(t *testing.T) {
	const begun = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
	calls := map[string]func(context.Context, *Client) error{
		"status": func(ctx context.Context, c *Client) error { _, err := c.Status(ctx); return err },
		"write":  func(ctx context.Context, c *Client) error { _, err := c.Write(ctx, "a", "b", "1"); return err },
		"scan": func(ctx context.Context, c *Client) error {
			return c.Scan(ctx, Query{}, func(*StoredRecord) error { return nil })
		},
		"watch": func(ctx context.Context, c *Client) error {
			return c.Watch(ctx, "", "", false, func(*Value) error { return nil })
		},
	}
	const short, long = 50 * time.Millisecond, time.Hour
	for what, of := range map[string]struct {
		text string
		wait waits
	}{
		"nothing":        {"", waits{long, short, long}},
		"half a head":    {"HTTP/1.1 200", waits{long, short, long}},
		"a head":         {begun, waits{long, long, short}},
		"half an answer": {begun + "{\"Running\":", waits{long, long, short}},
	} {
		dir := answering(t, of.text)
		c, err := dial(t.Context(), dir, of.wait)
		if err != nil {
			t.Fatal(err)
		}
		for name, call := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := call(ctx, c)
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s, answered with %s: %v", name, what, err)
			}
			cancel()
		}
		_ = c.Close()
	}
}

func TestClientRefusesNonsense(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[1,2":                    "read the answer",
		"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nplain":                   "answers 500 No",
		"HTTP/1.1 422 No\r\nContent-Length: 17\r\n\r\n{\"error\":\"so so\"}":  "so so",
		"HTTP/1.1 422 No\r\nContent-Length: 12\r\n\r\n{\"error\":\"\"}":       "answers 422 No",
		"220 mail.example ESMTP\r\n":                                          "malformed HTTP",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 12<<20) + "\r\n\r\n{}": "exceeded",
	} {
		_, err := client(t, answering(t, text)).Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %.300v", text, err)
		}
	}
}

// FuzzLines: whatever answers at the socket, the client ends with an answer or an error.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"stream\":{\"ID\":0,\"Device\":\"a\",\"Schema\":\"AA==\"}}\n{\"record\":{\"stream\":0,\"seq\":1}}\n{\"end\":true}\n"))
	f.Add([]byte("{\"record\":{\"stream\":7}}\n"))
	f.Add([]byte("{\"record\":{\"stream\":-1}}\n"))
	f.Add([]byte("{}\n{\"end\":true,\"error\":\"no\"}"))
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
	s, err := newFake(t, 0).buf.Stream("press-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for from := range int64(43) {
		for to := range int64(43) {
			for _, last := range []uint64{0, 15} {
				scanWindow(t, &fakeView{stream: s}, Query{FromTime: from, ToTime: to, To: last})
			}
		}
	}
}

func scanWindow(t *testing.T, v *fakeView, q Query) {
	t.Helper()
	var got, want []uint64
	if err := scan(t.Context(), v, q, func() {}, func(r *StoredRecord) error { got = append(got, r.Seq); return nil }); err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= 40; n++ {
		if n >= q.FromTime && (q.ToTime == 0 || n < q.ToTime) && (q.To == 0 || uint64(n) < q.To) {
			want = append(want, uint64(n))
		}
	}
	if !slices.Equal(got, want) || v.read > len(want)+28 {
		t.Fatalf("%+v: %d of %d read, want %d", q, got, v.read, want)
	}
}

// TestOpenStore: a store looks the same with a gateway on it and without, and says which; what changes it works on both.
func TestOpenStore(t *testing.T) {
	f := newFake(t, 10)
	f.reopen(t)
	running := client(t, serve(t, f))
	seen := look(t, running, true)
	dir := f.dir
	if err := f.buf.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(t.Context(), dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if now := look(t, s, false); now != seen {
		t.Errorf("running %s, stopped %s", seen, now)
	}
	if _, err := s.Forget(t.Context(), "cloud"); err == nil || !strings.Contains(err.Error(), "the store has no other") {
		t.Errorf("forget the only destination: %v", err)
	}
	if err := s.Delete(t.Context(), "12:cloud"); err == nil {
		t.Error("deleted what is not there")
	}
	if _, err := OpenStore(t.Context(), filepath.Join(dir, "none"), 0); err == nil || errors.Is(err, ErrNoGateway) {
		t.Errorf("no store: %v", err)
	}
}

// look tells what a store holds.
func look(t *testing.T, s Store, running bool) string {
	t.Helper()
	st, err := s.Status(t.Context())
	if err != nil || st.Running != running || (st.Gateway != "") != running {
		t.Fatalf("status %+v, %v", st, err)
	}
	report, err := s.Verify(t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		t.Fatalf("verify %+v, %v", report, err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d records, %d waiting:", report.Records, st.Stats.Destinations[0].Backlog)
	err = s.Scan(t.Context(), Query{Device: "press-2"}, func(r *StoredRecord) error {
		fmt.Fprintf(&text, " %d:%s:%d", r.Seq, r.Payload, r.At)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// TestReach: a look for the socket that does not end with its context, as on a disk that hangs, holds up nobody.
func TestReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		began := time.Now()
		conn, err := reach(t.Context(), 3*time.Second, func(context.Context) (net.Conn, error) { <-hang; return nil, nil })
		if took := time.Since(began); conn != nil || err == nil || err.Error() != "its disk does not answer" || took > 4*time.Second {
			t.Errorf("%v, %v after %v", conn, err, took)
		}
		if _, err := reach(t.Context(), 3*time.Second, func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a look that ends with its context: %v", err)
		}
	})
}

// TestClientOfThePage: at the page's address the same client sees all that is to be seen there, and changes nothing.
func TestClientOfThePage(t *testing.T) {
	f := newFake(t, 3)
	l, err := Listen(t.Context(), "127.0.0.1:0", Bounds{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, l, Handler(f, l.Most()), slog.New(slog.DiscardHandler)) }()
	c, err := DialPage(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err := c.Snapshot(t.Context()); err != nil || s.Gateway != f.snap.Gateway || len(s.Devices) != len(f.snap.Devices) {
		t.Errorf("snapshot: %+v, %v", s, err)
	}
	if _, err := c.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("a reload at the page's address: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := DialPage(t.Context(), l.Addr().String()); !errors.Is(err, ErrNoGateway) {
		t.Errorf("when nobody answers: %v", err)
	}
}
