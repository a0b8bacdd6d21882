package modbus

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// TestFieldIsSmall: what is kept of each tag decides the memory of a gateway with many.
func TestFieldIsSmall(t *testing.T) {
	if got := unsafe.Sizeof(field{}); got > 24 {
		t.Errorf("a field has %d bytes, want 24", got)
	}
}

// greedy is how many requests the usual planner makes: it takes each value along as far as gap and length allow.
func greedy(fields []field, gap, most uint32) (n int) {
	first, end, t := uint32(0), uint32(0), table(9)
	for i := range fields {
		f := &fields[i]
		last := f.number + uint32(f.count)
		if f.table != t || f.number > end+gap || max(end, last)-first > most {
			first, end, t = f.number, 0, f.table
			n++
		}
		end = max(end, last)
	}
	return n
}

// randomFields makes values in clusters, sorted as a manual lists them.
func randomFields(r *rand.Rand) []field {
	var fields []field
	number := uint32(r.IntN(100))
	for range 1 + r.IntN(200) {
		k := []kind{kindUint16, kindInt32, kindFloat64}[r.IntN(3)]
		fields = append(fields, field{address: address{number, holding, -1, -1}, kind: k, count: uint8(k.registers())})
		number += uint32(k.registers())
		if r.IntN(6) == 0 {
			number += uint32(r.IntN(60))
		}
	}
	return fields
}

// TestPlannerIsCheapest compares the plan of random lists with the greedy one of the same gap: never more requests, never more
// time on a serial line, and every value in exactly one request.
func TestPlannerIsCheapest(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		fields := randomFields(r)
		gap, most := r.IntN(60), 4+r.IntN(122)
		u := &unit{settings: settings{maxGap: gap, maxRegisters: most}}
		g := newGroup(fields, u)
		if got, want := len(g.spans), greedy(fields, uint32(gap), uint32(most)); got > want {
			t.Fatalf("%d requests with a gap of %d and %d registers at most, the greedy plan has %d", got, gap, most, want)
		}
		seen := make([]int, len(fields))
		for _, s := range g.spans {
			for _, b := range s.blocks {
				for _, o := range b.ops {
					seen[o.tag]++
				}
				if int(b.count) > most {
					t.Fatalf("a request of %d registers, at most %d are allowed", b.count, most)
				}
			}
		}
		for tag, n := range seen {
			if n != 1 {
				t.Fatalf("tag %d is read %d times", tag, n)
			}
		}
	}
}

// BenchmarkPlan plans 10,000 tags with gaps between them.
func BenchmarkPlan(b *testing.B) {
	list := make([]telemetry.Tag, 10000)
	for i := range list {
		list[i] = telemetry.Tag{Name: "t", Address: fmt.Sprint("holding:", i*6), Type: "float32"}
	}
	c := drivers.Connection{URL: "rtu:///dev/ttyS0", Devices: []drivers.Device{device("", 1, list)}}
	for b.Loop() {
		if _, err := newDriver(&c, time.Now); err != nil {
			b.Fatal(err)
		}
	}
}
