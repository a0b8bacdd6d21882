package publisher

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// BenchmarkPublish measures one destination from Append to PUBACK: messages a second and the CPU time of this
// process for one message. With mosquitto the broker's time is not in it, with brokersim it is.
func BenchmarkPublish(b *testing.B) {
	for _, broker := range []string{"brokersim", "mosquitto"} {
		for _, readings := range []int{10, 1000} {
			for _, rate := range []int{0, 1000} {
				name := fmt.Sprintf("%s/readings=%d", broker, readings)
				if rate > 0 {
					name += fmt.Sprintf("/paced=%d", rate)
				}
				b.Run(name, func(b *testing.B) { benchPublish(b, broker, readings, rate) })
			}
		}
	}
}

func benchPublish(b *testing.B, broker string, readings, rate int) {
	o := rigOptions{tags: readings, buffer: buffer.Options{CommitInterval: time.Second}}
	if broker == "mosquitto" {
		o.publisher.URL = "mqtt://" + mosquitto(b)
	} else {
		o.publisher.URL = "mqtt://" + quietBroker(b).Addr()
	}
	r := newRig(b, o)
	r.run()
	rec := record.Record{Time: 1766480000000000}
	for i := range readings {
		rec.Readings = append(rec.Readings, telemetry.Reading{Tag: uint32(i), Time: rec.Time, Value: telemetry.Uint(uint64(i * 37 % 65536))})
	}
	payload := record.Append(nil, &rec)
	r.await("link up", func() bool { return r.p.Stats().State == Connected })
	b.ReportAllocs()
	b.ResetTimer()
	start, cpu := time.Now(), cpuTime()
	for i := range b.N {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		for i%64 == 0 && r.p.dest.Len() > 500 {
			time.Sleep(200 * time.Microsecond)
		}
		r.appendRaw(i%3, payload, readings)
	}
	for r.p.dest.Len() > 0 {
		time.Sleep(200 * time.Microsecond)
	}
	took, spent := time.Since(start), cpuTime()-cpu
	b.StopTimer()
	b.ReportMetric(float64(spent.Nanoseconds())/1e3/float64(b.N), "cpu-µs/msg")
	b.ReportMetric(float64(b.N)/took.Seconds(), "msg/s")
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/float64(readings), "cpu-ns/reading")
	if s := r.p.Stats(); s.Sessions != 1 {
		b.Errorf("%+v", s)
	}
	r.stop()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// mosquitto starts one and returns its address.
func mosquitto(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path = "/usr/sbin/mosquitto"; os.Getenv("INTEROP") == "required" {
			t.Fatal("mosquitto is not installed")
		}
		if _, err := os.Stat(path); err != nil {
			t.Skip("mosquitto is not installed")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\nmax_packet_size 100000\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(end) {
			t.Fatal("mosquitto does not listen")
		}
	}
}

// TestMosquitto publishes to a broker that none of us wrote, through its restart, and meets its size limit.
func TestMosquitto(t *testing.T) {
	t.Parallel()
	o := quick
	o.URL = "mqtt://" + mosquitto(t)
	r := newRig(t, rigOptions{publisher: o, tags: 8000})
	r.p.poison.quiet = 50 * time.Millisecond
	r.run()
	for i := range 1000 {
		n := 3
		if i == 500 {
			n = 8000 // over max_packet_size: mosquitto closes the connection
		}
		r.append(i%3, n)
	}
	r.await("every record acknowledged or in quarantine", func() bool { return r.p.Stats().Unacked == 0 })
	if delivered, _, _, dropped := r.ledger(); delivered != 999*3 || dropped != 8000 {
		t.Errorf("delivered %d, dropped %d of %d readings: %+v", delivered, dropped, r.sent, r.p.Stats())
	}
}
