package buffer

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// A file of another store may come into the directory: copied by hand, or from a backup. Which file is odd is decided by what they all say: each segment
// and the mark has the number of its store, as state.db has.
type voices struct {
	segments map[uint64]int // by store
	mark     uint64         // 0 = it says nothing
}

// hear asks the segments and the mark of which store they are. Those that cannot be read, or stand under another's name, say nothing.
func (b *Buffer) hear() voices {
	v := voices{segments: map[uint64]int{}}
	names, _ := filepath.Glob(filepath.Join(b.dir, "seg-*.db")) // the pattern is sound
	for _, path := range names {
		if own, err := infoOf(path); err == nil && filepath.Base(path) == fmt.Sprintf(segPattern, own.first) {
			v.segments[own.store]++
		}
	}
	gen := uint64(0)
	for _, m := range b.readMarks() {
		if m.gen >= gen {
			gen, v.mark = m.gen, m.store
		}
	}
	return v
}

// infoOf reads what a segment's file says of itself.
func infoOf(path string) (own info, err error) {
	p, err := openPages(path)
	if err != nil {
		return own, err
	}
	defer p.close()
	root, err := p.bucket(bucketName)
	if err != nil {
		return own, err
	}
	err = viewPages(p, root, nil, func(c cursor) error {
		own, err = infoAt(c)
		return err
	})
	return own, err
}

// count returns how many say that it is this store's directory.
func (v *voices) count(store uint64) int {
	n := v.segments[store]
	if v.mark != 0 && v.mark == store {
		n++
	}
	return n
}

// elect returns the number of the store that the directory holds, when state.db says that it is this one, 0 = it says nothing. Another one it is only
// when two at least say so, and no fewer than say the same as state.db, itself included. 0 = nobody knows.
func (v *voices) elect(state uint64) (store uint64) {
	if v.mark != state {
		store = v.mark
	}
	for _, other := range slices.Sorted(maps.Keys(v.segments)) {
		n, most := v.count(other), v.count(store)
		if other != state && (n > most || n == most && v.segments[other] > v.segments[store]) {
			store = other
		}
	}
	if n := v.count(store); state != 0 && (n < 2 || n < 1+v.count(state)) {
		return state
	}
	return store
}

// words says who it is that says so.
func (v *voices) words(store uint64) string {
	text := "the segments"
	switch {
	case v.segments[store] == 0:
		text = "the mark"
	case v.mark == store:
		text += " and the mark"
	}
	return text
}
