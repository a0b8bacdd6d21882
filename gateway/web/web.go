package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// freshness is how old a snapshot may be when it is served: many watchers cost as much as one.
const freshness = 200 * time.Millisecond

// views serve what there is to see of one gateway.
type views struct {
	g    Gateway
	page []byte
	csp  string

	slow     chan struct{} // answers that may wait for the store
	watching chan struct{}

	mu     sync.Mutex
	last   *Snapshot
	taken  time.Time
	acts   uint64        // people's that last is of
	taking chan struct{} // closed when the one being taken is there; nil = none is
	began  time.Time     // when that one was begun
}

func newViews(g Gateway, watches int) *views {
	return &views{g: g, slow: make(chan struct{}, askers), watching: make(chan struct{}, watches)}
}

// Handler serves the page at /, /healthz, /readyz, /metrics and what the API has to look at. The gateway's snapshot is taken
// at most five times a second; what it returns is not changed afterwards by either side. A request that reaches a loopback
// address must name a loopback host, so that no web site can read the gateway through the operator's browser (DNS rebinding).
// It is for a listener that takes most connections at once, 0 = MaxConnections; watches have half of them at most, so that the
// page and the probes find one.
func Handler(g Gateway, most int) http.Handler {
	s := newViews(g, min(watches, cmp.Or(most, MaxConnections)/2))
	s.page, s.csp = assemble()
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.servePage)
	s.routes(mux)
	return guard(checkQuery(mux))
}

// routes are the views that both the page's address and the local socket have.
func (s *views) routes(mux *http.ServeMux) {
	mux.HandleFunc("/healthz", s.serveHealth)
	mux.HandleFunc("/readyz", s.serveReady)
	mux.HandleFunc("/metrics", s.serveMetrics)
	mux.HandleFunc("GET /api/v1/snapshot", s.serveSnapshot)
	mux.HandleFunc("GET /api/v1/values", s.serveValues)
	mux.HandleFunc("GET /api/v1/schema/{name}", serveSchema)
	mux.HandleFunc("GET /api/v1/store", s.serveStore)
	mux.HandleFunc("GET /api/v1/store/quarantine", s.serveQuarantine)
}

// Run serves handler on l until ctx ends, then gives open requests a second to finish. It returns nil
// after ctx ended and the listener's error otherwise. It closes l. When it cannot accept, it logs that and tries again.
func Run(ctx context.Context, l *Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,  // no request has a body: a slow sender is not one of ours
		ReadTimeout:       10 * time.Second, //
		WriteTimeout:      30 * time.Second, // two megabytes of metrics over a poor link
		IdleTimeout:       2 * time.Minute,  // longer than any scrape interval
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          errorLog(log),
		ConnState:         l.note,
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(l)
	if stop() {
		return fmt.Errorf("serve web page on %q: %w", l.Addr(), err)
	}
	<-drained
	return nil
}

// snapshot returns one that is at most freshness old, and was begun after the last thing that a person had done.
func (s *views) snapshot() *Snapshot {
	acts := s.g.Acts().Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && s.acts >= acts && time.Since(s.taken) <= freshness {
		return s.last
	}
	for { // twice at most: what was being taken may be from before
		if s.taking == nil {
			s.taking, s.began = make(chan struct{}), time.Now()
			go s.take(s.taking)
		}
		taking, rest := s.taking, answerWithin-time.Since(s.began) // one that hangs is waited for by the first only
		s.mu.Unlock()
		select {
		case <-taking:
		case <-time.After(rest):
		}
		s.mu.Lock()
		if s.taking == taking {
			return s.hung()
		}
		if s.acts >= acts {
			return s.last
		}
	}
}

// take takes a snapshot. There is one at a time, whoever asks, even when it does not end.
func (s *views) take(done chan struct{}) {
	acts := s.g.Acts().Load()
	snap := s.g.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.taken, s.acts, s.taking = snap, time.Now(), acts, nil
	close(done)
}

// hung is what is shown of a gateway whose state cannot be taken: the last that is known of it, that, and what hangs. mu is held.
func (s *views) hung() *Snapshot {
	snap := Snapshot{}
	if s.last != nil {
		snap = *s.last
	}
	name, stalls := s.g.Stalled()
	snap.Gateway = cmp.Or(name, snap.Gateway)
	states := []State{{"process", snap.Gateway, StateHung, s.began, "taking its state takes longer than " + answerWithin.String(), "the log has a goroutine dump; restart the gateway if it lasts"}}
	for i := range stalls {
		if stalls[i].Kind != "process" {
			states = append(states, stalls[i].State())
		}
	}
	for i := range snap.States {
		if st := &snap.States[i]; !slices.ContainsFunc(states, func(o State) bool { return o.Kind == st.Kind && o.Name == st.Name && o.State == st.State }) {
			states = append(states, *st)
		}
	}
	snap.States = states
	return &snap
}

// answerWithin bounds how long an answer waits for the gateway.
const answerWithin = 3 * time.Second

// within answers with what f returns. f may wait for the store: when that hangs, the answer says so, and at most 8 wait.
func (s *views) within(w http.ResponseWriter, f func() (any, error)) {
	type result struct {
		v   any
		err error
	}
	select {
	case s.slow <- struct{}{}:
	default:
		fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d others wait for the store; ask /readyz whether it hangs", askers))
		return
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-s.slow }()
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		answer(w, r.v, r.err)
	case <-time.After(storeWithin):
		fail(w, http.StatusServiceUnavailable, errors.New("the store does not answer; ask /readyz whether it hangs"))
	}
}

// storeWithin is how long an answer waits for the store, which may be at a long commit.
const storeWithin = 15 * time.Second

func (s *views) servePage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", s.csp)
	reply(w, http.StatusOK, "text/html; charset=utf-8", s.page)
}

func (s *views) serveHealth(w http.ResponseWriter, r *http.Request) {
	h := s.snapshot().Alive()
	replyJSON(w, h.code(), h)
}

func (s *views) serveReady(w http.ResponseWriter, r *http.Request) {
	h := s.snapshot().Ready()
	replyJSON(w, h.code(), h)
}

func (s *views) serveMetrics(w http.ResponseWriter, r *http.Request) {
	var buf bytes.Buffer
	writeMetrics(&buf, s.snapshot())
	reply(w, http.StatusOK, metricsType, buf.Bytes())
}

func (s *views) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	snap := s.snapshot()
	replyJSON(w, http.StatusOK, struct {
		*Snapshot
		Summary Summary `json:"summary"`
	}{snap, snap.Summarise()})
}

func replyJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, code, "application/json", append(body, '\n'))
}

func reply(w http.ResponseWriter, code int, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // a reader that went away is no concern of ours
}

// guard sets the headers every answer has and refuses what no view needs.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, errReadOnly.Error(), http.StatusMethodNotAllowed)
		case !hostAllowed(r):
			http.Error(w, "the Host header must name localhost or a loopback address; a proxy in front must set it", http.StatusMisdirectedRequest)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// hostAllowed reports whether the request may see the gateway. On a loopback address only the machine's own
// users are meant; a foreign name that resolves to loopback is a web site trying to be one of them.
func hostAllowed(r *http.Request) bool {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		ap, err := netip.ParseAddrPort(local.String())
		if err == nil && !ap.Addr().Unmap().IsLoopback() {
			return true
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
