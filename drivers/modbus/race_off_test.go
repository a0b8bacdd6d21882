//go:build !race && !386 && !arm

package modbus

// raceShare divides the polls of campaigns on a fast clock where the race detector looks on.
const raceShare = 1
