package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"millrace/buffer"
	"millrace/gateway"
	"millrace/gateway/config"
)

const (
	waitForDisk = 10 * time.Second // how often a start that waits for its disk is tried again
	lastTry     = 5 * time.Second  // how long a try that is under way has to end after a stop
)

var (
	errStopped = errors.New("told to stop before it had started")
	errAway    = errors.New("another disk is at its place than when the start began to wait, and no store is on that; to begin a new one on it, start the process again")
)

// start is a start of the gateway that waits where the disk is full or read-only, until somebody has seen to that: it needs no restart, as it does
// not while the gateway runs.
type start struct {
	o       gateway.Options
	hangups <-chan os.Signal // each reads the config again
	every   time.Duration
	waiting atomic.Bool
	open    func(context.Context, *config.Config, gateway.Options) (*gateway.Gateway, error) // gateway.New
	from    site                                                                             // of the store that is waited for
}

// gateway returns the gateway, or errStopped when running ended while it waited.
func (s *start) gateway(running, hurry context.Context, cfg *config.Config) (*gateway.Gateway, error) {
	var before *config.Config // that was waited with before the present one was read; nil = there is none
	for said := ""; ; {
		g, err := s.once(running, hurry, cfg)
		if waitsFor(err) == "" && err != nil && before != nil && running.Err() == nil {
			s.o.Log.Error("no start with the config that was read again: the one before is waited with", "error", err)
			cfg, before = before, nil
			s.apply(cfg)
			continue
		}
		if waitsFor(err) == "" {
			s.goOn(err)
			return g, err
		}
		s.waiting.Store(true)
		if why := waitsFor(err); why+err.Error() != said && running.Err() == nil {
			s.tell(why, err)
			said = why + err.Error()
		}
		notifySystemd(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (s.every + time.Minute).Microseconds()))
		if !untouched(err) {
			if cfg, err = s.o.Load(); err != nil {
				return nil, err
			}
		}
		select {
		case <-running.Done():
			return nil, errStopped
		case <-s.hangups:
			if next := s.again(running); next != nil {
				before, cfg = cfg, next
			}
		case <-time.After(s.every):
		}
	}
}

// untouched reports whether a start that failed left its config as it was: it came no further than the store.
func untouched(err error) bool {
	return errors.As(err, new(gateway.StoreError)) || errors.Is(err, errAway)
}

// tell says, once, in the log and to systemd that the start waits.
func (s *start) tell(why string, err error) {
	s.o.Log.Error("nothing is polled: the gateway cannot start before "+why+", which is tried again and again", "every", s.every, "error", err)
	notifySystemd("STATUS=nothing is polled before " + why + ": " + strings.ReplaceAll(err.Error(), "\n", "; "))
}

// waitsFor says what a start that failed waits for, "" for nothing. A read-only file that is not the store's stands in a place that is a mistake.
func waitsFor(err error) string {
	var e *exitError
	store := errors.As(err, new(gateway.StoreError))
	switch {
	case errors.As(err, &e):
	case errors.Is(err, errAway):
		return "the disk of its store is mounted again"
	case buffer.IsDiskFull(err) && store:
		return "there is room on the disk of its store"
	case buffer.IsDiskFull(err):
		return "there is room on its disk"
	case buffer.IsReadOnly(err) && store:
		return "the disk of its store, which is read-only, is mounted writable (the kernel's log says whether an error of the disk made it so)"
	}
	return ""
}

// seeMounts makes an error to leave with of a store that is read-only for this process alone: no wait ends that, it is a mistake of installation. After
// a wait it is what is left of a disk that was read-only when the process was started, and a new process gets other mounts: the code is one that systemd restarts after.
func (s *start) seeMounts(err error, dir string) error {
	if !buffer.IsReadOnly(err) || !errors.As(err, new(gateway.StoreError)) || !gateway.ReadOnlyHere(dir) {
		return err
	}
	if s.waiting.Load() {
		return &exitError{exitFailed, fmt.Errorf("%w; for this process alone it is not, though the disk is writable again: start the process again", err)}
	}
	return &exitError{exitStartup, fmt.Errorf("%w; for this process alone it is not: let systemd (StateDirectory=, ReadWritePaths=) or the container give it this path to write", err)}
}

// once tries the start. After a stop that has lastTry to end, none after a second signal: the store is opened so that a kill costs it nothing.
func (s *start) once(running, hurry context.Context, cfg *config.Config) (*gateway.Gateway, error) {
	type result struct {
		g   *gateway.Gateway
		err error
	}
	done := make(chan result, 1)
	go func() {
		g, err := s.try(context.WithoutCancel(running), cfg)
		done <- result{g, err}
	}()
	var late <-chan time.Time
	for stopped := running.Done(); ; {
		select {
		case r := <-done:
			return r.g, r.err
		case <-stopped:
			stopped, late = nil, time.After(lastTry)
			continue
		case <-late:
		case <-hurry.Done():
		}
		s.o.Log.Error("the start did not end in time after it was told to stop: its disk may not answer; nothing was polled")
		return nil, gateway.ErrHung
	}
}

// try opens the gateway, where the store that is waited for may be: a disk that is unmounted to be repaired, or another put in its place, is no reason to
// make a new store in the directory that is seen meanwhile.
func (s *start) try(ctx context.Context, cfg *config.Config) (*gateway.Gateway, error) {
	path := cfg.Buffer.Path
	if s.from.left(path) {
		return nil, fmt.Errorf("open buffer %q: %w", path, errAway)
	}
	g, err := s.open(ctx, cfg, s.o)
	if err = s.seeMounts(err, path); waitsFor(err) != "" && s.from.path != path {
		s.from = siteOf(path)
	}
	return g, err
}

// site is where a store is: a path, and the file system that is there.
type site struct {
	path   string
	device uint64
	known  bool // the device is
}

func siteOf(path string) site {
	device, known := gateway.DeviceOf(path)
	return site{path, device, known}
}

// left reports whether at the same path there is now another file system, or nothing that could be one, and no store.
func (w site) left(path string) bool {
	if now := siteOf(path); path != w.path || !w.known || now.known && now.device == w.device {
		return false
	}
	return !buffer.IsStore(path)
}

// again reads the config again. Nil when it has a mistake, or running has ended: the one before stays.
func (s *start) again(running context.Context) *config.Config {
	if running.Err() != nil {
		return nil
	}
	next, err := s.o.Load()
	if err != nil {
		s.o.Log.Error("config not read again: the start goes on with the one read before", "error", err)
		return nil
	}
	s.apply(next)
	s.o.Log.Info("config read again; the start is tried with it at once")
	return next
}

// apply puts into force what does not wait for the start.
func (s *start) apply(cfg *config.Config) {
	s.o.SetLogLevel(cfg.Log.Level)
	useProcessors(cfg.Processors)
}

// goOn ends the wait.
func (s *start) goOn(err error) {
	if s.waiting.Swap(false) && err == nil {
		notifySystemd("STATUS=")
	}
}
