package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestWhoTakesAnAskersPlace: with all places of askers taken probes are answered and nothing else gets in by calling itself a
// watch; with all places of watches taken a trace is refused.
func TestWhoTakesAnAskersPlace(t *testing.T) {
	f := newFake(t, 1)
	f.table, _ = plantTable()
	c := &local{g: f, views: newViews(f, watches), log: mute, busy: make(chan struct{}, askers), ctx: t.Context()}
	h := c.handler()
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	code := func(path string) int { return ask(path).Code }
	for range askers {
		c.busy <- struct{}{}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if got := ask(path).Body.String(); strings.Contains(got, "try again") { // what it says of the plant is another matter
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, path := range []string{"/api/v1/snapshot?watch=1", "/api/v1/schema/store.json?watch=1", "/api/v1/values"} {
		if got := code(path); got != http.StatusServiceUnavailable {
			t.Errorf("%s: %d, want 503", path, got)
		}
	}
	for range askers {
		<-c.busy
	}
	for range watches {
		c.views.watching <- struct{}{}
	}
	if got := code("/api/v1/trace?device=press-1"); got != http.StatusServiceUnavailable {
		t.Errorf("trace beside %d watches: %d, want 503", watches, got)
	}
}

// TestEmptyQuarantineIsAList: a reader loops over it without a case for null.
func TestEmptyQuarantineIsAList(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(newFake(t, 1), 0).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/api/v1/store/quarantine", nil))
	if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != "[]" {
		t.Errorf("%d %s, want []", w.Code, got)
	}
}

// TestWatchesLeaveHalfOfThePage: with few descriptors watches take at most half of the page's connections, and the rest answers.
func TestWatchesLeaveHalfOfThePage(t *testing.T) {
	for most, want := range map[int]int{4: 2, 5: 2, 8: 4, 16: 8, 64: 8, 0: 8} {
		f := newFake(t, 1)
		f.table, _ = plantTable()
		l, err := Listen(t.Context(), "127.0.0.1:0", Bounds{Most: most}, mute)
		if err != nil {
			t.Fatal(err)
		}
		page := httptest.NewUnstartedServer(Handler(f, l.Most()))
		page.Listener.Close()
		page.Listener = l
		page.Start()
		code := func(path string) int {
			r, err := page.Client().Get(page.URL + path)
			if err != nil {
				t.Fatalf("%d connections: %v", most, err)
			}
			t.Cleanup(func() { _ = r.Body.Close() })
			return r.StatusCode
		}
		watching := 0
		for range watches {
			if code("/api/v1/values?watch=1") != http.StatusOK {
				break
			}
			watching++
		}
		if watching != want {
			t.Errorf("%d connections: %d watches, want %d", most, watching, want)
		}
		if got := code("/metrics"); got != http.StatusOK {
			t.Errorf("%d connections, %d watches: /metrics answers %d", most, watching, got)
		}
		page.CloseClientConnections()
		page.Close()
	}
}
