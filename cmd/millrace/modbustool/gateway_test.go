package modbustool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/modbus/modbussim"
	"millrace/gateway"
	"millrace/gateway/config"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

// runGateway runs a gateway that owns the line of a device, over one path or several, and returns its config file.
func runGateway(t *testing.T, urls ...string) (file string) {
	t.Helper()
	broker := brokersim.New(brokersim.Options{})
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Stop)
	dir := t.TempDir()
	file = filepath.Join(dir, "millrace.yaml")
	reached := "url: " + urls[0]
	if len(urls) > 1 {
		reached = "urls: [" + strings.Join(urls, ", ") + "]"
	}
	text := fmt.Sprintf(`gateway: shop
web: {enabled: false}
buffer: {path: %q}
destinations: [{name: cloud, url: "mqtt://%s", topic: "t/{device}/{group}"}]
devices:
  - {name: meter, driver: modbus, %s, timeout: 300ms, groups: [{name: g, interval: 20ms, tags: [{name: a, address: "holding:100"}]}]}
`, filepath.Join(dir, "data"), broker.Addr(), reached)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, []drivers.Protocol{modbus.Protocol()}, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(t.Context(), cfg, gateway.Options{Version: "v-test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // until it has polled
		if c, err := web.Dial(t.Context(), filepath.Join(dir, "data")); err == nil {
			v, err := c.Values(t.Context(), "meter", "a", false)
			_ = c.Close()
			if err == nil && len(v) == 1 && v[0].Quality == "good" {
				return file
			}
		}
		if time.Now().After(end) {
			t.Fatal("the gateway does not poll")
		}
	}
}

// TestThroughTheGateway: on a line that a running gateway owns the tools use its connection, however the url is spelled, write
// nothing, and connect to other lines themselves.
func TestThroughTheGateway(t *testing.T) {
	sim := startSim(t)
	sim.Unit(1).SetRegisters(modbussim.Holding, 100, 0x42f6, 0xe979)
	sim.Unit(2).Identify("Acme", "PX1", "1.2")
	sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(5)})
	spare := startSim(t)
	file := runGateway(t, sim.URL(), spare.URL())
	accepted := sim.Accepted()
	spelled := sim.URL() + "/"

	out, err := run(t, "read", spelled, "holding:100", "--count", "2", "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, "through the gateway that runs on", "float32 ABCD 123.456")
	if out, err = run(t, "identify", spelled, "--unit", "2", "--config", file); err != nil {
		t.Fatal(err)
	}
	has(t, out, `vendor: "Acme"`)
	if out, err = run(t, "scan", spelled, "--units", "1-5", "--tables", "holding", "--to", "50", "--pause", "0", "--config", file); err != nil {
		t.Fatal(err)
	}
	has(t, out, "unit 1\n  holding: 0-50\nunit 2\n  holding: 0-50\n2 of 5 unit ids answer")
	if _, err = run(t, "write", spelled, "holding:100", "1", "--yes", "--config", file); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "owns this line") {
		t.Errorf("a write beside the gateway: %v", err)
	}
	if _, err = run(t, "read", spelled, "holding:1", "--unit", "5", "--config", file); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "no answer within 300ms") {
		t.Errorf("a silent unit: %v", err)
	}
	if out, err = run(t, "read", spare.URL(), "holding:100", "--config", file); err != nil {
		t.Fatal(err)
	}
	has(t, out, "through the gateway that runs on", "42F6")
	if spare.Accepted() != 0 {
		t.Error("the spare path of the gateway's line got a client of its own")
	}
	if sim.Accepted() != accepted {
		t.Errorf("%d connections beside the gateway's", sim.Accepted()-accepted)
	}
	sim.Down()
	spare.Down()
	if _, err = run(t, "read", spelled, "holding:100", "--config", file); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "through the gateway") {
		t.Errorf("a line that is down: %v", err)
	}
	other := startSim(t)
	other.Unit(1)
	if out, err = run(t, "read", other.URL(), "holding:100", "--config", file); err != nil || strings.Contains(out, "through") || other.Accepted() != 1 {
		t.Errorf("a line that the gateway does not have: %v\n%s", err, out)
	}
}
