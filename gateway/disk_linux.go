package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ReadOnlyHere reports whether a directory, or where it is not there the one above it, is read-only for this process alone, by the mounts that systemd or
// a container gave it: its file system is writable. Those mounts stay as they are while the process runs, whatever is remounted outside.
func ReadOnlyHere(dir string) bool {
	mount, system := optionsAt(dir)
	return slices.Contains(mount, "ro") && !slices.Contains(system, "ro") && !slices.Contains(system, emergency)
}

// emergency is the option of an ext4 that takes nothing any more after an error, as errors=remount-ro wants it: older kernels make it "ro" then.
// Neither access nor statfs shows it.
const emergency = "emergency_ro"

// inEmergency reports whether the file system of a directory, or where it is not there of the one above it, takes nothing any more after an error.
func inEmergency(dir string) bool {
	_, system := optionsAt(dir)
	return slices.Contains(system, emergency)
}

// optionsAt returns the options of the mount that a directory, or where it is not there the one above it, is on, and those of its file system; none where they are not known.
func optionsAt(dir string) (mount, system []string) {
	f, err := os.OpenFile(dir, unix.O_PATH, 0) // which takes no permission to read
	if os.IsNotExist(err) {
		f, err = os.OpenFile(filepath.Dir(dir), unix.O_PATH, 0)
	}
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	_, id, _ := strings.Cut(string(info), "mnt_id:")
	id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	return optionsOf(string(mounts), id)
}

// optionsOf finds a mount in what /proc/self/mountinfo holds.
func optionsOf(mounts, id string) (mount, system []string) {
	for line := range strings.Lines(mounts) { // proc(5): ID, parent, device, root, place, options, …, "-", type, source, options of the file system
		before, after, ok := strings.Cut(line, " - ")
		m, s := strings.Fields(before), strings.Fields(after)
		if ok && len(m) > 5 && len(s) > 2 && m[0] == id {
			return strings.Split(m[5], ","), strings.Split(s[2], ",")
		}
	}
	return nil, nil
}
