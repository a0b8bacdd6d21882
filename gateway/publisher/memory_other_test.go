//go:build !linux

package publisher

import "testing"

func storeDir(t *testing.T) string { return t.TempDir() }
