//go:build !race

package buffer

// outageDays is how long the outage lasts that TestOutage simulates.
const outageDays = 30
