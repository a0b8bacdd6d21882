package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

// plant is fake equipment: each device answers with how often it has been read.
type plant struct {
	mu    sync.Mutex
	made  map[string]int // drivers, by first device
	open  map[string]int // connections, by device: two at once are a mistake
	reads map[string]int // by device
	twice []string       // devices that were polled over two connections at once
	slow  time.Duration  // each read
	busy  chan struct{}  // signalled at the beginning of a read, if it is not nil
	dial  chan error     // how each attempt to connect ends, if it is not nil

	nodes  []string // that rules select, by the addresses of tags
	models uint64
	most   int    // tags of a rule; 0 = 5
	moved  bool   // devices are not what they were, until that is accepted
	built  int    // drivers
	look   func() // called as a look at the nodes begins, if it is not nil

	silent   func(device string) bool       // which give no answer, after a while, if it is not nil; mu is held
	answered func(device string, reads int) // called with each answer, if it is not nil; mu is held
	text     func() string                  // the value of tags at the address "text"; mu is held
}

func newPlant() *plant {
	return &plant{made: map[string]int{}, open: map[string]int{}, reads: map[string]int{}}
}

func (p *plant) protocols() []drivers.Protocol {
	return []drivers.Protocol{{Name: "fake", Shares: true, Rule: "browse", GroupOptions: []drivers.Option{{Name: "browse"}}, DeviceOptions: []drivers.Option{{Name: "unit"}}, New: func(c drivers.Connection) (drivers.Driver, error) {
		if strings.Contains(c.URL, "unbuildable") {
			return nil, &drivers.ConfigError{Group: -1, Tag: -1, Field: "url", What: "no such equipment", Mend: "buy some"}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.built++
		return &machine{plant: p, conn: c}, nil
	}}}
}

func (p *plant) count(of map[string]int) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(of)
}

type machine struct {
	plant *plant
	conn  drivers.Connection
	up    bool
}

func (m *machine) Connect(ctx context.Context) error {
	p := m.plant
	p.mu.Lock()
	dial := p.dial
	p.mu.Unlock()
	if dial != nil {
		select {
		case err := <-dial:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made[m.conn.Devices[0].Name]++
	m.up = true
	for _, d := range m.conn.Devices {
		if p.open[d.Name]++; p.open[d.Name] > 1 {
			p.twice = append(p.twice, d.Name)
		}
	}
	return nil
}

func (m *machine) Close() error {
	m.plant.mu.Lock()
	defer m.plant.mu.Unlock()
	if m.up {
		for _, d := range m.conn.Devices {
			m.plant.open[d.Name]--
		}
	}
	m.up = false
	return nil
}

func (m *machine) Write(_ context.Context, ws []drivers.Write) []error {
	return slices.Repeat([]error{errRefused}, len(ws))
}

// errRefused is what the machine says to each write.
var errRefused = errors.New("the machine takes no writes")

func (m *machine) Read(ctx context.Context, r drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	p, d := m.plant, &m.conn.Devices[r.Device]
	p.mu.Lock()
	p.reads[d.Name]++
	n, slow, busy := p.reads[d.Name], p.slow, p.busy
	silent := p.silent != nil && p.silent(d.Name)
	p.mu.Unlock()
	if silent {
		time.Sleep(300 * time.Millisecond)
		return nil, drivers.ErrDevice
	}
	if busy != nil {
		select {
		case busy <- struct{}{}:
		default:
		}
	}
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.answered != nil {
		p.mu.Lock()
		p.answered(d.Name, n)
		p.mu.Unlock()
	}
	for i := range d.Groups[r.Group].Tags {
		if d.Groups[r.Group].Options["browse"] != "" && !p.has(d.Groups[r.Group].Tags[i].Address) {
			dst = append(dst, telemetry.BadReading(i, 0, "no such node"))
			continue
		}
		value := telemetry.Int(int64(n))
		if d.Groups[r.Group].Tags[i].Address == "text" {
			p.mu.Lock()
			value = telemetry.String(p.text())
			p.mu.Unlock()
		}
		dst = append(dst, telemetry.Reading{Tag: uint32(i), Value: value, Time: time.Now().UnixMicro()})
	}
	return dst, nil
}

// gatewayBed is a running gateway over fake equipment with a broker that counts.
type gatewayBed struct {
	t      testing.TB
	plant  *plant
	broker *brokersim.Broker
	g      *Gateway
	file   string
	log    *safeBuffer
	level  []string
	stop   func() // as SIGTERM, and waits for the end

	mu   sync.Mutex
	seen map[string][]string // payloads by topic
}

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// plan is the config that a bed writes.
type plan struct {
	top     string   // further lines of the top level
	cloud   string   // further keys of the destination
	buffer  string   // further keys
	devices []string // lines of devices
	tune    func(*Gateway)
}

func device(name string, more ...string) string {
	return fmt.Sprintf(`  - {name: %s, driver: fake, url: "fake://%s", groups: [{name: g, interval: 20ms, tags: [{name: n, address: a}]}]%s}`,
		name, name, strings.Join(append([]string{""}, more...), ", "))
}

func (b *gatewayBed) write(p plan) {
	b.t.Helper()
	top := p.top
	if !strings.Contains(top, "web:") {
		top += "web: {enabled: false}\n"
	}
	text := fmt.Sprintf("gateway: shop\ngrace_time: 2s\n%sbuffer: {path: %s, max_size: 16MiB%s}\ndestinations:\n  - {name: cloud, url: \"mqtt://%s\"%s}\ndevices:\n%s\n",
		top, "data", p.buffer, b.broker.Addr(), p.cloud, strings.Join(p.devices, "\n"))
	if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// newGatewayBed starts a gateway with this plan. It ends with the test, and what it leaves behind is looked at.
func newGatewayBed(t testing.TB, p plan) *gatewayBed {
	t.Helper()
	b := &gatewayBed{t: t, plant: newPlant(), file: filepath.Join(t.TempDir(), "millrace.yaml"), log: &safeBuffer{}, seen: map[string][]string{}}
	b.broker = brokersim.New(brokersim.Options{OnPublish: func(m brokersim.Message) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen[m.Topic] = append(b.seen[m.Topic], string(m.Payload))
	}})
	if err := b.broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.broker.Stop)
	b.write(p)
	load := func() (*config.Config, error) { return config.Load(b.file, b.plant.protocols(), config.Options{}) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	b.g, err = New(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(b.log, nil)), Load: load,
		SetLogLevel: func(level string) { b.level = append(b.level, level) }})
	if err != nil {
		t.Fatal(err)
	}
	if p.tune != nil {
		p.tune(b.g)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.g.Run(ctx, context.Background()) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("log:\n%s", b.log)
		}
		for name, n := range b.plant.open {
			if n != 0 {
				t.Errorf("device %s: %d connections are open at the end", name, n)
			}
		}
		if len(b.plant.twice) > 0 {
			t.Errorf("polled over two connections at once: %q", b.plant.twice)
		}
	})
	return b
}

func (b *gatewayBed) reload(p plan) *web.Change {
	b.t.Helper()
	b.write(p)
	c, err := b.g.Reload(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// kept returns how many bytes the bed holds of what the broker got, which is more the longer a test takes.
func (b *gatewayBed) kept() (bytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, payloads := range b.seen {
		bytes += 16 * uint64(cap(payloads))
		for _, p := range payloads {
			bytes += uint64(len(p))
		}
	}
	return bytes
}

func (b *gatewayBed) refuse(p plan, want ...string) {
	b.t.Helper()
	b.write(p)
	before := b.g.Snapshot()
	c, err := b.g.Reload(b.t.Context())
	if err == nil {
		b.t.Fatalf("not refused: %s", c)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			b.t.Errorf("%q does not tell %q", err, w)
		}
	}
	after := b.g.Snapshot()
	if after.Config.Hash != before.Config.Hash || !after.Config.Since.Equal(before.Config.Since) || after.Config.Problem != err.Error() ||
		after.Config.Refused != before.Config.Refused+1 || len(after.Devices) != len(before.Devices) {
		b.t.Errorf("after a refusal: %+v, before %+v", after.Config, before.Config)
	}
}

// polled waits until each of the devices has been read n times more.
func (b *gatewayBed) polled(n int, devices ...string) {
	b.t.Helper()
	before := b.plant.count(b.plant.reads)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		now := b.plant.count(b.plant.reads)
		if !slices.ContainsFunc(devices, func(d string) bool { return now[d] < before[d]+n }) {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain for %d polls of %q: %v, then %v", n, devices, before, now)
		}
	}
}

// delivered waits until everything that was read until now has arrived, once, live and historical messages in order each; each read is
// one message. What is read meanwhile may be on its way.
func (b *gatewayBed) delivered(devices ...string) {
	b.t.Helper()
	reads, err := b.plant.count(b.plant.reads), error(nil)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = b.arrived(devices, reads); err == nil {
			return
		}
	}
	b.t.Error(err)
}

func (b *gatewayBed) arrived(devices []string, reads map[string]int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range devices {
		live, historical, all := 0, 0, map[int]bool{}
		for _, payload := range b.seen["telemetry/shop/"+d+"/g"] {
			_, value, good := strings.Cut(payload, `"values":{"n":`)
			if !good {
				continue // bad readings
			}
			n, last := 0, &live
			if strings.Contains(payload, `"historical":true`) { // a stall of the machine makes a record that
				last = &historical
			}
			if _, err := fmt.Sscanf(value, "%d}", &n); err != nil || n <= *last || all[n] {
				return fmt.Errorf("device %s: after reading %d came %s", d, *last, payload)
			}
			*last, all[n] = n, true
		}
		most := max(live, historical)
		if len(all) != most || most < reads[d]-1 { // the last may not be stored yet
			return fmt.Errorf("device %s: %d of %d readings arrived, the last of them %d", d, len(all), reads[d], most)
		}
	}
	return nil
}

// ask gets the snapshot page.
func ask(t *testing.T, address string) (body string, err error) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/api/v1/snapshot")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return string(all), err
}
