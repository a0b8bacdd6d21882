package buffer

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestDropsAreToldOnceAMinute: a full store in a long outage is told of once a minute, and the lines have every record that was given up, gap records among
// them.
func TestDropsAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := testOptions()
		o.MaxSize, o.Log = 4<<20, slog.New(slog.NewTextHandler(&log, nil))
		b := mustOpen(t, t.TempDir()+"/store", o)
		s := mustStream(t, b, "press")
		rng := rand.New(rand.NewPCG(1, 2))
		for range 192 {
			for range 20 {
				if _, err := b.Append(s, randomBytes(rng, 4000), 1, 1); err != nil {
					t.Fatal(err)
				}
			}
			commitNow(t, b)
			time.Sleep(3 * time.Second)
		}
		dropped := b.Ledger()[0].Destinations[0].Dropped[CauseFull]
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		lines, told := 0, uint64(0)
		for _, m := range regexp.MustCompile(`msg="segment dropped".* times=\d+ records=(\d+)`).FindAllStringSubmatch(log.String(), -1) {
			n, _ := strconv.ParseUint(m[1], 10, 64)
			lines, told = lines+1, told+n
		}
		if lines < 5 || lines > 12 || told < dropped || told > dropped+100 || strings.Count(log.String(), "segment dropped") != lines {
			t.Errorf("%d lines tell of %d records, %d were dropped:\n%s", lines, told, dropped, log.String())
		}
	})
}
