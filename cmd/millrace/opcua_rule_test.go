package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// TestDeviceOfARule: of a device whose rule selects nothing the commands say so.
func TestDeviceOfARule(t *testing.T) {
	s := toolServerWith(t, opcuasim.Options{Namespaces: []string{"urn:a"}})
	dir := filepath.Join(t.TempDir(), "data")
	file, _ := running(t, dir)
	device := fmt.Sprintf("devices:\n  - name: cnc-1\n    driver: opcua\n    url: %s\n    security_policy: none\n    retry: {min: 100ms, max: 200ms}\n    groups:\n"+
		"      - {name: all, interval: 100ms, browse: \"/Objects/2:Machine\"}\n", s.Endpoint())
	text, _, _ := strings.Cut(readFile(t, file), "devices:\n")
	writeFile(t, file, text+device)
	until(t, "is in force", "reload", "--config", file)
	told(t, `show values: device "cnc-1" has no tags yet: its rule has not found any`, "values", "--config", file)
	told(t, `show values: device "cnc-1" has no tags yet: its rule has not found any`, "values", "cnc-1", "--config", file)
	told(t, `device "cnc-1": down since`, "health", "--config", file)
	for _, name := range []string{"Speed", "Load"} {
		s.AddPath("/Objects/2:Machine/2:"+name, "", func() any { return 1.5 })
	}
	until(t, "is in force", "reload", "--config", file)
	until(t, "Load", "values", "cnc-1", "--config", file)
	s.RemovePath("/Objects/2:Machine/2:Load")
	until(t, "is in force", "reload", "--config", file)
	told(t, "forgotten, and learned anew:\n# dropped, because their nodes are gone: 1 tag that its rules had selected\n", "learned", "cnc-1", "--reset", "--config", file)
	told(t, "# device \"cnc-1\": nothing was learned\n", "learned", "cnc-1", "--reset", "--config", file)
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
