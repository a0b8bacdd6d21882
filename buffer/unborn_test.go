package buffer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestCreationCutShort: a segment file of which nothing but the name and the size reached the disk before the power went is no damage; one that state.db names
// is.
func TestCreationCutShort(t *testing.T) {
	tp := newTemplate(t)
	for name, content := range map[string][]byte{"zeros": make([]byte, emptyFile), "garbage": randomBytes(rand.New(rand.NewPCG(1, 2)), emptyFile), "a piece": make([]byte, 100)} {
		t.Run(name, func(t *testing.T) {
			dir := tp.copy(t)
			path := filepath.Join(dir, fmt.Sprintf(segPattern, tp.next))
			if err := os.WriteFile(path, content, 0o640); err != nil {
				t.Fatal(err)
			}
			r, err := OpenReadOnly(dir)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := r.Verify(t.Context(), nil); err != nil || len(v.Problems) > 0 {
				t.Errorf("%+v, %v", v, err)
			}
			r.Close()
			tp.check(t, dir, 0)
			if _, err := os.Stat(path); err == nil {
				t.Error("the file is still there")
			}
			if n, _ := filepath.Glob(dir + "/*.corrupt"); len(n) > 0 {
				t.Errorf("%q", n)
			}
		})
		t.Run(name+", named", func(t *testing.T) {
			dir := tp.copy(t)
			if err := os.WriteFile(filepath.Join(dir, tp.files[3]), content, 0o640); err != nil {
				t.Fatal(err)
			}
			if lost := tp.check(t, dir, len(tp.due)); lost == 0 || len(tp.gaps) == 0 {
				t.Errorf("%d records lost, gaps %+v", lost, tp.gaps)
			}
		})
	}
}
