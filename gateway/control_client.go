package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"millrace/buffer"
)

// Bounds of what a client takes from the other side.
const (
	maxAnswer  = 64 << 20 // bytes of one answer that is read whole
	maxLine    = 64 << 20 // bytes of one line: a record of 16 MiB in base64, with room
	maxFailure = 1 << 20  // bytes of why not: a hundred mistakes of a config
)

// client is a Store behind the endpoint of the gateway that runs on it.
type client struct {
	http *http.Client
	dir  string
}

// dialControl returns the store behind a directory's endpoint, or nil when nobody answers there.
func dialControl(ctx context.Context, dir string) *client {
	path := filepath.Join(dir, socketName)
	var d net.Dialer
	c := &client{dir: dir, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}}
	try, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := d.DialContext(try, "unix", path)
	if err != nil {
		return nil
	}
	_ = conn.Close()
	return c
}

// ErrNoGateway means that nobody answers at a store's local endpoint.
var ErrNoGateway = errors.New("no gateway answers")

// AskReload asks the gateway that runs on the store in dir to reload its config. An error is the gateway's own words for
// why it did not, or ErrNoGateway.
func AskReload(ctx context.Context, dir string) (*Change, error) {
	c := dialControl(ctx, dir)
	if c == nil {
		return nil, fmt.Errorf("reload config: %w at %q; is it running, is this its store, and are you its user?", ErrNoGateway, filepath.Join(dir, socketName))
	}
	defer func() { _ = c.Close() }()
	var change Change
	if err := c.get(ctx, http.MethodPost, "reload", nil, &change); err != nil {
		return nil, err
	}
	return &change, nil
}

func (c *client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// ask sends a request and returns the answer, or the gateway's own words for why not.
func (c *client) ask(ctx context.Context, method, path string, values url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://store/v1/"+path+"?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway that runs on %q: %w", c.dir, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxFailure)).Decode(&f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("the gateway that runs on %q answers %s", c.dir, resp.Status)
	}
	return nil, errors.New(f.Error)
}

func (c *client) get(ctx context.Context, method, path string, values url.Values, v any) error {
	resp, err := c.ask(ctx, method, path, values)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v); err != nil {
		return fmt.Errorf("read the answer of the gateway that runs on %q: %w", c.dir, err)
	}
	return nil
}

func (c *client) Status(ctx context.Context) (*StoreStatus, error) {
	var s StoreStatus
	return &s, c.get(ctx, http.MethodGet, "status", nil, &s)
}

func (c *client) Quarantine(ctx context.Context) (q []*buffer.Quarantined, err error) {
	return q, c.get(ctx, http.MethodGet, "quarantine", nil, &q)
}

func (c *client) Retry(ctx context.Context, id string) (seq uint64, err error) {
	return seq, c.get(ctx, http.MethodPost, "quarantine/retry", url.Values{"id": {id}}, &seq)
}

func (c *client) Delete(ctx context.Context, id string) error {
	var none any
	return c.get(ctx, http.MethodPost, "quarantine/delete", url.Values{"id": {id}}, &none)
}

func (c *client) Forget(ctx context.Context, destination string) error {
	var none any
	return c.get(ctx, http.MethodPost, "forget", url.Values{"destination": {destination}}, &none)
}

func (c *client) Scan(ctx context.Context, q Query, f func(*StoredRecord) error) error {
	values := url.Values{"from": {strconv.FormatUint(q.From, 10)}, "to": {strconv.FormatUint(q.To, 10)}, "device": {q.Device}}
	if q.FromTime != 0 {
		values.Set("from_time", strconv.FormatInt(q.FromTime, 10))
	}
	if q.ToTime != 0 {
		values.Set("to_time", strconv.FormatInt(q.ToTime, 10))
	}
	_, err := c.lines(ctx, "records", values, recordsOf(f))
	return err
}

// recordsOf turns lines into records for f.
func recordsOf(f func(*StoredRecord) error) func(*wireLine) error {
	var out StoredRecord
	var streams []*StoredStream
	return func(l *wireLine) error {
		if l.Stream != nil {
			streams = append(streams, l.Stream)
		}
		r := l.Record
		if r == nil {
			return nil
		}
		if r.Stream < 0 || r.Stream >= len(streams) {
			return fmt.Errorf("record %d is of stream %d, which was not told; is the gateway of another version?", r.Seq, r.Stream)
		}
		out = StoredRecord{Stream: streams[r.Stream], Seq: r.Seq, Payload: r.Payload, At: r.At, Readings: r.Readings, Gap: r.Gap}
		return f(&out)
	}
}

func (c *client) Verify(ctx context.Context, progress func(done, total int64)) (*buffer.Verification, error) {
	return c.lines(ctx, "verify", nil, func(l *wireLine) error {
		if p := l.Progress; p != nil && progress != nil {
			progress(p[0], p[1])
		}
		return nil
	})
}

// lines reads an answer line by line, and fails when its end is missing.
func (c *client) lines(ctx context.Context, path string, values url.Values, f func(*wireLine) error) (*buffer.Verification, error) {
	resp, err := c.ask(ctx, http.MethodGet, path, values)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	report, err := readLines(resp.Body, f)
	if err != nil {
		err = fmt.Errorf("from the gateway that runs on %q: %w", c.dir, err)
	}
	return report, err
}

// readLines reads an answer line by line and returns what its end says.
func readLines(r io.Reader, f func(*wireLine) error) (*buffer.Verification, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	for in.Scan() {
		var l wireLine
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("read its answer: %w", err)
		}
		switch {
		case l.End && l.Error != "":
			return l.Report, errors.New(l.Error)
		case l.End:
			return l.Report, nil
		}
		if err := f(&l); err != nil {
			return nil, err
		}
	}
	err := in.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("its answer is cut short: %w; it may have stopped", err)
}
