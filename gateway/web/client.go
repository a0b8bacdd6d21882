package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
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

// waits are the time limits of a client: a gateway that does not answer must not keep a command waiting.
type waits struct {
	dial   time.Duration
	answer time.Duration // for the first byte of an answer
	idle   time.Duration // between two bytes of a long one
}

// clientWaits: a reload of a large config takes some seconds; a long answer shows life every maxSilence.
var clientWaits = waits{dial: 3 * time.Second, answer: 30 * time.Second, idle: time.Minute}

// Client asks a running gateway: through the socket in its store's directory, where it has the whole API and is a Store, too, or
// at the page's address, which only shows.
type Client struct {
	http    *http.Client
	network string
	address string // the socket's path, or the page's host:port
	name    string // of the gateway in errors
}

// ErrNoGateway means that nobody answers at a store's local endpoint.
var ErrNoGateway = errors.New("no gateway answers")

// ErrStopped means that the gateway stopped while it answered.
var ErrStopped = errors.New("the gateway has stopped")

// Refusal is an answer other than 200, in the gateway's own words.
type Refusal struct {
	Code int // of HTTP
	Text string
}

// Error returns the words.
func (r *Refusal) Error() string { return r.Text }

// Dial returns a client of the gateway that runs on the store in dir. Errors: ErrNoGateway.
func Dial(ctx context.Context, dir string) (*Client, error) {
	return dial(ctx, dir, clientWaits)
}

func dial(ctx context.Context, dir string, wait waits) (*Client, error) {
	path := filepath.Join(dir, socketName)
	c := newClient("unix", path, fmt.Sprintf("the gateway that runs on %q", dir), wait)
	if err := c.look(ctx, wait.dial); err != nil {
		return nil, fmt.Errorf("%w at %q (%w); is it running, is this its store, and are you its user?", ErrNoGateway, path, err)
	}
	return c, nil
}

// DialPage returns a client of the gateway whose page is at a host:port; it refuses what changes something. Errors: ErrNoGateway.
func DialPage(ctx context.Context, address string) (*Client, error) {
	c := newClient("tcp", address, fmt.Sprintf("the gateway at %q", address), clientWaits)
	if err := c.look(ctx, clientWaits.dial); err != nil {
		return nil, fmt.Errorf("%w at %q (%w); is it running, and is this the address of its page?", ErrNoGateway, address, err)
	}
	return c, nil
}

func newClient(network, address, name string, wait waits) *Client {
	c := &Client{network: network, address: address, name: name}
	open := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := c.reach(ctx, wait.dial)
		if err != nil {
			return nil, err
		}
		return &idleConn{conn, wait.idle}, nil
	}
	c.http = &http.Client{Transport: &http.Transport{DialContext: open, ResponseHeaderTimeout: wait.answer}}
	return c
}

// look says whether somebody answers.
func (c *Client) look(ctx context.Context, wait time.Duration) error {
	conn, err := c.reach(ctx, wait)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

func (c *Client) reach(ctx context.Context, wait time.Duration) (net.Conn, error) {
	var d net.Dialer
	return reach(ctx, wait, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, c.network, c.address) })
}

// reach waits so long for a connection, and a quarter longer: where the disk hangs on which the socket lies, not even a context ends the look for it.
func reach(ctx context.Context, wait time.Duration, look func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	type reached struct {
		conn net.Conn
		err  error
	}
	done := make(chan reached, 1)
	go func() {
		conn, err := look(ctx)
		done <- reached{conn, err}
	}()
	late := time.NewTimer(wait + wait/4)
	defer late.Stop()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-late.C:
		return nil, errors.New("its disk does not answer")
	}
}

// idleConn gives up a connection on which nothing comes for a while.
type idleConn struct {
	net.Conn
	wait time.Duration
}

// Read bounds the wait.
func (c *idleConn) Read(p []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(c.wait))
	return c.Conn.Read(p)
}

// Reload asks the gateway to load its config again. An error is the gateway's own words for why it did not.
func (c *Client) Reload(ctx context.Context) (*Change, error) {
	var change Change
	return &change, c.get(ctx, http.MethodPost, "reload", nil, &change)
}

// Write asks the gateway to write a value to equipment.
func (c *Client) Write(ctx context.Context, device, tag, value string) (*Written, error) {
	var w Written
	return &w, c.get(ctx, http.MethodPost, "write", url.Values{"device": {device}, "tag": {tag}, "value": {value}}, &w)
}

// Call asks the gateway to call a method of equipment.
func (c *Client) Call(ctx context.Context, device, method string, arguments []string) (*Called, error) {
	var called Called
	return &called, c.get(ctx, http.MethodPost, "call", url.Values{"device": {device}, "method": {method}, "argument": arguments}, &called)
}

// Ack says that a person, who, has seen what was lost and which devices have changed, and returns what that was.
func (c *Client) Ack(ctx context.Context, who string) (seen Seen, err error) {
	return seen, c.get(ctx, http.MethodPost, "ack", url.Values{"by": {who}}, &seen)
}

// ResetLearned has forgotten what was learned of a device, because a person, who, wants it, and returns what that was.
func (c *Client) ResetLearned(ctx context.Context, device, who string) (was []string, err error) {
	return was, c.get(ctx, http.MethodPost, "learned/reset", url.Values{"device": {device}, "by": {who}}, &was)
}

// Ask passes a request that only reads on to the line of a url, if the gateway has it: see Gateway.Ask.
func (c *Client) Ask(ctx context.Context, driver, line string, request []byte) (*Asked, error) {
	var a Asked
	return &a, c.get(ctx, http.MethodPost, "ask", url.Values{"driver": {driver}, "url": {line}, "request": {hex.EncodeToString(request)}}, &a)
}

// Trace calls f with each exchange on the line of a device, until f fails, ctx ends or the gateway exchanges the line. Errors:
// ErrStopped.
func (c *Client) Trace(ctx context.Context, device string, f func(*Exchange) error) error {
	return c.stream(ctx, "trace", url.Values{"device": {device}}, func(line []byte) error {
		var e Exchange
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the answer of %s: %w", c.name, err)
		}
		return f(&e)
	})
}

// Snapshot returns the state of the whole gateway.
func (c *Client) Snapshot(ctx context.Context) (*Snapshot, error) {
	var s Snapshot
	return &s, c.get(ctx, http.MethodGet, "snapshot", nil, &s)
}

// Values returns the last readings of a device's tags, "" for all devices, or of one tag.
func (c *Client) Values(ctx context.Context, device, tag string, bad bool) (list []Value, err error) {
	return list, c.get(ctx, http.MethodGet, "values", valuesQuery(device, tag, bad), &list)
}

func valuesQuery(device, tag string, bad bool) url.Values {
	q := url.Values{"device": {device}, "tag": {tag}}
	if bad {
		q.Set("bad", "1")
	}
	return q
}

// Watch calls f with each reading that comes, until f fails, ctx ends or the gateway stops. Errors: ErrStopped.
func (c *Client) Watch(ctx context.Context, device, tag string, bad bool, f func(*Value) error) error {
	q := valuesQuery(device, tag, bad)
	q.Set("watch", "1")
	return c.stream(ctx, "values", q, func(line []byte) error {
		var v Value
		if err := decode(bytes.NewReader(line), &v); err != nil {
			return fmt.Errorf("read the answer of %s: %w", c.name, err)
		}
		return f(&v)
	})
}

// stream calls f with each line of an answer that has no end.
func (c *Client) stream(ctx context.Context, path string, q url.Values, f func(line []byte) error) error {
	resp, err := c.ask(ctx, http.MethodGet, path, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 64<<10), maxLine)
	for in.Scan() {
		if len(in.Bytes()) == 0 {
			continue
		}
		if err := f(in.Bytes()); err != nil {
			return err
		}
	}
	if c.stopped(ctx) {
		return ErrStopped
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// stopped reports whether no gateway runs any more: an answer that ends does not tell why.
func (c *Client) stopped(ctx context.Context) bool {
	return c.look(ctx, clientWaits.dial) != nil && ctx.Err() == nil
}

// Close ends the client.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// ask sends a request and returns the answer, or the gateway's own words for why not.
func (c *Client) ask(ctx context.Context, method, path string, values url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost/api/v1/"+path+"?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w; if it does not answer, look at its log, or restart it: what it keeps is on disk", c.name, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxFailure)).Decode(&f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("%s answers %s", c.name, resp.Status)
	}
	return nil, &Refusal{resp.StatusCode, f.Error}
}

func (c *Client) get(ctx context.Context, method, path string, values url.Values, v any) error {
	resp, err := c.ask(ctx, method, path, values)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := decode(io.LimitReader(resp.Body, maxAnswer), v); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.name, err)
	}
	return nil
}

// decode reads one JSON value. A Value's number stays as it is written (json.Number): a float64 would lose a 64-bit counter's
// last digits.
func decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.UseNumber()
	return d.Decode(v)
}

// Status is Store.Status.
func (c *Client) Status(ctx context.Context) (*StoreStatus, error) {
	var s StoreStatus
	return &s, c.get(ctx, http.MethodGet, "store", nil, &s)
}

// Quarantine is Store.Quarantine.
func (c *Client) Quarantine(ctx context.Context) (q []*buffer.Quarantined, err error) {
	return q, c.get(ctx, http.MethodGet, "store/quarantine", nil, &q)
}

// Retry is Store.Retry.
func (c *Client) Retry(ctx context.Context, id string) (seq uint64, err error) {
	return seq, c.get(ctx, http.MethodPost, "store/quarantine/retry", url.Values{"id": {id}}, &seq)
}

// Delete is Store.Delete.
func (c *Client) Delete(ctx context.Context, id string) error {
	var none any
	return c.get(ctx, http.MethodPost, "store/quarantine/delete", url.Values{"id": {id}}, &none)
}

// Forget is Store.Forget.
func (c *Client) Forget(ctx context.Context, destination string) (gone buffer.Forgotten, err error) {
	err = c.get(ctx, http.MethodPost, "store/forget", url.Values{"destination": {destination}}, &gone)
	return gone, err
}

// Scan is Store.Scan.
func (c *Client) Scan(ctx context.Context, q Query, f func(*StoredRecord) error) error {
	values := url.Values{"from": {strconv.FormatUint(q.From, 10)}, "to": {strconv.FormatUint(q.To, 10)}, "device": {q.Device}}
	if q.FromTime != 0 {
		values.Set("from_time", strconv.FormatInt(q.FromTime, 10))
	}
	if q.ToTime != 0 {
		values.Set("to_time", strconv.FormatInt(q.ToTime, 10))
	}
	_, err := c.lines(ctx, "store/records", values, recordsOf(f))
	return err
}

// recordsOf turns lines into records for f.
func recordsOf(f func(*StoredRecord) error) func(*wireLine) error {
	var out StoredRecord
	var streams []*StoredStream
	var epoch string
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
		if r.Epoch != "" {
			epoch = r.Epoch
		}
		out = StoredRecord{Stream: streams[r.Stream], Epoch: epoch, Seq: r.Seq, Payload: r.Payload, At: r.At, Readings: r.Readings, Gap: r.Gap}
		return f(&out)
	}
}

// Verify is Store.Verify.
func (c *Client) Verify(ctx context.Context, progress func(done, total int64)) (*buffer.Verification, error) {
	return c.lines(ctx, "store/verify", nil, func(l *wireLine) error {
		if p := l.Progress; p != nil && progress != nil {
			progress(p[0], p[1])
		}
		return nil
	})
}

// lines reads an answer line by line, and fails when its end is missing.
func (c *Client) lines(ctx context.Context, path string, values url.Values, f func(*wireLine) error) (*buffer.Verification, error) {
	resp, err := c.ask(ctx, http.MethodGet, path, values)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	report, err := readLines(resp.Body, f)
	if err != nil {
		err = fmt.Errorf("from %s: %w", c.name, err)
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
