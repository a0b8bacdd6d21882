//go:build !race

package gateway

import (
	"testing"
	"time"
)

const (
	hoursLast  = time.Hour // how long a seed of TestHours plays
	hoursSeeds = 3         // and how many of its three are played
)

// alone does nothing: only the race detector needs it.
func alone(*testing.T) {}
