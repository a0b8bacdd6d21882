//go:build !linux

package gateway

// kernelSynced: this system has no such flag.
func kernelSynced() (synced, known bool) { return false, false }
