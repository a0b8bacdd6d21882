package web

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestHungIsNamed: while no snapshot can be taken, the answers name the gateway and what hangs since when, and only the first waits.
func TestHungIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		h := Handler(showing(func() *Snapshot { <-free; return &Snapshot{} }), 0)
		for i, path := range []string{"/healthz", "/readyz", "/metrics", "/api/v1/snapshot"} {
			began := time.Now()
			raw, err := io.ReadAll(request(h, "GET", path).Body)
			if err != nil {
				t.Fatal(err)
			}
			body := strings.ReplaceAll(string(raw), `\"`, `"`)
			if took := time.Since(began); i == 0 && took != answerWithin || i > 0 && took != 0 {
				t.Errorf("%s took %v", path, took)
			}
			if i < 2 && (!strings.Contains(body, `process "press-shop": hung since 2000-01-01T00:00:00Z`) || !strings.Contains(body, `store "/data": hung since 2001-09-09T01:46:40Z: writing its files`)) {
				t.Errorf("%s: %s", path, body)
			}
			if i >= 2 && !strings.Contains(body, "/data") {
				t.Errorf("%s: %s", path, body)
			}
		}
		close(free)
	})
}
