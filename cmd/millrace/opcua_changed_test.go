package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
	"millrace/gateway/web"
)

// TestChangedServerIsSaid: that the server numbers its namespaces in another way is said for as long as it does, over a restart and a reload of the gateway, until
// somebody acknowledges it, and the values are uncertain for as long.
func TestChangedServerIsSaid(t *testing.T) {
	s := toolServerWith(t, opcuasim.Options{Namespaces: []string{"urn:a", "urn:b"}})
	s.AddNode("urn:b", "s=fixed", func() any { return int32(7) })
	dir := filepath.Join(t.TempDir(), "data")
	file, stop := running(t, dir)
	device := fmt.Sprintf("  - name: cnc-1\n    driver: opcua\n    url: %s\n    security_policy: none\n    retry: {min: 100ms, max: 200ms}\n    groups:\n      - name: all\n        interval: 100ms\n"+
		"        tags:\n          - {name: a, address: \"ns=2;s=fixed\"}\n", s.Endpoint())
	writeFile(t, file, strings.Replace(readFile(t, file), "devices:\n", "devices:\n"+device, 1))
	until(t, "is in force", "reload", "--config", file)
	until(t, `namespaces: "2=urn:a"`, "learned", "--config", file)
	s.SetNamespaces("urn:b", "urn:a")
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	says := func(want bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); changedIn(t, dir) != want; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("changed: %v", !want)
			}
		}
	}
	says(true)
	stop()
	stop = runningOn(t, file, dir)
	defer stop()
	says(true)
	writeFile(t, file, strings.Replace(readFile(t, file), "interval: 100ms\n        tags:\n          - {name: a", "interval: 200ms\n        tags:\n          - {name: a", 1))
	until(t, "is in force", "reload", "--config", file)
	says(true)
	until(t, "7,,uncertain,", "values", "cnc-1", "-o", "csv", "--config", file)
	until(t, `acknowledged: device "cnc-1" has changed: the server numbers`, "ack", "--config", file)
	until(t, "nothing was lost or has changed that is not acknowledged", "ack", "--config", file)
	says(false)
	until(t, "7,,good,", "values", "cnc-1", "-o", "csv", "--config", file)
	until(t, `namespaces: "2=urn:b"`, "learned", "--config", file)
}

// changedIn reports whether the gateway of a store says that the server has changed, and in what.
func changedIn(t *testing.T, dir string) bool {
	t.Helper()
	c, err := web.Dial(t.Context(), dir)
	if err != nil {
		return false
	}
	defer c.Close()
	snap, err := c.Snapshot(t.Context())
	return err == nil && slices.ContainsFunc(snap.States, func(st web.State) bool {
		return strings.HasPrefix(st.String(), `device "cnc-1": changed since `) && strings.Contains(st.String(), `namespace 2 is "urn:b" now, and was "urn:a"`)
	})
}
