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

var errStopped = errors.New("told to stop before it had started")

// start is a start of the gateway that waits where the disk is full or read-only, until somebody has seen to that: it needs no restart, as it does
// not while the gateway runs.
type start struct {
	o       gateway.Options
	hangups <-chan os.Signal // each reads the config again
	every   time.Duration
	waiting atomic.Bool
	open    func(context.Context, *config.Config, gateway.Options) (*gateway.Gateway, error) // gateway.New
}

// gateway returns the gateway, or errStopped when running ended while it waited.
func (s *start) gateway(running, hurry context.Context, cfg *config.Config) (*gateway.Gateway, error) {
	for said := ""; ; {
		g, err := s.once(running, hurry, cfg)
		if err = s.seeMounts(err, cfg.Buffer.Path); waitsFor(err) == "" {
			s.goOn(err)
			return g, err
		}
		s.waiting.Store(true)
		if why := waitsFor(err); why != said && running.Err() == nil {
			s.tell(why, err)
			said = why
		}
		notifySystemd(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (s.every + time.Minute).Microseconds()))
		if !errors.As(err, new(gateway.StoreError)) { // what failed after the store was open has used cfg up
			if cfg, err = s.o.Load(); err != nil {
				return nil, err
			}
		}
		select {
		case <-running.Done():
			return nil, errStopped
		case <-s.hangups:
			cfg, said = s.again(cfg), ""
		case <-time.After(s.every):
		}
	}
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
		g, err := s.open(context.WithoutCancel(running), cfg, s.o)
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

// again reads the config again, and returns the one before where it has a mistake.
func (s *start) again(cfg *config.Config) *config.Config {
	next, err := s.o.Load()
	if err != nil {
		s.o.Log.Error("config not read again: the start goes on with the one read before", "error", err)
		return cfg
	}
	s.o.SetLogLevel(next.Log.Level)
	useProcessors(next.Processors)
	s.o.Log.Info("config read again; the start is tried with it at once")
	return next
}

// goOn ends the wait.
func (s *start) goOn(err error) {
	if s.waiting.Swap(false) && err == nil {
		notifySystemd("STATUS=")
	}
}
