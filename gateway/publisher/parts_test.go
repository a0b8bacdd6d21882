package publisher

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

func TestBackoff(t *testing.T) {
	b := backoff{min: 200 * time.Millisecond, max: 15 * time.Second}
	down := &ending{err: io.EOF}
	for i, most := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000} {
		most *= time.Millisecond
		if d := b.next(down); d < most/2 || d > most {
			t.Errorf("failure %d: waits %v, want %v to %v", i, d, most/2, most)
		}
	}
	if d := b.next(&ending{acked: 1, lived: time.Second}); d < time.Second || d > flapping {
		t.Errorf("a short session with progress: waits %v", d)
	}
	if d := b.next(&ending{lived: time.Second, suspicious: true}); d < 7*time.Second {
		t.Errorf("a suspicious end: waits %v", d)
	}
	if d := b.next(&ending{lived: time.Second, suspicious: true, held: true}); d > 200*time.Millisecond {
		t.Errorf("after the suspect is held back: waits %v", d)
	}
	if d := b.next(&ending{acked: 1, lived: time.Minute}); d > 200*time.Millisecond {
		t.Errorf("after a good session: waits %v", d)
	}
	b.level = 1000
	if d := b.next(&ending{refused: true}); d < refusedMax/2 || d > refusedMax {
		t.Errorf("refused: waits %v", d)
	}
	seen := map[time.Duration]bool{}
	for range 100 {
		seen[b.next(down)] = true
	}
	if len(seen) < 50 {
		t.Errorf("no jitter: %d different waits of 100", len(seen))
	}
}

func TestThrottle(t *testing.T) {
	for _, c := range []struct {
		messages, bytes float64
		size            int
		want            int // messages in 10 s
	}{
		{100, 0, 10, 1000}, {0, 1000, 10, 1000}, {100, 100, 10, 100}, {0.5, 0, 10, 5}, {0, 100, 1000, 1},
	} {
		th := newThrottle(c.messages, c.bytes)
		now, sent := time.Unix(0, 0), 0
		for end := now.Add(10 * time.Second); now.Before(end); {
			if wait := th.wait(now); wait > 0 {
				now = now.Add(wait)
				continue
			}
			th.spend(c.size)
			sent++
		}
		if sent < c.want || float64(sent) > float64(c.want)*1.03+2 {
			t.Errorf("%+v: %d messages in 10 s", c, sent)
		}
	}
	free := newThrottle(0, 0)
	if free.spend(1 << 30); free.wait(time.Unix(0, 0)) != 0 {
		t.Error("no limit, but a wait")
	}
}

// TestWindowFitsTheLink sends over a link of so many bytes a second with a fixed delay and looks at what is in flight.
func TestWindowFitsTheLink(t *testing.T) {
	for _, c := range []struct {
		name        string
		rate        float64
		delay       time.Duration
		least, most int // bytes in flight in the end
	}{
		{"64 kbit/s", 8 << 10, 20 * time.Millisecond, 4 << 10, 24 << 10},
		{"fast", 100 << 20, time.Millisecond, 1 << 20, 1<<20 + 1000},
		{"2 s away", 10 << 20, 2 * time.Second, 1 << 20, 1<<20 + 1000},
	} {
		w := newWindow(4096, 1<<20)
		now := time.Unix(1000, 0)
		free := now // when the link is free again
		var arrive []time.Time
		for range 20000 {
			for w.room(true) {
				m := w.slot()
				m.payload, m.sent = append(m.payload[:0], make([]byte, 1000)...), now
				w.push(m)
				if free.Before(now) {
					free = now
				}
				free = free.Add(time.Duration(1000 / c.rate * 1e9))
				arrive = append(arrive, free.Add(c.delay))
			}
			now, arrive = arrive[0], arrive[1:]
			w.pop(now)
		}
		for w.room(true) {
			w.push(&message{payload: make([]byte, 1000)})
		}
		if w.bytes < c.least || w.bytes > c.most {
			t.Errorf("%s: %d bytes in flight, want %d to %d", c.name, w.bytes, c.least, c.most)
		}
	}
}

func TestWindowKeepsRoomForLive(t *testing.T) {
	w := newWindow(4, 1<<20)
	for w.room(false) {
		w.push(&message{})
	}
	if w.n != 3 || !w.room(true) {
		t.Errorf("%d of 4 taken by the backlog, room for live: %v", w.n, w.room(true))
	}
	one := newWindow(1, 1)
	if !one.room(false) {
		t.Error("a window of one has no room for the backlog")
	}
	one.push(&message{payload: make([]byte, 100)})
	if one.room(true) {
		t.Error("a window of one holds two")
	}
}

func TestDeadlineAllowsForSize(t *testing.T) {
	w := newWindow(10, 1<<20)
	at := time.Unix(1000, 0)
	w.push(&message{payload: make([]byte, 128<<10), sent: at})
	w.push(&message{payload: make([]byte, 10), sent: at})
	if got := w.deadline(10 * time.Second).Sub(at); got != 26*time.Second {
		t.Errorf("deadline of 128 KiB after %v", got)
	}
	w.pop(at.Add(20 * time.Second))
	if got := w.deadline(10 * time.Second).Sub(at); got < 30*time.Second || got > 31*time.Second {
		t.Errorf("deadline of the next after %v, counted from the progress before", got)
	}
}

func TestSuspicion(t *testing.T) {
	q := suspicion{window: 10, quiet: quietTime}
	q.acked(1)
	for i := range 2 {
		if q.closed(7) || q.closed(8+uint64(i)) {
			t.Fatal("condemned without a trial")
		}
	}
	q.closed(7)
	if seq, alone := q.suspect(); !alone || seq != 7 || q.pause() != quietTime {
		t.Fatalf("suspect %d %v after three closings", seq, alone)
	}
	for i := range condemnAfter {
		if q.closed(99) {
			t.Fatal("condemned for another message")
		}
		if got := q.closed(7); got != (i == condemnAfter-1) {
			t.Fatalf("closing %d on it alone: condemned %v", i+1, got)
		}
	}
	q.rejected()
	if _, alone := q.suspect(); alone || q.pause() != 0 {
		t.Error("still under suspicion after the rejection")
	}
	// Nothing acknowledged since: the next must close more often.
	for range suspectAfter {
		q.closed(20)
	}
	n := 1
	for ; !q.closed(20); n++ {
	}
	if n != 2*condemnAfter {
		t.Errorf("a second one in a row was condemned after %d closings", n)
	}
	q.rejected()
	for range suspectAfter {
		q.closed(30)
	}
	q.acked(30)
	if _, alone := q.suspect(); alone || !q.careful() {
		t.Error("an acknowledged suspect: still alone, or no care afterwards")
	}
	for i := range 10 {
		q.acked(uint64(40 + i))
	}
	if q.careful() {
		t.Error("careful for ever")
	}
}

func publishPacket(id uint16, topic string, n int) []byte {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = 1, id, topic, make([]byte, n)
	var b bytes.Buffer
	p.Write(&b)
	return b.Bytes()
}

func TestPublishID(t *testing.T) {
	for _, n := range []int{0, 100, 130, 20000, 3 << 20} {
		if id, ok := publishID(publishPacket(0x1234, "a/b", n)); !ok || id != 0x1234 {
			t.Errorf("payload of %d bytes: id %#x, %v", n, id, ok)
		}
	}
	for _, p := range [][]byte{{}, {0x32}, {0x32, 0xff}, {0x32, 2, 0, 9}, {0xc0, 0}, publishPacket(1, "a", 1)[:4]} {
		if _, ok := publishID(p); ok {
			t.Errorf("%x has an id", p)
		}
	}
}

func FuzzPublishID(f *testing.F) {
	f.Add(publishPacket(1, "a/b", 200))
	f.Fuzz(func(t *testing.T, p []byte) { publishID(p) })
}

// fakeConn gives scripted bytes and swallows what is written.
type fakeConn struct {
	net.Conn
	r      io.Reader
	writes [][]byte
	fail   error
}

func (f *fakeConn) Read(p []byte) (int, error)         { return f.r.Read(p) }
func (f *fakeConn) SetWriteDeadline(t time.Time) error { return nil }
func (f *fakeConn) Close() error                       { return nil }
func (f *fakeConn) Write(p []byte) (int, error) {
	f.writes = append(f.writes, bytes.Clone(p))
	return len(p), f.fail
}

func TestConnPassesOnlyWhatAPublisherMayHear(t *testing.T) {
	const hello = "\x20\x02\x00\x00"
	for _, c := range []struct {
		name, in, out, err string
	}{
		{"login and acknowledgement", hello + "\x40\x02\x00\x07", hello + "\x40\x02\x00\x07", "EOF"},
		{"twice", hello + "\x40\x02\x00\x07\x40\x02\x00\x07\xd0\x00", hello + "\x40\x02\x00\x07\xd0\x00", "EOF"},
		{"wrong id", hello + "\x40\x02\x00\x08\xd0\x00", hello + "\xd0\x00", "EOF"},
		{"id 0", hello + "\x40\x02\x00\x00\xd0\x00", hello + "\xd0\x00", "EOF"},
		{"unknown return code", "\x20\x02\x00\xc8", "", "code 200"},
		{"second login", hello + hello, hello, "makes no sense"},
		{"suback completes no publish", hello + "\x90\x03\x00\x07\x01", hello, "0x90"},
		{"unsuback", hello + "\xb0\x02\x00\x07", hello, "0xb0"},
		{"pubcomp", hello + "\x70\x02\x00\x07", hello, "0x70"},
		{"publish of 256 MiB", hello + "\x30\xff\xff\xff\x7f", hello, "0x30"},
		{"puback of odd length", hello + "\x40\x03\x00\x07\x00", hello, "0x40"},
		{"cut", hello + "\x40\x02\x00", hello, "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := wrap(&fakeConn{r: strings.NewReader(c.in)})
			k.Write(publishPacket(7, "t", 3))
			k.flush()
			out, err := io.ReadAll(iotestOneByte{k})
			if err == nil {
				err = io.EOF // ReadAll hides it
			}
			if string(out) != c.out || !strings.Contains(err.Error(), c.err) {
				t.Errorf("passed %x, %v; want %x, %s", out, err, c.out, c.err)
			}
		})
	}
}

// iotestOneByte reads one byte at a time, as the client library does.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

func FuzzConnRead(f *testing.F) {
	f.Add([]byte("\x20\x02\x00\x00\x40\x02\x00\x07\xd0\x00\x30\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, in []byte) {
		k := wrap(&fakeConn{r: bytes.NewReader(in)})
		k.Write(publishPacket(7, "t", 3))
		k.flush()
		acks := 0
		for {
			p, err := packets.ReadPacket(k)
			if err != nil {
				break
			}
			switch p := p.(type) {
			case *packets.PubackPacket:
				if acks++; p.MessageID != 7 || acks > 1 {
					t.Fatalf("acknowledgement %d of packet %d", acks, p.MessageID)
				}
			case *packets.ConnackPacket, *packets.PingrespPacket:
			default:
				t.Fatalf("passed on %v", p)
			}
		}
	})
}

// TestNoAckBeforeTheWire: a PUBACK for a packet that still waits to be written acknowledges nothing.
func TestNoAckBeforeTheWire(t *testing.T) {
	k := wrap(&fakeConn{r: strings.NewReader("\x40\x02\x00\x07\xd0\x00")})
	k.Write(publishPacket(7, "t", 3))
	p, err := packets.ReadPacket(k)
	if _, ok := p.(*packets.PingrespPacket); err != nil || !ok || k.strays() != 1 {
		t.Errorf("got %v, %v; strays %d", p, err, k.strays())
	}
}

func TestConnCollectsWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeConn{r: strings.NewReader("")}
		k := wrap(f)
		var want []byte
		for i := range 100 {
			p := publishPacket(uint16(i+1), "t", 1000)
			want = append(want, p...)
			k.Write(p)
		}
		go k.write()
		synctest.Wait()
		if got := bytes.Join(f.writes, nil); !bytes.Equal(got, want) || len(f.writes) > 10 {
			t.Errorf("%d writes, %d bytes of %d", len(f.writes), len(got), len(want))
		}
		k.Write([]byte{0xe0, 0})
		k.Close()
		if last := f.writes[len(f.writes)-1]; !bytes.Equal(last, []byte{0xe0, 0}) {
			t.Errorf("last write %x: the DISCONNECT is missing", last)
		}
		if _, err := k.Write([]byte{0xc0, 0}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
	})
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"mqtt://a":       "a:1883",
		"mqtt://a:1":     "a:1",
		"tcp://[::1]":    "[::1]:1883",
		"mqtts://a":      "a:8883",
		"ws://a/mqtt":    "a:80",
		"wss://a:1/mqtt": "a:1",
		"http://a":       "no scheme",
		"a:1883":         "no scheme",
		"mqtt://":        "names no host",
		"mqtt://u:p@a":   "user name",
		"mqtt://a b":     "read url",
		"":               "no scheme",
	} {
		got, err := parseTarget(in)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && got.host != want {
			t.Errorf("%q: host %q, error %v; want %s", in, got.host, err, want)
		}
	}
}

func TestClosedByPeer(t *testing.T) {
	for err, want := range map[error]bool{
		io.EOF: true, io.ErrUnexpectedEOF: true, nil: false, errNoAck: false, errNoPing: false, errClosed: false, os.ErrDeadlineExceeded: false,
		&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}:      true,
		&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}:         true,
		&net.OpError{Op: "read", Err: os.NewSyscallError("wsarecv", syscall.Errno(10054))}: true,
		&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}:       false,
		&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.EHOSTUNREACH)}:    false,
		&websocket.CloseError{Code: 1006, Text: "unexpected EOF"}:                          true,
	} {
		if closedByPeer(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
