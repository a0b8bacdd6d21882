package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Nothing here has a mount point. File systems are mounted detached and reached through a descriptor, and
// loop devices let go of their file by themselves: when the process ends, however it ends, the kernel
// unmounts and frees everything.

const fsconfigCreateExcl = 8 // FSCONFIG_CMD_CREATE_EXCL, Linux 6.6: never share a file system that is still mounted

// mountDetached mounts a file system without attaching it anywhere and returns a descriptor of its root.
// An option without value is a flag.
func mountDetached(kind string, options [][2]string) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", kind, err)
	}
	defer unix.Close(ctx)
	for _, o := range options {
		if o[1] == "" {
			err = unix.FsconfigSetFlag(ctx, o[0])
		} else {
			err = unix.FsconfigSetString(ctx, o[0], o[1])
		}
		if err != nil {
			return -1, fmt.Errorf("set option %q of %s: %w", o[0]+"="+o[1], kind, err)
		}
	}
	if _, _, errno := unix.Syscall6(unix.SYS_FSCONFIG, uintptr(ctx), fsconfigCreateExcl, 0, 0, 0, 0); errno != 0 {
		return -1, fmt.Errorf("mount %s: %w", kind, errno)
	}
	root, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", kind, err)
	}
	return root, nil
}

// mountExt4 mounts the ext4 of a block device. options are as in mount -o.
func mountExt4(device, options string) (root int, err error) {
	list := [][2]string{{"source", device}, {"nodiscard"}}
	for _, o := range strings.Split(options, ",") {
		if name, value, _ := strings.Cut(o, "="); name != "" {
			list = append(list, [2]string{name, value})
		}
	}
	return mountDetached("ext4", list)
}

// serve serves a disk as a file and returns its descriptor. The service ends with the last user of the file.
func serve(d *disk) (file int, err error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	root, err := mountDetached("fuse", [][2]string{{"source", "powercut"}, {"fd", fmt.Sprint(dev)},
		{"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"}})
	if err != nil {
		unix.Close(dev)
		return -1, err
	}
	defer unix.Close(root)
	dir := &fs.Inode{}
	server, err := fuse.NewServer(fs.NewNodeFS(dir, &fs.Options{}), fmt.Sprintf("/dev/fd/%d", dev), &fuse.MountOptions{MaxWrite: 1 << 20})
	if err != nil {
		unix.Close(dev)
		return -1, fmt.Errorf("serve fuse: %w", err)
	}
	go server.Serve()
	dir.AddChild("disk", dir.NewPersistentInode(context.Background(), d, fs.StableAttr{Mode: unix.S_IFREG}), true)
	file, err = unix.Openat(root, "disk", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the file of the disk: %w", err)
	}
	return file, nil
}

// attach puts a loop device on a file. The device lives as long as it is open or mounted.
func attach(file int, direct bool) (path string, device int, err error) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", -1, fmt.Errorf("open /dev/loop-control: %w", err)
	}
	defer unix.Close(control)
	config := unix.LoopConfig{Fd: uint32(file), Size: sectorSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if direct {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	for range 100 { // another process may take the free one first
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", -1, fmt.Errorf("find a free loop device: %w", err)
		}
		path = fmt.Sprintf("/dev/loop%d", n)
		if device, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return "", -1, fmt.Errorf("open %s: %w", path, err)
		}
		err = unix.IoctlLoopConfigure(device, &config)
		if err == nil {
			return path, device, nil
		}
		unix.Close(device)
		if !errors.Is(err, unix.EBUSY) {
			return "", -1, fmt.Errorf("configure %s: %w", path, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "", -1, errors.New("no free loop device in 100 attempts")
}

// isDirect reports whether a loop device passes writes on without a cache of its own.
func isDirect(device string) bool {
	text, err := os.ReadFile("/sys/block/" + filepath.Base(device) + "/loop/dio")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// makeExt4 returns an empty file system. Blocks have 4096 bytes as on every drive of an edge box; the
// journal is as small as it can be, so that it goes round.
func makeExt4(dir string) ([]byte, error) {
	path := filepath.Join(dir, "empty.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(path)
	if err := os.Truncate(path, diskSize); err != nil {
		return nil, err
	}
	out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return os.ReadFile(path)
}

// forgetSyncs makes every fsync and fdatasync of this process succeed without doing anything: a store
// with NoSync, whatever its code.
func forgetSyncs() error {
	const loadWord, jumpEqual, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	program := []unix.SockFilter{
		{Code: loadWord, K: 0}, // the number of the system call
		{Code: jumpEqual, K: unix.SYS_FSYNC, Jt: 2},
		{Code: jumpEqual, K: unix.SYS_FDATASYNC, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO}, // with errno 0
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}
