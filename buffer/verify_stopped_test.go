package buffer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

var cannotBeRead = regexp.MustCompile(`(\d+) of its (\d+) records cannot be read, all of them from (\d+) to (\d+)`)

// TestVerifyStopped has each page of the segment of a store that is not in use spoiled in turn: after a clean stop and after a kill Verify
// says how many records are missing, and between which of those that are sound.
func TestVerifyStopped(t *testing.T) {
	for _, how := range []string{"closed", "killed"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir() + "/store"
			b := mustOpen(t, dir, testOptions())
			rng := rand.New(rand.NewPCG(5, 6))
			s := mustStream(t, b, "press")
			const total = 600
			for i := range total {
				if _, err := b.Append(s, randomBytes(rng, 200), 1, int64(i+1)); err != nil {
					t.Fatal(err)
				}
				if i%100 == 99 {
					commitNow(t, b)
				}
			}
			path := b.active.path
			if how == "closed" {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				crash(b)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			cost := 0
			for page := 2; page < len(raw)/pageSize; page++ {
				spoilPage(t, path, raw, page, "random", rng)
				cost += checkStopped(t, dir, path, fmt.Sprintf("page %d", page), total)
				spoilPage(t, path, raw, page, "not", rng)
			}
			if cost < 20 {
				t.Errorf("only %d pages cost records", cost)
			}
		})
	}
}

// checkStopped returns 1 when records are missing.
func checkStopped(t *testing.T, dir, path, what string, total uint64) (cost int) {
	t.Helper()
	ro, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	v, err := ro.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if v.Records == total {
		return 0
	}
	if len(v.Problems) != 1 || v.Problems[0].File != filepath.Base(path) {
		t.Fatalf("%s: %d of %d records, and %+v", what, v.Records, total, v.Problems)
	}
	said := cannotBeRead.FindStringSubmatch(v.Problems[0].Reason)
	if said == nil {
		t.Fatalf("%s: %d of %d records, and only %q", what, v.Records, total, v.Problems[0].Reason)
	}
	var n [4]uint64
	for i := range n {
		n[i], _ = strconv.ParseUint(said[i+1], 10, 64) // digits
	}
	if n[0] != total-v.Records || n[1] != total || n[3]-n[2]+1 < n[0] || n[2] < 1 || n[3] > total {
		t.Errorf("%s: %d of %d records: %s", what, v.Records, total, said[0])
	}
	return 1
}
