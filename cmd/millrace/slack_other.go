//go:build !linux

package main

// relaxTimers is for Linux, where the timer slack belongs to each thread.
func relaxTimers() {}
