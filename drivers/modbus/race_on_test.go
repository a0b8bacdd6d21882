//go:build race

package modbus

// raceShare divides the polls of campaigns on a fast clock, which the race detector makes ten times as slow; .ci/run plays them whole without it.
const raceShare = 5
