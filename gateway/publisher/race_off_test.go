//go:build !race && !386 && !arm

package publisher

// raceShare divides the number of campaigns on a fast clock where the race detector looks on.
const raceShare = 1
