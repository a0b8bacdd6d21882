//go:build !linux

package buffer

func otherChild() bool { return false }
