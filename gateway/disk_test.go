package gateway

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// believable makes the readings of 100 tags of one device, second by second: 60 slow floats with noise in the last of
// two or three decimals, 15 counters, 15 booleans, 10 setpoints.
func believable(rng *rand.Rand) func(at int64) []telemetry.Reading {
	level, counter := make([]float64, 60), make([]uint64, 15)
	for i := range level {
		level[i] = rng.Float64() * 100
	}
	for i := range counter {
		counter[i] = uint64(rng.IntN(1 << 24))
	}
	out := make([]telemetry.Reading, 100)
	return func(at int64) []telemetry.Reading {
		for i := range out {
			v := telemetry.Bool(rng.IntN(200) == 0)
			switch {
			case i < 60:
				level[i] += rng.NormFloat64() * 0.02
				unit := math.Pow10(2 + i%2)
				v = telemetry.Float32(float32(math.Round(level[i]*unit) / unit))
			case i < 75:
				counter[i-60] += uint64(rng.IntN(20))
				v = telemetry.Uint(counter[i-60])
			case i >= 90:
				v = telemetry.Float64(float64(i) * 2.5)
			}
			out[i] = telemetry.Reading{Tag: uint32(i), Time: at, Value: v}
		}
		return out
	}
}

func noise(rng *rand.Rand) func(at int64) []telemetry.Reading {
	out := make([]telemetry.Reading, 100)
	return func(at int64) []telemetry.Reading {
		for i := range out {
			out[i] = telemetry.Reading{Tag: uint32(i), Time: at, Value: telemetry.Float32(math.Float32frombits(rng.Uint32()))}
		}
		return out
	}
}

// TestStorable: where there is no room for the beginning of a store, none can be; where there is some, it can.
func TestStorable(t *testing.T) {
	if err := Storable(filepath.Join(t.TempDir(), "data")); err != nil {
		t.Error(err)
	}
	if runtime.GOOS != "linux" {
		t.Skip("no file system without room is known here")
	}
	if err := Storable("/proc/data"); err == nil || !strings.Contains(err.Error(), "/proc/data") {
		t.Errorf("in /proc: %v", err)
	}
	if _, waits := DiskTrouble(t.TempDir()); waits {
		t.Error("a start may wait for a disk that has room")
	}
	if err := storable("/x", 0); err == nil || !strings.Contains(err.Error(), "has room for 0 bytes, and a store begins with 65536") {
		t.Errorf("where nothing has room: %v", err)
	}
}

// TestBytesAReading measures what an outage costs on disk, files as they are, at 100 tags a record: with commits of what
// the memory takes, where random floats may cost 5 % more than their 4 bytes, and with commits of ten records.
func TestBytesAReading(t *testing.T) {
	for _, c := range []struct {
		name    string
		source  func(*rand.Rand) func(int64) []telemetry.Reading
		commit  int // records in one
		seconds int64
		most    float64
	}{
		{"believable signals", believable, math.MaxInt, 3000, 1.6},
		{"random float32", noise, math.MaxInt, 3000, 4.2},
		{"believable signals, small commits", believable, 10, 300, 3.1},
		{"random float32, small commits", noise, 10, 300, 5.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := buffer.Open(t.TempDir()+"/store", buffer.Options{MaxSize: 1 << 30, CommitInterval: 3600e9, Destinations: []string{"cloud"}})
			if err != nil {
				t.Fatal(err)
			}
			var streams []*buffer.Stream
			var sources []func(int64) []telemetry.Reading
			rng := rand.New(rand.NewPCG(1, 2))
			for _, device := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
				s, err := b.Stream(device, []byte(device))
				if err != nil {
					t.Fatal(err)
				}
				streams, sources = append(streams, s), append(sources, c.source(rng))
			}
			before := b.Stats()
			records := 0
			for sec := range c.seconds {
				for i, s := range streams {
					at := int64(1.7e15) + sec*1e6
					payload := record.Append(nil, &record.Record{Time: at, Readings: sources[i](at)})
					if _, err := b.Append(s, payload, 100, at); err != nil {
						t.Fatal(err)
					}
					if records++; records%c.commit == 0 {
						commit(t, b)
					}
				}
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			readings := float64(records * 100)
			got := float64(b.Stats().Bytes-before.Bytes) / readings
			t.Logf("%.2f bytes a reading on disk, %.2f written", got, float64(b.Stats().BytesWritten-before.BytesWritten)/readings)
			if got > c.most {
				t.Errorf("%.2f bytes a reading on disk, want at most %.2f", got, c.most)
			}
		})
	}
}

// commit has the buffer write what it holds, as it does before a destination is added.
func commit(t *testing.T, b *buffer.Buffer) {
	t.Helper()
	if _, err := b.AddDestination("witness", buffer.StartNow); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveDestination("witness"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Forget("witness"); err != nil {
		t.Fatal(err)
	}
}
