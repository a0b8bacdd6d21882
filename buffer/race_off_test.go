//go:build !race && !386 && !arm

package buffer

const (
	outageDays = 30 // how long the outage lasts that TestOutage simulates
	raceShare  = 1  // divides campaigns where the race detector looks on
)
