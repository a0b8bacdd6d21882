package opcua

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// bunched is a past of n values: 0, 1, 2 …, so many with each second from noon on.
func bunched(n, together int) []*ua.DataValue {
	past := kept(n)
	for i := range past {
		past[i].SourceTimestamp = noon.Add(time.Duration(i/together) * time.Second)
	}
	return past
}

// numbers reads the whole history of a driver's first group, and returns what each tag had.
func numbers(t *testing.T, d *driver) (map[uint32][]int, error) {
	t.Helper()
	got := map[uint32][]int{}
	err := d.History(t.Context(), drivers.Ref{}, noon.UnixMicro(), noon.Add(time.Hour).UnixMicro(), func(readings []telemetry.Reading) error {
		for i := range readings {
			v, _ := readings[i].Value.Float()
			got[readings[i].Tag] = append(got[readings[i].Tag], int(v))
		}
		return nil
	})
	return got, err
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// TestHistoryCut: a server cuts its answers short and says neither that there are more nor where to go on. What is behind the last value of each node is asked for until nothing new
// comes: nothing is missing, and nothing comes twice, whatever the nodes have in common.
func TestHistoryCut(t *testing.T) {
	for _, c := range []struct{ cut, page, together int }{{1, 0, 1}, {2, 0, 1}, {7, 0, 1}, {7, 0, 3}, {7, 0, 6}, {100, 0, 1}, {7, 3, 2}, {500, 0, 7}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			s := start(t, opcuasim.Options{HistoryCut: c.cut, HistoryPage: c.page}, 13)
			want := map[uint32][]int{}
			for i, v := range variables(13) {
				if n := i * 9; n > 0 {
					s.SetHistory(strings.TrimPrefix(v, "ns=2;s="), bunched(n, c.together))
					want[uint32(i)] = upTo(n)
				} else {
					s.SetHistory(strings.TrimPrefix(v, "ns=2;s="), []*ua.DataValue{})
				}
			}
			d := connect(t, connection(s.Endpoint(), patience, variables(13)...))
			for range 2 { // the second time it knows how long the server's answers are
				got, err := numbers(t, d)
				if err != nil {
					t.Fatal(err)
				}
				for tag, values := range want {
					if !slices.Equal(got[tag], values) {
						t.Fatalf("tag %d: %v, want up to %d", tag, got[tag], len(values)-1)
					}
				}
			}
		})
	}
}

// TestHistoryOfOneTime: where more values share a time than the server puts into an answer, those behind them come all the same, and it is said that some are missing.
func TestHistoryOfOneTime(t *testing.T) {
	s := start(t, opcuasim.Options{HistoryCut: 5}, 2)
	s.SetHistory("v0", append(bunched(8, 8), kept(12)[8:]...))
	s.SetHistory("v1", kept(12))
	got, err := numbers(t, connect(t, connection(s.Endpoint(), patience, variables(2)...)))
	if want := []int{0, 1, 2, 3, 4, 8, 9, 10, 11}; !slices.Equal(got[0], want) || !slices.Equal(got[1], upTo(12)) {
		t.Errorf("read %v, want %v and 0 to 11", got, want)
	}
	if !errors.Is(err, drivers.ErrDevice) || !strings.Contains(err.Error(), `1 of 2 tags, first "ns=2;s=v0": more values have the same time`) {
		t.Errorf("error %v", err)
	}
}

// TestHistoryWithFewPlaces: a server that remembers only a few places is asked for one node after the other, and all of each is read.
func TestHistoryWithFewPlaces(t *testing.T) {
	s := start(t, opcuasim.Options{HistoryPage: 7, HistoryPlaces: 2}, 13)
	for _, v := range variables(13) {
		s.SetHistory(strings.TrimPrefix(v, "ns=2;s="), kept(50))
	}
	got, err := numbers(t, connect(t, connection(s.Endpoint(), patience, variables(13)...)))
	if err != nil {
		t.Error(err)
	}
	for tag := range uint32(13) {
		if !slices.Equal(got[tag], upTo(50)) {
			t.Errorf("tag %d: %v", tag, got[tag])
		}
	}
	if s.Continuations() != 0 {
		t.Errorf("%d continuation points are left", s.Continuations())
	}
}

// TestBackfillClock: by how much the server's clock is ahead of ours lies within the bounds that are told, which are as wide as the exchange was long.
func TestBackfillClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, 90 * time.Minute, -26 * time.Hour} {
		s := start(t, opcuasim.Options{Ahead: ahead}, 1)
		c := connection(s.Endpoint(), patience, variables(1)...)
		c.Devices[0].Options["backfill"] = "history"
		d := connect(t, c)
		asked, least, most, err := d.Backfill(t.Context())
		if !asked || err != nil || least > ahead+time.Microsecond || most < ahead-time.Microsecond || most-least > time.Minute {
			t.Errorf("%v: %v from %v to %v, %v", ahead, asked, least, most, err)
		}
	}
}
