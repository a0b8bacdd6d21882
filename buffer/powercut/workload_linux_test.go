package powercut

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"millrace/buffer"
)

const planEnv = "POWERCUT_PLAN" // holds the plan; with it this process is a workload

// workload runs a store on the recorded disk. It is a process of its own, because bbolt reads its files
// through mapped memory: a page fault answered by the same process could wait for itself.
type workload struct {
	plan plan
	link link
	dir  string
	rng  *rand.Rand
	id   atomic.Uint64
	b    *buffer.Buffer

	drops uint64
}

// runWorkload is the workload's process, from mounting to unmounting, and returns its exit code.
func runWorkload() int {
	w := &workload{link: link{out: gob.NewEncoder(os.NewFile(3, "reports")), in: os.NewFile(4, "answers")}}
	if err := w.run(); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		_ = w.link.send(&report{Err: err.Error()}) // the recorder may be gone
		return 1
	}
	return 0
}

func (w *workload) run() error {
	if err := json.Unmarshal([]byte(os.Getenv(planEnv)), &w.plan); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	w.rng = rand.New(rand.NewPCG(w.plan.Seed, 2))
	w.id.Store(w.plan.FirstID)
	root, err := mountExt4(w.plan.Device, w.plan.Mount)
	if err != nil {
		return err
	}
	w.dir = fmt.Sprintf("/proc/self/fd/%d/store", root)
	if err := w.link.send(&report{Phase: w.phase(0), Mounted: true}); err != nil {
		return err
	}
	if w.plan.NoSync {
		if err := forgetSyncs(); err != nil {
			return err
		}
	}
	for cycle := range w.plan.Cycles {
		if err := w.cycle(cycle); err != nil {
			return fmt.Errorf("cycle %d: %w", cycle, err)
		}
	}
	if err := unix.Close(root); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return w.link.send(&report{Phase: "close"})
}

// phase is what the opening of a cycle is called.
func (w *workload) phase(cycle int) string {
	switch {
	case cycle > 0:
		return "reopen"
	case w.plan.Recovers:
		return "recover"
	}
	return "create"
}

// cycle is one life of the store, from Open to Close.
func (w *workload) cycle(n int) (err error) {
	if w.b, err = buffer.Open(w.dir, w.plan.options()); err != nil {
		return err
	}
	w.drops = 0
	if err := w.tell(&report{Phase: w.phase(n), Epoch: w.b.Epoch()}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = w.b.Run(ctx) }) // it has no errors
	defer func() {
		cancel()
		run.Wait()
	}()
	for step := range w.plan.Steps {
		if err := w.step(step); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	if !w.plan.Hoard {
		if err := w.drain(w.plan.Outage && n == 0); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
	}
	cancel()
	run.Wait()
	if err := w.b.Close(); err != nil {
		return err
	}
	return w.tell(&report{Phase: "close"})
}

// step appends a few records and then reads, acknowledges, rejects or waits.
func (w *workload) step(n int) error {
	if err := w.produce(); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	link := !w.plan.Outage || n >= w.plan.Steps*3/4
	if link && w.rng.IntN(3) == 0 {
		if err := w.consume(0, 200, 0.97); err != nil {
			return err
		}
	}
	if link && !w.plan.Hoard && w.rng.IntN(12) == 0 {
		if err := w.consume(1, 400, 0.7); err != nil {
			return err
		}
		w.b.Destination(destinations()[1]).Reset()
	}
	if w.rng.IntN(40) == 0 {
	}
	if w.rng.IntN(4) == 0 {
		time.Sleep(time.Duration(w.rng.IntN(6000)) * time.Microsecond)
	}
	for w.b.Stats().DirtyRecords > 150 && !w.plan.Strict { // or Append would wait, and after two seconds drop
		time.Sleep(time.Millisecond)
	}
	return w.tell(&report{})
}

// produce appends the records of one step, in strict mode by several producers at once.
func (w *workload) produce() error {
	counts := make([]int, max(w.plan.Producers, 1))
	for i := range counts {
		counts[i] = 1 + w.rng.IntN(6)
	}
	errs := make([]error, len(counts))
	var all sync.WaitGroup
	for i, n := range counts {
		all.Go(func() {
			for range n {
				errs[i] = errors.Join(errs[i], w.appendOne())
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (w *workload) appendOne() error {
	id, before := w.id.Add(1), droppedFull(w.b)
	seq, err := appendTo(w.b, id)
	if errors.Is(err, buffer.ErrFull) {
		return nil
	}
	if err != nil {
		return err
	}
	r := &report{Appended: []handedOut{{Seq: seq, ID: id}}}
	if w.plan.Strict {
		r.Durable = seq // that is what strict means, and commits are in order
	}
	for dest, n := range droppedFull(w.b) {
		if w.plan.WhenFull == buffer.DropNewest && n > before[dest] { // refused for this one alone, and counted: it is settled
			r.Settling = append(r.Settling, settled{dest, seq})
		}
	}
	return w.link.send(r)
}

// consume hands at most limit records to a destination, which settles the given share of them in random order.
func (w *workload) consume(dest, limit int, share float64) error {
	d := w.b.Destination(destinations()[dest])
	r := d.Reader(0, 0)
	defer r.Close()
	var rep report
	var rec buffer.Record
	for range limit {
		ok, err := r.Next(&rec)
		if err != nil {
			return err
		}
		if !ok || !d.Take(&rec) {
			break
		}
		if rec.Gap == nil {
			if err := compare(&rec); err != nil {
				return err
			}
		}
		rep.Seen = append(rep.Seen, seen{Dest: dest, Seq: rec.Seq, Account: rec.Stream.Account(), Gap: rec.Gap})
		if w.rng.Float64() < share {
			rep.Settling = append(rep.Settling, settled{Dest: dest, Seq: rec.Seq})
		}
	}
	if err := w.link.send(&rep); err != nil {
		return err
	}
	w.rng.Shuffle(len(rep.Settling), func(i, j int) { rep.Settling[i], rep.Settling[j] = rep.Settling[j], rep.Settling[i] })
	for _, s := range rep.Settling {
		if dest == 1 && w.rng.IntN(300) == 0 {
			if err := d.Reject(s.Seq, "refused by the test"); err != nil {
				return err
			}
			continue
		}
		d.Ack(s.Seq)
	}
	return nil
}

// drain settles everything, and waits until the segments are gone or leaves that to the next opening.
func (w *workload) drain(wait bool) error {
	for dest, name := range destinations() {
		d := w.b.Destination(name)
		d.Reset()
		for d.Len() > 0 {
			if err := w.consume(dest, 500, 1); err != nil {
				return err
			}
			if err := w.tell(&report{}); err != nil {
				return err
			}
		}
	}
	for range 2000 {
		left := w.b.Stats()
		if !wait || left.Segments == 0 || left.Segments == 1 && left.Bytes < 128<<10 { // an empty one may be waiting for records
			return nil
		}
		time.Sleep(2 * time.Millisecond)
		if err := w.tell(&report{}); err != nil {
			return err
		}
	}
	return fmt.Errorf("drained segments are not removed: %+v", w.b.Stats())
}

// tell completes a report with what the store and its directory say now, and sends it.
func (w *workload) tell(r *report) error {
	for {
		before := w.b.Stats()
		names, err := filepath.Glob(filepath.Join(w.dir, "seg-*.db"))
		if err != nil {
			return err
		}
		segments := w.b.Segments() // one that is dropped leaves the list at once, and the directory when that is on disk
		after := w.b.Stats()
		if before.Dropped != after.Dropped {
			continue
		}
		r.Durable = before.NextSeq - 1 - before.DirtyRecords
		for _, name := range names {
			r.Segments = append(r.Segments, filepath.Base(name))
		}
		r.Looked, r.Dropped, w.drops = true, after.Dropped > w.drops, after.Dropped
		r.OldestSeq = r.Durable + 1
		if len(segments) > 0 {
			r.OldestSeq = segments[0].FirstSeq
		}
		return w.link.send(r)
	}
}
