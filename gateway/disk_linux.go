package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadOnlyHere reports whether a directory, or where it is not there the one above it, is read-only for this process alone, by the mounts that systemd or
// a container gave it: its file system is writable. Those mounts stay as they are while the process runs, whatever is remounted outside.
func ReadOnlyHere(dir string) bool {
	f, err := os.Open(dir)
	if os.IsNotExist(err) {
		f, err = os.Open(filepath.Dir(dir))
	}
	if err != nil {
		return false
	}
	defer f.Close()
	info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	_, id, _ := strings.Cut(string(info), "mnt_id:")
	id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) { // proc(5): ID, parent, device, root, place, options, …, "-", type, source, options of the file system
		mount, system, ok := strings.Cut(line, " - ")
		m, s := strings.Fields(mount), strings.Fields(system)
		if ok && len(m) > 5 && len(s) > 2 && m[0] == id {
			return isReadOnly(m[5]) && !isReadOnly(s[2])
		}
	}
	return false
}

func isReadOnly(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
