package powercut

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rig is what every test needs: an empty file system, and the disk that crashes are built on.
type rig struct {
	t     *testing.T
	empty []byte
	file  int    // the crashed disk, a file in memory
	image []byte // the same, mapped
}

// newRig makes a rig, or skips the test where the machine lacks something.
func newRig(t *testing.T) *rig {
	t.Helper()
	if err := usable(); err != nil {
		if os.Getenv("POWERCUT") == "required" {
			t.Fatalf("power cuts cannot be recorded here: %v", err)
		}
		t.Skipf("power cuts cannot be recorded here: %v", err)
	}
	r := &rig{t: t}
	var err error
	if r.empty, err = makeExt4(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if r.file, err = unix.MemfdCreate("crashed disk", unix.MFD_CLOEXEC); err != nil {
		t.Fatalf("make file in memory: %v", err)
	}
	t.Cleanup(func() { unix.Close(r.file) })
	if err = unix.Ftruncate(r.file, diskSize); err != nil {
		t.Fatalf("make file in memory: %v", err)
	}
	if r.image, err = unix.Mmap(r.file, 0, diskSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatalf("map file in memory: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munmap(r.image) })
	return r
}

// usable says what is missing on this machine, by trying all of it but the workload.
func usable() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root to mount")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return fmt.Errorf("needs e2fsprogs: %w", err)
	}
	file, err := serve(newDisk(make([]byte, diskSize)))
	if err != nil {
		return fmt.Errorf("needs FUSE: %w", err)
	}
	defer unix.Close(file)
	path, device, err := attach(file, true)
	if err != nil {
		return fmt.Errorf("needs loop devices: %w", err)
	}
	defer unix.Close(device)
	if !isDirect(path) {
		return fmt.Errorf("needs direct I/O of loop devices over FUSE, which %s has not", path)
	}
	root, err := mountExt4(path, "")
	if err == nil {
		unix.Close(root)
	} else if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EUCLEAN) { // what it says of a disk of zeros
		return fmt.Errorf("needs ext4 and Linux 6.6: %w", err)
	}
	return nil
}

// workloadTime is how long a workload may take, on however slow a machine.
const workloadTime = 5 * time.Minute

// record runs a workload on a disk that begins as image, and returns what it did and what it was promised.
func (r *rig) record(p plan, image []byte, d *disk, s *story) *recording {
	r.t.Helper()
	file, err := serve(d)
	if err != nil {
		r.t.Fatal(err)
	}
	path, device, err := attach(file, true)
	unix.Close(file) // the loop device has its own
	if err != nil {
		r.t.Fatal(err)
	}
	p.Device = path
	err = runProcess(p, func(rep *report) error {
		if device >= 0 && rep.Mounted {
			unix.Close(device) // from now on the mount holds it: were it ours, the kernel could wait for us when we are killed
			device = -1
		}
		return s.hear(rep, d.now())
	})
	if device >= 0 {
		unix.Close(device)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := errors.Join(err, d.err); err != nil {
		r.t.Fatalf("workload %q: %v", p.Name, err)
	}
	return newRecording(image, d.log)
}

// runProcess runs a workload in a process of its own and hears its reports.
func runProcess(p plan, hear func(*report) error) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	reports, reportsIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reports.Close()
	answersOut, answers, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answers.Close()
	var stderr bytes.Buffer
	cmd := exec.Command(exe)
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=100"}, append(os.Environ(), planEnv+"="+string(text))...) // it sleeps a second at its end, else
	cmd.ExtraFiles = []*os.File{reportsIn, answersOut}
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the signal is for the death of the thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	reportsIn.Close()
	answersOut.Close()
	late := time.AfterFunc(workloadTime, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err = listen(reports, answers, hear)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	if waitErr := cmd.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("%w: %s", waitErr, bytes.TrimSpace(stderr.Bytes()[:min(stderr.Len(), 4000)])))
	}
	return err
}

// errFileSystem means that a power cut took the whole file system.
var errFileSystem = errors.New("file system is lost")

// open mounts the crashed disk, which replays the journal, calls f with the store's directory, and unmounts.
// repaired says that the file system had to be mended with e2fsck first, as a boot script would.
func (r *rig) open(mount string, f func(dir string)) (repaired bool, err error) {
	path, device, err := attach(r.file, false)
	if err != nil {
		return false, err
	}
	defer unix.Close(device)
	root, err := mountExt4(path, mount)
	if err != nil {
		repaired = true
		out, fsckErr := exec.Command("e2fsck", "-fy", path).CombinedOutput()
		if root, err = mountExt4(path, mount); err != nil {
			line, _, _ := bytes.Cut(out, []byte("\n"))
			return repaired, fmt.Errorf("%w: %w, also after e2fsck (%v): %s", errFileSystem, err, fsckErr, line)
		}
	}
	f(fmt.Sprintf("/proc/self/fd/%d/store", root))
	if err := unix.Close(root); err != nil {
		return repaired, fmt.Errorf("unmount: %w", err)
	}
	return repaired, waitUnmounted(path)
}

// waitUnmounted waits until nothing has the device mounted: a leftover would show the next crash the last one's disk.
func waitUnmounted(device string) error {
	for range 1000 {
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_EXCL, 0)
		if err == nil {
			return unix.Close(fd)
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("look at %s: %w", device, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%s stays mounted; a file of the store was left open", device)
}

// keep saves the crashed disk for people to look at, when the test runs with -artifacts.
func (r *rig) keep(p *player, c crash) {
	image := make([]byte, diskSize)
	p.build(image, c)
	path := filepath.Join(r.t.ArtifactDir(), fmt.Sprintf("crash-%d.img", c.seed))
	if err := os.WriteFile(path, image, 0o600); err != nil {
		r.t.Logf("crashed disk not kept: %v", err)
		return
	}
	r.t.Logf("crashed disk: %s (run with -artifacts to keep it)", path)
}

func newRand(seed, what uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, what)) }
