package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestListenerIsBounded: of 400 connections 64 are taken, the others are closed at once and counted, and one that ends
// makes space for another.
func TestListenerIsBounded(t *testing.T) {
	const peers = 400
	var text bytes.Buffer
	l, err := Listen(t.Context(), "127.0.0.1:0", Bounds{}, slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan net.Conn, peers)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			taken <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var conns []net.Conn
	for range peers {
		conns = append(conns, dial())
	}
	for i, c := range conns[MaxConnections:] {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("peer %d of those too many was not closed: %v", i, err)
		}
	}
	if l.Open() != MaxConnections || l.Refused() != peers-MaxConnections || len(taken) != MaxConnections {
		t.Errorf("%d taken, %d open, %d refused", len(taken), l.Open(), l.Refused())
	}
	one := <-taken
	_, _ = one.Close(), one.Close() // the HTTP server closes twice, too
	if l.Open() != MaxConnections-1 {
		t.Errorf("%d open after one was closed twice", l.Open())
	}
	dial()
	for range MaxConnections {
		defer (<-taken).Close() // blocks until the new one is among them
	}
	_ = l.Close()
	<-ended
	if n := strings.Count(text.String(), "closed at once"); n == 0 {
		t.Errorf("%d lines in the log", n)
	}
}

// TestRunRefusesTheSixtyFifth: a page that is busy to its bound answers again as soon as one request is done.
func TestRunRefusesTheSixtyFifth(t *testing.T) {
	release, begun := make(chan struct{}), make(chan struct{}, MaxConnections)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "done")
	})
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Listen(ctx, "127.0.0.1:0", Bounds{}, mute)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, l, slow, mute) }()
	defer func() { cancel(); <-ended }()
	get := func(path string) error {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + l.Addr().String() + path)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		return err
	}
	done := make(chan error, MaxConnections)
	for range MaxConnections {
		go func() { done <- get("/slow") }()
	}
	for range MaxConnections {
		<-begun
	}
	if get("/") == nil || l.Refused() == 0 {
		t.Errorf("the 65th was answered; %d refused", l.Refused())
	}
	close(release)
	for range MaxConnections {
		if err := <-done; err != nil {
			t.Errorf("one of the 64: %v", err)
		}
	}
	for l.Open() > 0 { // ends: no connection is kept alive
		time.Sleep(time.Millisecond)
	}
	if err := get("/"); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// exhausted is a listener of a process without descriptors, for a while.
type exhausted struct {
	until time.Time
	wait  chan struct{}
}

func (e *exhausted) Accept() (net.Conn, error) {
	if time.Now().Before(e.until) {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	<-e.wait
	return nil, net.ErrClosed
}

func (e *exhausted) Close() error   { close(e.wait); return nil }
func (e *exhausted) Addr() net.Addr { return &net.TCPAddr{} }

// TestAcceptErrorsAreDamped: three minutes without descriptors end neither the page nor fill the log.
func TestAcceptErrorsAreDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		l := limit(&exhausted{until: time.Now().Add(3*time.Minute - time.Second), wait: make(chan struct{})}, Bounds{}, log)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := Run(ctx, l, http.NotFoundHandler(), log); err != nil {
			t.Fatalf("Run: %v", err)
		}
		lines := strings.Split(strings.TrimSpace(text.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "too many open files") || !strings.Contains(lines[0], "left_out=0") || strings.Contains(lines[2], "left_out=0") {
			t.Errorf("log:\n%s", &text)
		}
	})
}

// TestServerLinesDoNotHideOneAnother: another kind of trouble is told while accept errors are damped.
func TestServerLinesDoNotHideOneAnother(t *testing.T) {
	var text bytes.Buffer
	log := errorLog(slog.New(slog.NewTextHandler(&text, nil)))
	for range 3 {
		log.Print("http: Accept error: ", errors.New("no descriptors"), "; retrying in 5ms")
		log.Print("http: panic serving 127.0.0.1:1: oh")
	}
	if n := strings.Count(text.String(), "\n"); n != 2 || !strings.Contains(text.String(), "no descriptors") || !strings.Contains(text.String(), "panic serving") {
		t.Errorf("log:\n%s", &text)
	}
}

// TestIdleGivesWay: connections that are opened and left do not shut out a health check; those at work keep their places.
func TestIdleGivesWay(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Listen(ctx, "127.0.0.1:0", Bounds{Most: 4}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	begun, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- Run(ctx, l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				begun <- struct{}{}
				<-release
			}
		}), slog.New(slog.DiscardHandler))
	}()
	url := "http://" + l.Addr().String()
	slow := make(chan error)
	go func() {
		r, err := http.Get(url + "/slow")
		if err == nil {
			err = r.Body.Close()
		}
		slow <- err
	}()
	<-begun
	for range 40 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if r, err := client.Get(url + "/healthz"); err == nil {
			_ = r.Body.Close()
			break
		} else if time.Now().After(end) {
			t.Fatalf("a health check is shut out by idle connections: %v", err)
		}
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("a request that was at work: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
