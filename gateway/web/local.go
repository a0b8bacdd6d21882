package web

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"millrace/buffer"
)

// The local endpoint: a unix socket in the buffer's directory, for the millrace command on the same machine. It serves the
// whole API. Who may open the socket (its owner) may read every reading, delete what is in quarantine and write to equipment
// what the config allows; there is no other login.
const (
	socketName   = "control.sock"
	socketPath   = 104             // bytes that a unix socket's path may have on every system, the closing zero counted
	askers       = 8               // requests at once, watches not counted; more are told to come again
	watches      = 8               // at once, here and at the page's address each, which may have fewer
	stall        = 5 * time.Minute // a reader that takes nothing for so long is cut off
	controlGrace = time.Second     // for open requests when the gateway stops
)

// local serves the whole API of one gateway.
type local struct {
	g       Gateway
	views   *views
	log     *slog.Logger
	busy    chan struct{}
	changes sync.Mutex // one change at a time: a retry is several steps
	open    sync.WaitGroup
	ctx     context.Context // of all requests: they end with the gateway
}

// RunLocal serves the whole API on a socket in dir until ctx ends. The caller holds the lock of the store in dir. A socket that
// cannot be opened is no reason to stop a gateway: it is logged, and RunLocal returns nil. One that somebody removes is made
// again. admit says whether the process can spare a descriptor for one more connection; nil = always.
func RunLocal(ctx context.Context, dir string, g Gateway, admit func() bool, log *slog.Logger) error {
	s := &socket{path: filepath.Join(dir, socketName), bounds: Bounds{Most: askers + watches + 8, Admit: admit}, holds: g.Buffer().Holds, log: log}
	if err := s.listen(ctx); err != nil {
		log.Warn("no local endpoint: `millrace buffer` can look into the store but change nothing while the gateway runs, and only SIGHUP reloads the config", "error", err)
		return nil
	}
	if err := serveLocal(ctx, s, g, log); err != nil {
		log.Warn("local endpoint ended", "socket", s.path, "error", err)
	}
	return nil
}

// socket is the file of the local endpoint and its listener.
type socket struct {
	path   string
	bounds Bounds
	holds  func() bool // whether the directory is the gateway's own now; nil = always
	log    *slog.Logger
	l      *Listener
	file   os.FileInfo
}

// listen opens the socket. The caller holds the store's lock, so a socket that is there is stale.
func (s *socket) listen(ctx context.Context) error {
	if len(s.path) >= socketPath {
		return fmt.Errorf("listen on %q: the path has %d bytes, a unix socket's at most %d; choose a shorter buffer.path", s.path, len(s.path), socketPath-1)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", s.path)
	if err != nil {
		return err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path may be another gateway's by then
	}
	s.l = limit(l, s.bounds, s.log)
	err = os.Chmod(s.path, 0o600) // nobody was accepted yet
	if err == nil {
		s.file, err = os.Lstat(s.path)
	}
	if err != nil {
		_ = s.close()
	}
	return err
}

func (s *socket) close() error {
	if now, err := os.Lstat(s.path); err == nil && s.file != nil && os.SameFile(now, s.file) {
		_ = os.Remove(s.path)
	}
	return s.l.Close()
}

// socketEvery is how often it is looked whether the socket is still there.
const socketEvery = 2 * time.Second

// lost reports whether the socket is to be made again: it was removed, with its directory perhaps, and that is there again, or another one at whose
// socket nobody answers, as one that was taken away and is back. In a directory that is not the gateway's own nothing is made.
func (s *socket) lost() bool {
	now, err := os.Lstat(s.path)
	if err == nil && os.SameFile(now, s.file) || err != nil && !errors.Is(err, os.ErrNotExist) || s.holds != nil && !s.holds() {
		return false
	}
	if err != nil {
		return true
	}
	conn, err := net.DialTimeout("unix", s.path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}

// serve accepts until ctx ends. A socket that is lost is made again; connections that stand go on. One at which another process answers stays.
func (s *socket) serve(ctx context.Context, server *http.Server) error {
	ended := make(chan error, 1)
	begin := func() { go func(l net.Listener) { ended <- server.Serve(l) }(s.l) }
	begin()
	ticker := time.NewTicker(socketEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ticker.C:
		}
		if ctx.Err() != nil || !s.lost() {
			continue
		}
		old, file := s.l, s.file
		if s.listen(ctx) != nil {
			s.l, s.file = old, file // looked at again
			continue
		}
		_ = old.Close()
		<-ended
		s.log.Warn("the local endpoint's socket was removed; made again", "socket", s.path)
		begin()
	}
}

func serveLocal(ctx context.Context, s *socket, g Gateway, log *slog.Logger) error {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	c := &local{g: g, views: newViews(g, watches), log: log, busy: make(chan struct{}, askers), ctx: requests}
	server := &http.Server{Handler: c.handler(), ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		grace, done := context.WithTimeout(requests, controlGrace)
		defer done()
		if server.Shutdown(grace) != nil {
			cancel()
			_ = server.Close()
		}
	})
	err := s.serve(ctx, server)
	_ = s.close()
	if stop() {
		cancel()
		c.open.Wait()
		return err
	}
	<-drained
	cancel()
	c.open.Wait() // the store closes next
	return nil
}

func (c *local) handler() http.Handler {
	mux := http.NewServeMux()
	c.views.routes(mux)
	mux.HandleFunc("GET /api/v1/store/records", c.records)
	mux.HandleFunc("GET /api/v1/store/verify", c.verify)
	mux.HandleFunc("GET /api/v1/store/backup", c.backup)
	mux.HandleFunc("POST /api/v1/store/quarantine/retry", c.change(func(r *http.Request) (any, error) { return c.g.Buffer().Retry(r.FormValue("id")) }))
	mux.HandleFunc("POST /api/v1/store/quarantine/delete", c.change(func(r *http.Request) (any, error) {
		return nil, c.g.Buffer().DeleteQuarantined(r.FormValue("id"))
	}))
	mux.HandleFunc("POST /api/v1/store/forget", c.change(func(r *http.Request) (any, error) {
		return c.g.Buffer().Forget(r.FormValue("destination"))
	}))
	mux.HandleFunc("POST /api/v1/reload", func(w http.ResponseWriter, r *http.Request) {
		change, err := c.g.Reload(context.WithoutCancel(r.Context())) // whoever asked may go away
		answer(w, change, err)
	})
	mux.HandleFunc("POST /api/v1/ack", func(w http.ResponseWriter, r *http.Request) {
		seen, err := c.g.Ack(r.FormValue("by"))
		seen.Losses, seen.Changes = append([]Loss{}, seen.Losses...), append([]DeviceChange{}, seen.Changes...)
		answer(w, seen, err)
	})
	mux.HandleFunc("POST /api/v1/learned/reset", func(w http.ResponseWriter, r *http.Request) {
		was, err := c.g.ResetLearned(r.FormValue("device"), r.FormValue("by"))
		answer(w, append([]string{}, was...), err)
	})
	mux.HandleFunc("POST /api/v1/write", func(w http.ResponseWriter, r *http.Request) {
		done, err := c.g.Write(r.Context(), r.FormValue("device"), r.FormValue("tag"), r.FormValue("value"))
		answer(w, done, err)
	})
	mux.HandleFunc("POST /api/v1/call", func(w http.ResponseWriter, r *http.Request) {
		done, err := c.g.Call(r.Context(), r.FormValue("device"), r.FormValue("method"), r.Form["argument"])
		answer(w, done, err)
	})
	mux.HandleFunc("GET /api/v1/trace", c.trace)
	mux.HandleFunc("POST /api/v1/ask", func(w http.ResponseWriter, r *http.Request) {
		request, err := hex.DecodeString(r.FormValue("request"))
		if err != nil {
			answer(w, nil, fmt.Errorf("request %q: %w", r.FormValue("request"), err))
			return
		}
		done, err := c.g.Ask(r.Context(), r.FormValue("driver"), r.FormValue("url"), request)
		answer(w, done, err)
	})
	checked := checkQuery(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.open.Add(1)
		defer c.open.Done()
		if r.Method != http.MethodGet {
			defer c.g.Acts().Add(1)
		}
		if !ownBound(r) {
			select {
			case c.busy <- struct{}{}:
				defer func() { <-c.busy }()
			default:
				fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d others are looking into the store; try again", askers))
				return
			}
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		r.Body = http.NoBody // everything is in the query; a ReadTimeout would also end long answers
		checked.ServeHTTP(w, r.WithContext(ctx))
	})
}

// ownBound says whether a request takes no asker's place: probes must be answered whoever else asks, and watches have a bound of
// their own, or they would keep everybody else out.
func ownBound(r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics", "/api/v1/trace":
		return true
	case "/api/v1/values":
		return flag(r, "watch")
	}
	return false
}

// failure is the answer to what went wrong.
type failure struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(failure{err.Error()}) // a reader that went away is no concern of ours
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, err)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(stall))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (c *local) change(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.changes.Lock()
		defer c.changes.Unlock()
		v, err := f(r)
		if err == nil {
			c.log.Info("store changed by command", "what", r.URL.Path, "query", r.Form.Encode())
		}
		answer(w, v, err)
	}
}

// wireLine is one line of an answer that goes on for a while; one of its parts is set. The last line has End, so that
// an answer cut short is seen.
type wireLine struct {
	Stream   *StoredStream        `json:"stream,omitempty"` // before the first of its records
	Record   *wireRecord          `json:"record,omitempty"`
	Progress *[2]int64            `json:"progress,omitempty"`
	Report   *buffer.Verification `json:"report,omitempty"`
	End      bool                 `json:"end,omitempty"`
	Error    string               `json:"error,omitempty"` // with End
}

type wireRecord struct {
	Stream   int         `json:"stream"`
	Epoch    string      `json:"epoch,omitempty"` // when it is not that of the record before
	Seq      uint64      `json:"seq"`
	Payload  []byte      `json:"payload,omitempty"`
	At       int64       `json:"at_us"`
	Readings int         `json:"readings"`
	Gap      *buffer.Gap `json:"gap,omitempty"`
}

func (c *local) records(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	step, end := c.g.BeginReading("records")
	defer end()
	out := newLines(w)
	look := func() { step(); out.alive() }
	told, epoch := 0, "" // streams are numbered as they appear
	err = scan(r.Context(), c.g.Buffer(), q, look, func(s *StoredRecord) error {
		if s.Stream.ID == told {
			told++
			out.write(&wireLine{Stream: s.Stream})
		}
		line := &wireRecord{s.Stream.ID, "", s.Seq, s.Payload, s.At, s.Readings, s.Gap}
		if s.Epoch != epoch {
			epoch, line.Epoch = s.Epoch, s.Epoch
		}
		out.write(&wireLine{Record: line})
		return out.err
	})
	out.end(nil, err)
}

func parseQuery(r *http.Request) (q Query, err error) {
	number := func(name string) uint64 {
		n, bad := strconv.ParseUint(r.FormValue(name), 10, 64)
		if r.FormValue(name) != "" && bad != nil {
			err = errors.Join(err, bad)
		}
		return n
	}
	q = Query{From: number("from"), To: number("to"), Device: r.FormValue("device")}
	for name, at := range map[string]*int64{"from_time": &q.FromTime, "to_time": &q.ToTime} {
		if text := r.FormValue(name); text != "" {
			n, bad := strconv.ParseInt(text, 10, 64)
			*at, err = n, errors.Join(err, bad)
		}
	}
	return q, err
}

func (c *local) verify(w http.ResponseWriter, r *http.Request) {
	step, end := c.g.BeginReading("verify")
	defer end()
	out := newLines(w)
	var last time.Time
	report, err := c.g.Buffer().Verify(r.Context(), func(done, total int64) {
		step()
		if now := time.Now(); now.Sub(last) > 200*time.Millisecond {
			last = now
			out.write(&wireLine{Progress: &[2]int64{done, total}})
			out.flush()
		}
	})
	if report != nil {
		for _, l := range c.g.Snapshot().Losses {
			if text := l.ByDamage(); text != "" {
				report.Unseen = append(report.Unseen, text)
			}
		}
	}
	out.end(report, err)
}

// lines writes an answer line by line.
type lines struct {
	w    *bufio.Writer
	enc  *json.Encoder
	rc   *http.ResponseController
	n    int
	told time.Time // when the reader was last sent something
	err  error
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	buf := bufio.NewWriterSize(w, 64<<10)
	l := &lines{w: buf, enc: json.NewEncoder(buf), rc: http.NewResponseController(w), told: time.Now()}
	l.extend()
	return l
}

// extend gives the reader time again.
func (l *lines) extend() { _ = l.rc.SetWriteDeadline(time.Now().Add(stall)) }

func (l *lines) write(line *wireLine) {
	if l.err != nil {
		return
	}
	if l.n++; l.n%16 == 0 {
		l.extend()
	}
	l.err = l.enc.Encode(line)
}

// alive writes an empty line when nothing has reached the reader for maxSilence: a query that few records match may read
// gigabytes for nothing, and a client gives up a gateway that is silent.
func (l *lines) alive() {
	if time.Since(l.told) < maxSilence {
		return
	}
	l.write(&wireLine{})
	if l.err == nil {
		l.flush()
	}
}

func (l *lines) flush() {
	l.err = errors.Join(l.err, l.w.Flush(), l.rc.Flush())
	l.told = time.Now()
}

func (l *lines) end(report *buffer.Verification, err error) {
	last := wireLine{Report: report, End: true}
	if err != nil {
		last.Error = err.Error()
	}
	l.write(&last)
	if l.err == nil {
		l.flush()
	}
}
