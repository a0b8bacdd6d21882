package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
	"millrace/gateway/link/mqtt/brokersim"
)

const ruledConfig = `devices:
  - name: cnc-1
    driver: opcua
    url: %s
    security_policy: none
    retry: {min: 100ms, max: 200ms}
    groups:
      - {name: all, interval: 100ms, browse: "/Objects/2:Machine"}
`

// TestDeviceOfARule: of a device whose rule selects nothing the commands say so.
func TestDeviceOfARule(t *testing.T) {
	s := toolServerWith(t, opcuasim.Options{Namespaces: []string{"urn:a"}})
	dir := filepath.Join(t.TempDir(), "data")
	file, _ := running(t, dir)
	text, _, _ := strings.Cut(readFile(t, file), "devices:\n")
	writeFile(t, file, text+fmt.Sprintf(ruledConfig, s.Endpoint()))
	until(t, "is in force", "reload", "--config", file)
	for _, of := range []string{"table", "json", "csv"} { // the device is seen in each, also among what is bad
		row := map[string]string{"table": "cnc-1   all                      bad           the rule", "json": `"tag":"","value":null,"quality":"bad","reason":"the rule of group \"all\"`, "csv": `cnc-1,all,,,,bad,"the rule of group ""all""`}[of]
		told(t, row, "values", "-o", of, "--config", file)
		told(t, row, "values", "cnc-1", "--bad", "-o", of, "--config", file)
	}
	told(t, `device "cnc-1" has no tags yet`, "values", "cnc-1/x", "--config", file)
	told(t, `device "cnc-1": down since`, "health", "--config", file)
	for _, name := range []string{"Speed", "Load"} {
		s.AddPath("/Objects/2:Machine/2:"+name, "", func() any { return 1.5 })
	}
	until(t, "is in force", "reload", "--config", file)
	until(t, "Load", "values", "cnc-1", "--config", file)
	s.RemovePath("/Objects/2:Machine/2:Load")
	until(t, "is in force", "reload", "--config", file)
	told(t, "# dropped, because their nodes are gone: 1 tag that its rules had selected\n", "learned", "cnc-1", "--reset", "--config", file)
	if _, out := millrace("learned", "cnc-1", "--reset", "--config", file); strings.Contains(out, "dropped, because") {
		t.Errorf("dropped once more: %s", out)
	}
}

// told waits until a command says something, on standard error too, whatever its exit code.
func told(t *testing.T, want string, args ...string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out := ""
		said := stderrOf(t, func() { _, out = millrace(args...) })
		if strings.Contains(said+out, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q never says %q:\n%s%s", args, want, said, out)
		}
	}
}

// delivering runs a gateway with these devices, and a broker that hands on what it is sent.
func delivering(t *testing.T, take func(brokersim.Message), devices string) (broker *brokersim.Broker, file, dir string, stop func()) {
	t.Helper()
	broker = brokersim.New(brokersim.Options{OnPublish: take})
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "data")
	file = filepath.Join(t.TempDir(), "millrace.yaml")
	text, _, _ := strings.Cut(fmt.Sprintf(runningConfig, dir, broker.Addr(), ""), "devices:\n")
	writeFile(t, file, text+devices)
	return broker, file, dir, runningOn(t, file, dir)
}

// TestGapOfARule: a device that had no tags until its rule selected some has missed nothing; when it selects others, the gap says so.
func TestGapOfARule(t *testing.T) {
	s := toolServerWith(t, opcuasim.Options{Namespaces: []string{"urn:a"}})
	add := func(name string) { s.AddPath("/Objects/2:Machine/2:"+name, "", func() any { return 1.5 }) }
	add("Speed")
	var mu sync.Mutex
	gaps := ""
	broker, file, _, stop := delivering(t, func(m brokersim.Message) {
		if strings.Contains(m.Topic, "/_gap") {
			mu.Lock()
			defer mu.Unlock()
			gaps += string(m.Payload) + "\n"
		}
	}, fmt.Sprintf(ruledConfig, s.Endpoint()))
	defer broker.Stop()
	until(t, "1.5", "values", "cnc-1", "--config", file)
	said := func() string {
		mu.Lock()
		defer mu.Unlock()
		return gaps
	}
	if time.Sleep(500 * time.Millisecond); said() != "" {
		t.Errorf("at the first selection: %s", said())
	}
	add("Load")
	until(t, "is in force", "reload", "--config", file)
	until(t, "Load", "values", "cnc-1", "--config", file)
	until(t, "1.5", "values", "cnc-1/Load", "--config", file)
	for end := time.Now().Add(20 * time.Second); !strings.Contains(said(), "its browse rule selected other tags, and it was not connected again yet"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("gaps: %s", said())
		}
	}
	stop()
	if strings.Contains(said(), "reloaded") || strings.Contains(said(), "did not run") {
		t.Errorf("gaps: %s", said())
	}
}
