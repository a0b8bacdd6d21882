package gateway

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/pipeline"
	"millrace/gateway/record"
)

// TestRefusedRecordsEndNoPoller: what the buffer refuses it has counted; only a closed buffer is the end.
func TestRefusedRecordsEndNoPoller(t *testing.T) {
	b, err := buffer.Open(t.TempDir()+"/store", buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}, CommitInterval: 3600e9})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Stream("press", nil)
	if err != nil {
		t.Fatal(err)
	}
	sink := &groupSink{buf: b, stream: s}
	if err := sink.Append(nil, make([]byte, b.MaxRecord()+1), 7, 1); err != nil {
		t.Errorf("a record that is too large: %v", err)
	}
	if a := b.Ledger()[0]; a.Accepted != 7 || a.Destinations[0].Dropped[buffer.CauseFull] != 7 {
		t.Errorf("it is not counted: %+v", a)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sink.Append(nil, nil, 1, 1); !errors.Is(err, buffer.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestBurstsFitTheSmallestStore: a push of many events or long texts is kept whole while the broker is away, though the store is as small as a config may make it.
func TestBurstsFitTheSmallestStore(t *testing.T) {
	for what, c := range map[string]struct {
		memory int64
		typ    telemetry.DataType
		n      int
		text   string
	}{
		"events":      {64 << 10, telemetry.EventType, 1000, strings.Repeat("e", 250)},
		"long events": {8 << 20, telemetry.EventType, 20, strings.Repeat("e", 60_000)},
		"long texts":  {8 << 20, telemetry.StringType, 20, strings.Repeat("v", 60_000)},
	} {
		b, err := buffer.Open(t.TempDir()+"/store", buffer.Options{MaxSize: 4 << 20, TailBytes: c.memory, Destinations: []string{"cloud"}, CommitInterval: 3600e9})
		if err != nil {
			t.Fatal(err)
		}
		s := &groupSink{buf: b, device: "press", schemas: &sync.Map{}, log: slog.New(slog.DiscardHandler)}
		schema := &record.Schema{Gateway: "g", Device: "press", Group: "g", Tags: []record.Tag{{Name: "t"}}, Data: []telemetry.DataType{c.typ}}
		if err := s.use(schema); err != nil {
			t.Fatal(err)
		}
		g := pipeline.New(pipeline.Options{Schema: schema, Tags: make([]telemetry.Tag, 1), Sink: s})
		push := slices.Repeat([]telemetry.Reading{{Time: 5, Value: telemetry.String(c.text)}}, c.n)
		if err := g.Take(time.Now(), push); err != nil {
			t.Fatal(err)
		}
		if a := b.Ledger()[0]; a.Destinations[0].Buffered != uint64(c.n) {
			t.Errorf("%s: %d of %d are kept: %+v", what, a.Destinations[0].Buffered, c.n, a)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStartOfEachDestination adds two destinations at once to a buffer that holds a record, one to begin now and one
// with the oldest.
func TestStartOfEachDestination(t *testing.T) {
	cfg := &config.Config{Destinations: []config.Destination{{Name: "cloud"}}}
	cfg.Buffer.Path, cfg.Buffer.MaxSize, cfg.Buffer.CommitInterval = t.TempDir()+"/store", 64<<20, 3600e9
	open := func() *buffer.Buffer {
		b, err := buffer.Open(cfg.Buffer.Path, bufferOptions(cfg, slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open()
	s, err := b.Stream("press", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(s, []byte("x"), 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Destinations = append(cfg.Destinations, config.Destination{Name: "now", Start: config.StartNow}, config.Destination{Name: "oldest", Start: config.StartOldest})
	b = open()
	for name, want := range map[string]uint64{"cloud": 1, "now": 0, "oldest": 1} {
		if n := b.Destination(name).Len(); n != want {
			t.Errorf("%s begins with %d records, want %d", name, n, want)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
