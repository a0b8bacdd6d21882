package faults

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faultDamagedStore, F10: bits flip, files end early or turn to zeros while the gateway is dead. It starts
// all the same, publishes no wrong value, uses no number twice, keeps the order, and counts what it set aside.
// What was in a damaged place may be lost: that is printed, not judged.
func faultDamagedStore(t *testing.T) {
	chance := random(t)
	b := newBed(t, 3, Setup{Words: 8, Commit: "100ms"})
	b.window = 100*time.Millisecond + commitSlack
	b.patience = 10 * time.Second
	b.start()
	b.await(10, 20*time.Second)
	var damage []string
	for range pick(6, 300) {
		b.net.Refuse()
		b.net.Cut()
		time.Sleep(time.Duration(700+chance.IntN(600)) * time.Millisecond)
		b.kill()
		damage = append(damage, b.damage(chance))
		b.start()
		b.until(20*time.Second, "a snapshot after damage: "+damage[len(damage)-1], func() bool {
			_, err := b.gateway.Snapshot()
			if !b.gateway.Running() {
				b.t.Fatalf("the gateway does not start after damage: %s", damage[len(damage)-1])
			}
			return err == nil
		})
		b.heal()
		time.Sleep(500 * time.Millisecond)
	}
	r := b.settle()
	t.Logf("FIGURES %s: %s; damage: %s", t.Name(), r, strings.Join(damage, ", "))
	r.Lost = 0
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	b.balance()
}

// damage spoils one file of the store and says how.
func (b *bed) damage(chance *rand.Rand) string {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.setup.Path, "*.db"))
	must(b.t, err)
	if len(files) == 0 {
		b.t.Fatal("the store has no files to damage")
	}
	file := files[chance.IntN(len(files))]
	data, err := os.ReadFile(file)
	must(b.t, err)
	used := min(len(data), 96<<10) // a young file is mostly room to grow
	how := ""
	switch chance.IntN(5) {
	case 0:
		how = "bit flips in "
		for range 1 + chance.IntN(20) {
			data[chance.IntN(used)] ^= 1 << chance.IntN(8)
		}
	case 1:
		how = "truncation of "
		data = data[:chance.IntN(len(data))]
	case 2:
		how = "a page of zeros in "
		at := chance.IntN(1+used/4096) * 4096
		clear(data[min(at, len(data)):min(at+4096, len(data))])
	case 3:
		how = "a foreign file in place of "
		data = []byte(strings.Repeat("this is not a store\n", 500))
	case 4:
		how = "zeros from the middle of "
		clear(data[chance.IntN(used):])
	}
	must(b.t, os.WriteFile(file, data, 0o640))
	return how + filepath.Base(file)
}
