//go:build race

package buffer

// outageDays is shorter under the race detector, which takes ten times as long.
const outageDays = 6
