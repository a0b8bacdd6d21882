//go:build !386 && !arm

package buffer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUnreadable has a sealed segment fail with EIO: readers are told to come back, health says so, and nothing is lost when the disk gives the
// pages again in time; when it does not, what cannot be read is given up once, and told of.
func TestUnreadable(t *testing.T) {
	disk := mountBad(t)
	for _, heals := range []bool{true, false} {
		t.Run(fmt.Sprintf("heals %v", heals), func(t *testing.T) {
			o := testOptions()
			o.TailBytes = 64 << 10
			b := mustOpen(t, filepath.Join(disk.dir, fmt.Sprint("store-", heals)), o)
			s, d := mustStream(t, b, "press"), b.Destination("cloud")
			rng := rand.New(rand.NewPCG(1, 43))
			for range 500 {
				s.Count(2, 0)
				if _, err := b.Append(s, randomBytes(rng, 400), 2, 1); err != nil {
					t.Fatal(err)
				}
			}
			commitNow(t, b)
			b.lockCommit()
			b.seal()
			b.unlockCommit()
			file := b.Segments()[0].File
			var err error
			for page := 2; page < 16 && err == nil; page++ { // the next that a reader needs
				disk.set("read %s %d", filepath.Join(filepath.Base(b.dir), filepath.Base(file)), page)
				err = look(d)
			}
			if !errors.Is(err, ErrUnreadable) {
				t.Fatalf("the reader was told %v", err)
			}
			if h := b.Stats().Health; !strings.HasPrefix(h, "failing: the disk gives an error for pages of "+filepath.Base(file)) {
				t.Errorf("health is %q", h)
			}
			if heals {
				disk.set("heal")
			} else {
				b.segs[0].unread.since = time.Now().Add(-b.readPatience)
			}
			turnNow(b)
			st := b.Stats()
			if st.Health != "ok" || (st.Damages > 0) == heals {
				t.Errorf("afterwards health is %q, with %d damages", st.Health, st.Damages)
			}
			commitNow(t, b)
			told, got := toldAndGot(readAll(t, d, true))
			if lost := accountOf(t, b, "cloud").Dropped[CauseDamaged]; told != lost || heals && (lost > 0 || got != 500) || !heals && lost == 0 {
				t.Errorf("%d records came, %d readings are told as lost, the ledger has %d", got, told, lost)
			}
			checkLedger(t, b)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
