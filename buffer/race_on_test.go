//go:build race

package buffer

// The race detector makes campaigns ten times as slow: they are shorter with it, and .ci/run plays them whole without it.
const (
	outageDays = 6
	raceShare  = 4
)
