//go:build !linux && !darwin

package gateway

// FreeBytes is not known here.
func FreeBytes(string) (int64, bool) { return 0, false }

// DeviceOf is not known here.
func DeviceOf(string) (device uint64, known bool) { return 0, false }

// writable is not known here.
func writable(string) error { return nil }
