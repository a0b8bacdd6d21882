package web

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/record"
	"millrace/gateway/values"
)

func tableOf(v telemetry.Value) *values.Table {
	t := values.New()
	g := t.Group(&record.Schema{Device: "meter", Group: "slow", Tags: []record.Tag{{Name: "energy"}}}, time.Second)
	g.Put(1, []telemetry.Reading{{Value: v, Time: 1}})
	return t
}

// TestClientKeepsBigIntegers: a counter above 2^53 reaches the command as it is, alone and in an array.
func TestClientKeepsBigIntegers(t *testing.T) {
	big := telemetry.Uint(math.MaxUint64)
	for want, v := range map[string]telemetry.Value{"18446744073709551615": big, "[18446744073709551615]": telemetry.Array([]telemetry.Value{big}),
		"-9223372036854775807": telemetry.Int(-math.MaxInt64), "21.5": telemetry.Float32(21.5)} {
		list, err := client(t, serve(t, &fake{snap: &Snapshot{}, table: tableOf(v)})).Values(t.Context(), "", "", false)
		if err != nil || len(list) != 1 {
			t.Fatalf("%d values, %v", len(list), err)
		}
		if got, _ := json.Marshal(list[0].Value); string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestScanOfNothingShowsLife: a query that no record matches still tells the client that the gateway works on it.
func TestScanOfNothingShowsLife(t *testing.T) {
	b, err := buffer.Open(t.TempDir()+"/store", buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	st, err := b.Stream("press", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := b.Append(st, []byte{1}, 1, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	looked := 0
	err = scan(t.Context(), b, Query{Device: "another"}, func() { looked++ }, func(*StoredRecord) error { t.Error("a record of another device"); return nil })
	if err != nil || looked != 3 {
		t.Errorf("looked at %d records: %v", looked, err)
	}
}

// TestLinesShowLife: when nothing was written for maxSilence a line is, and a client reads over it.
func TestLinesShowLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		out := newLines(w)
		out.alive()
		if w.Body.Len() != 0 {
			t.Errorf("at once: %q", w.Body)
		}
		time.Sleep(maxSilence)
		out.alive()
		if w.Body.String() != "{}\n" {
			t.Errorf("after %v: %q", maxSilence, w.Body)
		}
		out.alive()
		out.end(nil, nil)
		if w.Body.String() != "{}\n{\"end\":true}\n" {
			t.Errorf("in all: %q", w.Body)
		}
		if _, err := readLines(strings.NewReader(w.Body.String()), recordsOf(func(*StoredRecord) error { t.Error("a record"); return nil })); err != nil {
			t.Error(err)
		}
	})
}
