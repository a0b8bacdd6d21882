package gateway

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// spoiler damages a store that a killed gateway leaves, as a disk or a card does that loses its power.
type spoiler struct{ rng *rand.Rand }

const spoilPage = 4096

// spoil damages a file of the store and says how; mostly its newest segment.
func (s *spoiler) spoil(dir string) (what string, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "seg-*.db"))
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	path, what := filepath.Join(dir, "state.db"), "state.db "
	if n := len(names); n > 0 && s.rng.IntN(4) > 0 {
		path, what = names[n-1], "newest "
		if n > 1 && s.rng.IntN(4) == 0 {
			path, what = names[s.rng.IntN(n-1)], "older "
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	pages := len(data) / spoilPage
	switch s.rng.IntN(5) {
	case 0:
		return what + "removed", os.Remove(path)
	case 1:
		what, data = what+"cut", data[:s.rng.IntN(pages+1)*spoilPage]
	case 2:
		what += "end zero"
		clear(data[s.rng.IntN(pages+1)*spoilPage:])
	case 3:
		what += "pages zero"
		for range 1 + s.rng.IntN(4) {
			clear(s.page(data))
		}
	case 4:
		what += "bits"
		for range 1 + s.rng.IntN(4) {
			s.page(data)[s.rng.IntN(spoilPage)] ^= 1 << s.rng.IntN(8)
		}
	}
	return what, errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600))
}

func (s *spoiler) page(data []byte) []byte {
	at := s.rng.IntN(len(data)/spoilPage) * spoilPage
	return data[at : at+spoilPage]
}
