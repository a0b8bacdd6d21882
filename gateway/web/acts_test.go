package web

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// acting is a fake whose snapshot is made by a function.
type acting struct {
	*fake
	make func() *Snapshot
}

func (a *acting) Snapshot() *Snapshot { return a.make() }

// TestReloadIsSeenAtOnce: who reloads and asks the page's address then, gets the judgement of the new config, however young the
// last one is, and also where one was being taken meanwhile.
func TestReloadIsSeenAtOnce(t *testing.T) {
	var names atomic.Pointer[string]
	name := func(n string) { names.Store(&n) }
	begun, end := make(chan struct{}), make(chan struct{})
	var slow atomic.Bool
	g := &acting{newFake(t, 0), nil}
	g.make = func() *Snapshot {
		s := example(noon, "")
		s.Gateway = *names.Load()
		if slow.CompareAndSwap(true, false) {
			begun <- struct{}{}
			<-end
		}
		return s
	}
	page, socket := Handler(g, 0), client(t, serve(t, g))
	ask := func() string {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/api/v1/snapshot", nil))
		return w.Body.String()
	}
	reload := func() {
		t.Helper()
		if _, err := socket.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 { // on a busy machine more than freshness may go by between two questions
		name(fmt.Sprintf("config-%d.", i))
		reload()
		if got := ask(); !strings.Contains(got, *names.Load()) {
			t.Fatalf("after reload %d: %s", i, got)
		}
	}
	reload()
	slow.Store(true)
	first, second := make(chan string, 1), make(chan string, 1)
	go func() { first <- ask() }()
	<-begun // of the old state
	name("latest")
	reload()
	go func() { second <- ask() }()
	time.Sleep(100 * time.Millisecond) // until it waits for the first
	close(end)
	<-first
	if got := <-second; !strings.Contains(got, "latest") {
		t.Errorf("while one was being taken: %s", got)
	}
}
