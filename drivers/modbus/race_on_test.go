//go:build race || 386 || arm

package modbus

// raceShare divides the polls of campaigns on a fast clock, which the race detector makes ten times as slow, and 32 bits, too; .ci/run plays them whole without these.
const raceShare = 5
