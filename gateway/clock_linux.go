package gateway

import "syscall"

// staUnsync is STA_UNSYNC of linux/timex.h: nothing disciplines the clock. NTP daemons clear it.
const staUnsync = 0x40

// kernelSynced reads the kernel's flag; it changes nothing.
func kernelSynced() (synced, known bool) {
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return false, false
	}
	return t.Status&staUnsync == 0, true
}
