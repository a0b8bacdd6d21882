package buffer

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// plantPayload is n float32 readings of slowly moving values with noise in the last digits.
func plantPayload(rng *rand.Rand, n int) []byte {
	p := make([]byte, 0, 4*n)
	v := rng.Float64() * 100
	for range n {
		v += rng.NormFloat64() * 0.01
		p = binary.LittleEndian.AppendUint32(p, math.Float32bits(float32(math.Round(v*1000)/1000)))
	}
	return p
}

// pool is payloads to be used in turn, 4 MB of them: a copy never meets its like in one block, where zstd would find it.
func pool(readings int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	list := make([][]byte, max(64, 1<<20/readings))
	for i := range list {
		list[i] = plantPayload(rng, readings)
	}
	return list
}

func benchOpen(b *testing.B, o Options) (*Buffer, *Stream) {
	b.Helper()
	o.Destinations = []string{"cloud"}
	if o.MaxSize == 0 {
		o.MaxSize = 16 << 30
	}
	buf := mustOpen(b, b.TempDir()+"/store", o)
	s, err := buf.Stream("press-1", []byte("schema"))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = buf.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return buf, s
}

func reportReadings(b *testing.B, readings int) {
	b.ReportMetric(float64(b.N)*float64(readings)/b.Elapsed().Seconds(), "readings/s")
}

// BenchmarkThrough is append, commit, read, acknowledge: 4 KB records of 1,000 float32, commit interval 1 s,
// each acknowledged some 0.2 s after it came.
func BenchmarkThrough(b *testing.B) {
	for _, lag := range []int{64, 20000} {
		b.Run(fmt.Sprintf("lag=%d", lag), func(b *testing.B) {
			buf, s := benchOpen(b, Options{CommitInterval: time.Second})
			d := buf.Destination("cloud")
			payloads := pool(1000)
			r := d.Reader(0, 0)
			var rec Record
			b.ReportAllocs()
			b.SetBytes(4000)
			b.ResetTimer()
			for i := range b.N {
				if _, err := buf.Append(s, payloads[i%len(payloads)], 1000, int64(i)); err != nil {
					b.Fatal(err)
				}
				if i < lag {
					continue
				}
				if ok, err := take(r, &rec); !ok || err != nil {
					b.Fatal(ok, err)
				}
				d.Ack(rec.Seq)
			}
			reportReadings(b, 1000)
			b.ReportMetric(float64(buf.Stats().BytesWritten)/float64(b.N), "disk-B/record")
		})
	}
}

// BenchmarkOutage is append and commit without anybody to read.
func BenchmarkOutage(b *testing.B) {
	for _, readings := range []int{100, 1000} {
		b.Run(fmt.Sprintf("readings=%d", readings), func(b *testing.B) {
			buf, s := benchOpen(b, Options{CommitInterval: time.Second})
			payloads := pool(readings)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if _, err := buf.Append(s, payloads[i%len(payloads)], readings, int64(i)); err != nil {
					b.Fatal(err)
				}
			}
			reportReadings(b, readings)
			b.ReportMetric(float64(buf.Stats().BytesWritten)/float64(b.N), "disk-B/record")
		})
	}
}

// BenchmarkStrict is 16 producers that each wait for the fsync of their records.
func BenchmarkStrict(b *testing.B) {
	for _, producers := range []int{1, 16} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			buf, s := benchOpen(b, Options{})
			payloads := pool(1000)
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range producers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for n := range b.N/producers + min(1, max(0, b.N%producers-i)) {
						p := payloads[(i*len(payloads)/producers+n)%len(payloads)]
						if _, err := buf.Append(s, p, 1000, 1); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			reportReadings(b, 1000)
			b.ReportMetric(float64(buf.Stats().BytesWritten)/float64(b.N), "disk-B/record")
		})
	}
}

// BenchmarkDrain reads a backlog from disk and acknowledges it.
func BenchmarkDrain(b *testing.B) {
	for _, readings := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("readings=%d", readings), func(b *testing.B) {
			buf, s := benchOpen(b, Options{CommitInterval: time.Second})
			payloads := pool(readings)
			for i := range b.N {
				if _, err := buf.Append(s, payloads[i%len(payloads)], readings, int64(i)); err != nil {
					b.Fatal(err)
				}
			}
			buf.lockCommit()
			if err := buf.commit(); err != nil {
				b.Fatal(err)
			}
			buf.unlockCommit()
			runtime.GC()
			d := buf.Destination("cloud")
			r := d.Reader(0, 0)
			var rec Record
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if ok, err := take(r, &rec); !ok || err != nil {
					b.Fatal(ok, err)
				}
				d.Ack(rec.Seq)
			}
			reportReadings(b, readings)
		})
	}
}

// BenchmarkAppendAtBacklog shows that Append, Stats and Len cost the same whatever the backlog.
func BenchmarkAppendAtBacklog(b *testing.B) {
	for _, backlog := range []int{1000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			if backlog > 1_000_000 && testing.Short() {
				b.Skip("-short")
			}
			payloads := pool(10)
			before := heap()
			buf, s := benchOpen(b, Options{CommitInterval: time.Second})
			for i := range backlog {
				if _, err := buf.Append(s, payloads[i%len(payloads)], 10, int64(i)); err != nil {
					b.Fatal(err)
				}
			}
			d := buf.Destination("cloud")
			after, disk := heap(), buf.Stats().Bytes
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if _, err := buf.Append(s, payloads[i%len(payloads)], 10, int64(i)); err != nil {
					b.Fatal(err)
				}
				if i%64 == 0 {
					_ = buf.Stats()
					_ = d.Len()
				}
			}
			b.ReportMetric((float64(after)-float64(before))/1e6, "heap-MB")
			b.ReportMetric(float64(disk)/1e6, "disk-MB")
		})
	}
}

// BenchmarkCommitBesideReader is a commit of 20 records of 250 readings, alone and beside a reader that reads the segment
// being written over and over: the two wait for each other. It reports what the reader gets, too.
func BenchmarkCommitBesideReader(b *testing.B) {
	for _, readers := range []int{0, 1} {
		b.Run(fmt.Sprintf("%d readers", readers), func(b *testing.B) {
			buf, s := benchOpen(b, Options{CommitInterval: time.Hour, TailBytes: 64 << 10})
			list := pool(250)
			commit := func(i int) {
				for j := range 20 {
					if _, err := buf.Append(s, list[(i*20+j)%len(list)], 250, int64(i)); err != nil {
						b.Fatal(err)
					}
				}
				buf.lockCommit()
				defer buf.unlockCommit()
				if err := buf.commit(); err != nil {
					b.Fatal(err)
				}
			}
			for i := range 200 {
				commit(i)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			var read uint64
			for range readers {
				all.Go(func() {
					var rec Record
					for ctx.Err() == nil {
						r := buf.Destination("cloud").Reader(buf.Segments()[len(buf.Segments())-1].FirstSeq, 0)
						for ok, err := r.Next(&rec); ok && err == nil && ctx.Err() == nil; ok, err = r.Next(&rec) {
							read++
						}
					}
				})
			}
			b.ResetTimer()
			for i := range b.N {
				commit(i)
			}
			b.StopTimer()
			cancel()
			all.Wait()
			b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "records-read/s")
		})
	}
}
