//go:build race || 386 || arm

package publisher

// raceShare divides the number of campaigns on a fast clock, which the race detector makes ten times as slow, and 32 bits, too; .ci/run plays all of them without.
const raceShare = 3
