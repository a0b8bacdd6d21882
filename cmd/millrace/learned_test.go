package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers/modbus/modbussim"
	"millrace/gateway"
	"millrace/gateway/config"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

// shy is a device that refuses requests for more than 50 registers, and counts them.
type shy struct {
	*modbussim.Server
	tooLong atomic.Int64
}

func newShy(t *testing.T) *shy {
	t.Helper()
	sim, err := modbussim.Start(modbussim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	s := &shy{Server: sim}
	sim.Unit(1)
	sim.Unit(2)
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 3, Match: func(q modbussim.Request) bool {
		if q.Count > 50 {
			s.tooLong.Add(1)
		}
		return q.Count > 50
	}})
	return s
}

// lesson is a gateway on such a device that can be stopped and started again.
type lesson struct {
	t          *testing.T
	file, data string
	broker     *brokersim.Broker
	log        *lockedBuffer
	stop       func()
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLesson(t *testing.T) *lesson {
	t.Helper()
	l := &lesson{t: t, file: filepath.Join(t.TempDir(), "millrace.yaml"), data: filepath.Join(t.TempDir(), "data"), stop: func() {},
		broker: brokersim.New(brokersim.Options{})}
	if err := l.broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.broker.Stop)
	t.Cleanup(func() { l.stop() })
	return l
}

// write writes the config: a device with 120 registers, and what it says besides.
func (l *lesson) write(url string, tags int, more ...string) {
	l.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "gateway: shop\nweb: {enabled: false}\ngrace_time: 100ms\nbuffer: {path: %q, max_size: 8MiB}\ndestinations:\n  - {name: cloud, url: \"mqtt://%s\"}\ndevices:\n", l.data, l.broker.Addr())
	key := "url"
	if strings.HasPrefix(url, "[") {
		key = "urls"
	}
	fmt.Fprintf(&b, "  - name: press-1\n    driver: modbus\n    %s: %s\n    timeout: 10s\n", key, url)
	for _, line := range more {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	b.WriteString("    groups:\n      - name: fast\n        interval: 20ms\n        tags:\n")
	for i := range tags {
		fmt.Fprintf(&b, "          - {name: t%d, address: \"holding:%d\"}\n", i, i)
	}
	writeFile(l.t, l.file, b.String())
}

// start runs the gateway, and waits until every tag is good.
func (l *lesson) start() {
	l.t.Helper()
	l.stop()
	l.log = &lockedBuffer{}
	load := func() (*config.Config, error) { return config.Load(l.file, protocols(), config.Options{}) }
	cfg, err := load()
	if err != nil {
		l.t.Fatal(err)
	}
	g, err := gateway.New(l.t.Context(), cfg, gateway.Options{Version: "v-test", Log: slog.New(slog.NewTextHandler(l.log, nil)), Load: load})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("gateway: %v", err)
		}
	})
	l.good(func() bool {
		c, err := web.Dial(l.t.Context(), l.data)
		if err != nil {
			return false
		}
		defer c.Close()
		s, err := c.Snapshot(l.t.Context())
		return err == nil && s.Devices[0].Good == s.Devices[0].Tags
	})
}

func (l *lesson) good(is func() bool) {
	l.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("waited for 30 s; log:\n%s", l.log)
		}
	}
}

// learn starts a gateway that has nothing yet and waits until the limit is learned.
func (l *lesson) learn(s *shy) {
	l.t.Helper()
	l.write(s.URL(), 120)
	l.start()
	until(l.t, "max_registers: 50\n", "learned", "--config", l.file)
}

// TestLearnedIsKept: a device that refuses more than 50 registers is not asked for more after a restart, nor after a reload
// that leaves it the same device.
func TestLearnedIsKept(t *testing.T) {
	s, l := newShy(t), newLesson(t)
	l.learn(s)
	at := []string{"--config", l.file}
	mustSay(t, []string{"# device \"press-1\": learned; at this device in the config it is permanent:\nmax_registers: 50\n"}, append([]string{"learned", "press-1"}, at...)...)
	l.stop()
	if s.tooLong.Load() == 0 {
		t.Fatal("the limit was never looked for")
	}
	mustSay(t, []string{"    learned by the gateway: max_registers: 50\n"}, append([]string{"check"}, at...)...)
	s.tooLong.Store(0)
	l.start()
	until(t, "max_registers: 50\n", append([]string{"learned"}, at...)...)
	l.write(s.URL(), 121)
	mustSay(t, []string{"changed"}, append([]string{"reload"}, at...)...)
	until(t, "t120", append([]string{"values", "press-1/t120"}, at...)...)
	until(t, "good", append([]string{"values", "press-1/t120"}, at...)...)
	if n := s.tooLong.Load(); n > 0 {
		t.Errorf("%d requests for more than 50 registers after a restart and a reload", n)
	}
}

// TestLearnedIsPasted: the lines load in the place where they are said to belong, and nothing is learned beside them.
func TestLearnedIsPasted(t *testing.T) {
	s, l := newShy(t), newLesson(t)
	s.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: func(q modbussim.Request) bool { // behind the tags
		return q.Addr <= 81 && q.Addr+q.Count > 81 || q.Addr <= 110 && q.Addr+q.Count > 110
	}})
	l.write(s.URL(), 80, `forbidden: "holding:110"`)
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, l.file, string(text)+"          - {name: a, address: \"holding:85\"}\n          - {name: b, address: \"holding:120\"}\n")
	l.start()
	out := until(t, `forbidden: "holding:110, holding:80-84"`, "learned", "press-1", "--config", l.file)
	if !strings.Contains(out, "max_registers: 50\n") {
		t.Fatalf("learned:\n%s", out)
	}
	pasted := strings.ReplaceAll(string(text), "    forbidden: \"holding:110\"\n", "    "+strings.ReplaceAll(strings.TrimSpace(out), "\n", "\n    ")+"\n")
	writeFile(t, l.file, pasted+"          - {name: a, address: \"holding:85\"}\n          - {name: b, address: \"holding:120\"}\n")
	if out := mustSay(t, []string{"\nok\n"}, "check", "--config", l.file); strings.Contains(out, "learned") {
		t.Errorf("check shows beside the lines what they say:\n%s", out)
	}
	l.stop() // it may still be looking for a longer one
	s.tooLong.Store(0)
	l.start()
	mustSay(t, []string{"# device \"press-1\": nothing was learned\n"}, "learned", "press-1", "--config", l.file)
	if n := s.tooLong.Load(); n > 0 {
		t.Errorf("%d requests for more than 50 registers with max_registers: 50", n)
	}
}

// TestLearnedIsReset: what was learned is forgotten, on disk too, and learned anew; the log says who wanted it.
func TestLearnedIsReset(t *testing.T) {
	s, l := newShy(t), newLesson(t)
	l.learn(s)
	l.start() // so that it is on disk
	s.Mend()  // another device was put in its place
	mustSay(t, []string{"# device \"press-1\": forgotten, and learned anew:\nmax_registers: 50\n"}, "learned", "press-1", "--reset", "--config", l.file)
	mustSay(t, []string{"# nothing was learned of any device\n"}, "learned", "--config", l.file)
	if text, err := os.ReadFile(filepath.Join(l.data, "learned.json")); err != nil || bytes.Contains(text, []byte("max_registers")) {
		t.Errorf("on disk: %q, %v", text, err)
	}
	if !strings.Contains(l.log.String(), "forgotten, as was asked for") {
		t.Errorf("the log does not say it:\n%s", l.log)
	}
	l.start()
	mustSay(t, []string{"# device \"press-1\": nothing was learned\n"}, "learned", "press-1", "--config", l.file)
	for _, args := range [][]string{{"learned", "press-9"}, {"learned", "press-9", "--reset"}} {
		if code, _ := millrace(append(args, "--config", l.file)...); code != exitFailed {
			t.Errorf("%q: exit %d", args, code)
		}
	}
	if code, _ := millrace("learned", "--reset", "--config", l.file); code != exitUsage {
		t.Errorf("reset of nothing: exit %d", code)
	}
}

// TestLearnedOfAnother: with another url or unit it is another device, of which nothing is known.
func TestLearnedOfAnother(t *testing.T) {
	s, other, l := newShy(t), newShy(t), newLesson(t)
	l.learn(s)
	l.stop()
	l.start()
	s.tooLong.Store(0)
	l.write(s.URL(), 120, "unit: 2")
	mustSay(t, []string{"changed"}, "reload", "--config", l.file)
	l.good(func() bool { return s.tooLong.Load() > 0 })
	until(t, "max_registers: 50\n", "learned", "--config", l.file)
	l.write(other.URL(), 120, "unit: 2")
	l.start()
	l.good(func() bool { return other.tooLong.Load() > 0 })
	if !strings.Contains(l.log.String(), "is forgotten, because its config says something else now") {
		t.Errorf("the log does not say it:\n%s", l.log)
	}
}

// TestLearnedIsDamaged: a file with other bytes, too many or that cannot be read costs that it is learned anew, and a line in the log.
func TestLearnedIsDamaged(t *testing.T) {
	s, l := newShy(t), newLesson(t)
	l.learn(s)
	l.stop()
	path := filepath.Join(l.data, "learned.json")
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"one bit":  bytes.Replace(sound, []byte(`"50"`), []byte(`"10"`), 1),
		"cut off":  sound[:len(sound)/2],
		"empty":    {},
		"too long": append(bytes.Clone(sound), bytes.Repeat([]byte(" "), 1<<20)...),
	} {
		writeFile(t, path, string(content))
		s.tooLong.Store(0)
		l.start()
		l.good(func() bool { return s.tooLong.Load() > 0 })
		if !strings.Contains(l.log.String(), "cannot be read; it is learned anew") {
			t.Errorf("%s: the log does not say it:\n%s", name, l.log)
		}
		until(t, "max_registers: 50\n", "learned", "--config", l.file)
		l.stop()
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, sound) {
			t.Errorf("%s: written again: %q, %v", name, now, err)
		}
	}
}

// TestSparePathIsShown: the API and `millrace values` say which of two paths is in use.
func TestSparePathIsShown(t *testing.T) {
	first, second, l := newShy(t), newShy(t), newLesson(t)
	l.write("["+first.URL()+", "+second.URL()+"]", 3)
	l.start()
	c, err := web.Dial(t.Context(), l.data)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	device := func() *web.Device {
		s, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return &s.Devices[0]
	}
	if d := device(); d.Path != first.URL() || !slices.Equal(d.SparePaths, []string{second.URL()}) {
		t.Errorf("path %q, spare %q", d.Path, d.SparePaths)
	}
	first.Down()
	l.good(func() bool { return device().Path == second.URL() })
	d := device()
	d.Learned = []string{"max_bits: 30", "max_registers: 50"}
	var out bytes.Buffer
	tellDevice(&out, d)
	if want := fmt.Sprintf("device \"press-1\": path in use: %s, spare: %s\ndevice \"press-1\": learned max_bits: 30, max_registers: 50; `millrace learned` shows the lines for the config\n",
		second.URL(), first.URL()); out.String() != want {
		t.Errorf("values says\n%swant\n%s", &out, want)
	}
}
