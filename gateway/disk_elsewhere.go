//go:build !linux

package gateway

// ReadOnlyHere is not known here.
func ReadOnlyHere(string) bool { return false }

// inEmergency is not known here.
func inEmergency(string) bool { return false }
