package gateway

import (
	"testing"
	"time"

	"millrace/drivers"
)

// tracer is a driver's trace.
type tracer struct{ f func(*drivers.Exchange) }

func (t *tracer) Trace(f func(*drivers.Exchange)) { t.f = f }

// TestWatched: who looks gets a copy of each exchange, loses what it does not take and is told how many, and the driver shows
// nothing while nobody looks.
func TestWatched(t *testing.T) {
	d := &tracer{}
	w := watched{tracer: d}
	fast, err := w.add()
	if err != nil {
		t.Fatal(err)
	}
	slow, err := w.add()
	if err != nil {
		t.Fatal(err)
	}
	answer := []byte{1, 3, 0}
	for i := range maxQueue + 5 {
		answer[2] = byte(i)
		d.f(&drivers.Exchange{At: time.UnixMicro(int64(i)), Took: time.Millisecond, Request: []byte{1, 3}, Answer: answer})
		if x := <-fast.queue; x.At != int64(i) || x.Took != 1000 || x.Answer[2] != byte(i) || x.Lost != 0 {
			t.Fatalf("exchange %d: %+v", i, x)
		}
	}
	for i := range maxQueue {
		if x := <-slow.queue; x.Answer[2] != byte(i) {
			t.Fatalf("exchange %d was changed in the queue: %+v", i, x)
		}
	}
	d.f(&drivers.Exchange{})
	if x := <-slow.queue; x.Lost != 5 {
		t.Errorf("%d lost, want 5", x.Lost)
	}
	for range maxEyes - 2 {
		if _, err := w.add(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.add(); err == nil {
		t.Error("more watchers than there may be")
	}
	<-fast.queue
	w.remove(fast)
	w.remove(fast)
	if _, open := <-fast.queue; open || d.f == nil {
		t.Error("one left: its queue is to end, and the others go on")
	}
	w.end()
	for range slow.queue { // ends
	}
	if d.f != nil {
		t.Error("the driver shows exchanges to nobody")
	}
	if _, err := w.add(); err == nil {
		t.Error("a connection that has ended is watched")
	}
	if _, err := (&watched{}).add(); err == nil {
		t.Error("a driver without a trace is watched")
	}
}
