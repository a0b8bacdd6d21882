//go:build !linux || 386 || arm

package buffer

func otherChild() bool { return false }
