package opcua

import (
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
)

// TestLostLinks holds for each way in which a server says that session or channel are gone: the poll is an error
// that names it, nothing is asked twice, and a new connection reads on.
func TestLostLinks(t *testing.T) {
	for code, name := range map[uint32]string{
		0x80250000: "BadSessionIdInvalid",
		0x80260000: "BadSessionClosed",
		0x80270000: "BadSessionNotActivated",
		0x80220000: "BadSecureChannelIdInvalid",
		0x80860000: "BadSecureChannelClosed",
		0x80870000: "BadSecureChannelTokenUnknown",
		0x800E0000: "BadServerHalted",
		0x800C0000: "BadShutdown",
		0x800D0000: "BadServerNotConnected",
		0x80130000: "BadSecurityChecksFailed",
		0x80560000: "BadTooManySessions",
		0x800A0000: "BadTimeout",
	} {
		t.Run(name, func(t *testing.T) {
			lost := false
			s := start(t, opcuasim.Options{OnRead: func([]string) uint32 {
				if lost {
					return code
				}
				return 0
			}}, 10)
			d := connect(t, connection(s.Endpoint(), 10*time.Second, variables(10)...))
			wantNumbers(t, read(t, d), nil)
			lost = true
			before := s.Reads()
			r, err := d.Read(t.Context(), drivers.Ref{}, nil)
			if err == nil || !strings.HasPrefix(err.Error(), name) || len(r) != 0 {
				t.Errorf("got %d readings and %v, want %s", len(r), err, name)
			}
			if n := s.Reads() - before; n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			lost = false
			d.Close()
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantNumbers(t, read(t, d), nil)
		})
	}
}

// TestRestartedServer restarts a server under polls, over and over.
func TestRestartedServer(t *testing.T) {
	s := start(t, opcuasim.Options{}, 10)
	d := connect(t, connection(s.Endpoint(), 10*time.Second, variables(10)...))
	for range 20 {
		wantNumbers(t, read(t, d), nil)
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		r, err := d.Read(t.Context(), drivers.Ref{}, nil)
		if err == nil || len(r) != 0 {
			t.Fatalf("a poll over the restart: %d readings, %v", len(r), err)
		}
		d.Close()
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantNumbers(t, read(t, d), nil)
}

// TestReconnectsLeaveNothing connects 300 times, 1,000 with -long: in order, over a lost connection, and refused at the session.
// The counts of goroutines and descriptors stay flat.
func TestReconnectsLeaveNothing(t *testing.T) {
	h, refused := hostile(t, opcuasim.Trick{Step: opcuasim.StepActivate, Play: faulty}, 10*time.Second)
	defer h.Close()
	s := start(t, opcuasim.Options{}, 3)
	d := connect(t, connection(s.Endpoint(), 10*time.Second, variables(3)...))
	count := func() (int, int) {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("count descriptors: %v", err)
		}
		return runtime.NumGoroutine(), len(open)
	}
	d.Close()
	time.Sleep(100 * time.Millisecond) // the server's end
	goroutines, descriptors := count()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close what was forgotten
	times := 300
	if *long {
		times = 1000
	}
	for i := range times {
		if i%10 == 3 && !strings.HasPrefix(outcome(refused), "connect: activate session: BadEncodingError") {
			t.Fatal("the refusing server does not refuse")
		}
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i%10 == 7 {
			d.link.channel.Fail(io.EOF)
			if _, err := d.Read(t.Context(), drivers.Ref{}, nil); err == nil {
				t.Fatal("Read over a closed connection gives no error")
			}
		}
		if i%100 == 99 {
			d.Close()
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				g, f := count()
				if g <= goroutines+2 && f <= descriptors+2 {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("after %d connections: %d goroutines and %d descriptors, %d and %d before", i+1, g, f, goroutines, descriptors)
				}
			}
			runtime.GC()
		}
	}
}

// TestAbsurdLifetimes has servers whose tokens live for no time, or for ever.
func TestAbsurdLifetimes(t *testing.T) {
	for name, want := range map[string][2]time.Duration{
		"open: lifetime 0":       {wire.MaxLifetime - time.Minute, wire.MaxLifetime},
		"open: lifetime 1 ms":    {0, wire.MinLifetime},
		"open: lifetime 49 days": {wire.MaxLifetime - time.Minute, wire.MaxLifetime},
	} {
		for _, trick := range opcuasim.Tricks() {
			if trick.Name != name {
				continue
			}
			_, d := hostile(t, trick, 10*time.Second)
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			renew, end := d.link.channel.Times()
			if left := time.Until(end); left < want[0]-10*time.Second || left > want[1] {
				t.Errorf("%s: the token has %v left", name, left)
			}
			if before := end.Sub(renew); before < wire.MinLifetime/4 {
				t.Errorf("%s: renewed %v before its end", name, before)
			}
			wantNumbers(t, read(t, d), nil)
			if want[1] > wire.MinLifetime {
				continue
			}
			old := d.link
			time.Sleep(time.Until(end) + 10*time.Millisecond)
			wantNumbers(t, read(t, d), nil)
			if d.link == old {
				t.Errorf("%s: a poll with a token that has ended goes over the old connection", name)
			}
		}
	}
}

// TestFarewellToASilentServer closes a link whose server has fallen silent since the last poll.
func TestFarewellToASilentServer(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{}, 3)
	d := connect(t, connection(s.Endpoint(), brief, variables(3)...))
	read(t, d)
	s.SetSilent(true)
	begin := time.Now()
	d.Close()
	if took := time.Since(begin); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("Close took %v, want 1 s", took)
	}
}
