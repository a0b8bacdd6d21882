//go:build race || 386 || arm

package buffer

// The race detector makes campaigns ten times as slow, 32 bits three times: they are shorter with these, and .ci/run plays them whole without.
const (
	outageDays = 6
	raceShare  = 4
)
