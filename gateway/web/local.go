package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
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
	askers       = 8               // requests at once; more are told to come again
	stall        = 5 * time.Minute // a reader that takes nothing for so long is cut off
	controlGrace = time.Second     // for open requests when the gateway stops
)

// local serves the whole API of one gateway.
type local struct {
	g       Gateway
	site    *site
	log     *slog.Logger
	busy    chan struct{}
	changes sync.Mutex // one change at a time: a retry is several steps
	open    sync.WaitGroup
	ctx     context.Context // of all requests: they end with the gateway
}

// RunLocal serves the whole API on a socket in dir until ctx ends. The caller holds the lock of the store in dir. A socket that
// cannot be opened is no reason to stop a gateway: it is logged, and RunLocal returns nil.
func RunLocal(ctx context.Context, dir string, g Gateway, log *slog.Logger) error {
	path := filepath.Join(dir, socketName)
	l, err := listenLocal(ctx, path)
	if err != nil {
		log.Warn("no local endpoint: `millrace buffer` can look into the store but change nothing while the gateway runs, and only SIGHUP reloads the config", "error", err)
		return nil
	}
	defer func() { _ = os.Remove(path) }() // closing the listener has done it already, mostly
	if err := serveLocal(ctx, l, g, log); err != nil {
		log.Warn("local endpoint ended", "socket", path, "error", err)
	}
	return nil
}

// listenLocal opens the socket. The caller holds the store's lock, so a socket that is there is stale.
func listenLocal(ctx context.Context, path string) (net.Listener, error) {
	if len(path) >= socketPath {
		return nil, fmt.Errorf("listen on %q: the path has %d bytes, a unix socket's at most %d; choose a shorter buffer.path", path, len(path), socketPath-1)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil { // nobody was accepted yet
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func serveLocal(ctx context.Context, l net.Listener, g Gateway, log *slog.Logger) error {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	c := &local{g: g, site: &site{g: g}, log: log, busy: make(chan struct{}, askers), ctx: requests}
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
	err := server.Serve(l)
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
	c.site.routes(mux)
	mux.HandleFunc("GET /api/v1/store/records", c.records)
	mux.HandleFunc("GET /api/v1/store/verify", c.verify)
	mux.HandleFunc("GET /api/v1/store/backup", c.backup)
	mux.HandleFunc("POST /api/v1/store/quarantine/retry", c.change(func(r *http.Request) (any, error) { return c.g.Buffer().Retry(r.FormValue("id")) }))
	mux.HandleFunc("POST /api/v1/store/quarantine/delete", c.change(func(r *http.Request) (any, error) {
		return nil, c.g.Buffer().DeleteQuarantined(r.FormValue("id"))
	}))
	mux.HandleFunc("POST /api/v1/store/forget", c.change(func(r *http.Request) (any, error) {
		return nil, c.g.Buffer().Forget(r.FormValue("destination"))
	}))
	mux.HandleFunc("POST /api/v1/reload", func(w http.ResponseWriter, r *http.Request) {
		change, err := c.g.Reload(context.WithoutCancel(r.Context())) // whoever asked may go away
		answer(w, change, err)
	})
	mux.HandleFunc("POST /api/v1/write", func(w http.ResponseWriter, r *http.Request) {
		done, err := c.g.Write(r.Context(), r.FormValue("device"), r.FormValue("tag"), r.FormValue("value"))
		answer(w, done, err)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.open.Add(1)
		defer c.open.Done()
		select {
		case c.busy <- struct{}{}:
			defer func() { <-c.busy }()
		default:
			fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d others are looking into the store; try again", askers))
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		r.Body = http.NoBody // everything is in the query; a ReadTimeout would also end long answers
		mux.ServeHTTP(w, r.WithContext(ctx))
	})
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
	At       int64       `json:"at"`
	Readings int         `json:"readings"`
	Gap      *buffer.Gap `json:"gap,omitempty"`
}

func (c *local) records(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	out := newLines(w)
	told, epoch := 0, "" // streams are numbered as they appear
	err = scan(r.Context(), c.g.Buffer(), q, out.alive, func(s *StoredRecord) error {
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
	out := newLines(w)
	var last time.Time
	report, err := c.g.Buffer().Verify(r.Context(), func(done, total int64) {
		if now := time.Now(); now.Sub(last) > 200*time.Millisecond {
			last = now
			out.write(&wireLine{Progress: &[2]int64{done, total}})
			out.flush()
		}
	})
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
		runtime.Gosched() // the plant is polled by the same processors
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
