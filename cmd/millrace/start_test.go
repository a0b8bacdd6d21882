package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/gateway"
	"millrace/gateway/config"
)

var errNoRoom = &fs.PathError{Op: "write", Path: "own.pem", Err: syscall.ENOSPC}

// TestStopWhileItStarts: a try to start that is under way has a while to end after a stop, and none after a second signal.
func TestStopWhileItStarts(t *testing.T) {
	for _, c := range []struct {
		name         string
		takes, hurry time.Duration // after the stop
		want         error
		after        time.Duration
	}{
		{"ends", lastTry / 2, time.Hour, errStopped, lastTry / 2},
		{"hangs", time.Hour, time.Hour, gateway.ErrHung, lastTry},
		{"second signal", time.Hour, time.Second, gateway.ErrHung, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &start{every: waitForDisk, o: gateway.Options{Log: slog.New(slog.DiscardHandler), Load: func() (*config.Config, error) { return &config.Config{}, nil }}}
				s.open = func(context.Context, *config.Config, gateway.Options) (*gateway.Gateway, error) {
					time.Sleep(time.Minute + c.takes)
					return nil, errNoRoom
				}
				began := time.Now()
				running, stop := context.WithTimeout(t.Context(), time.Minute)
				defer stop()
				hurry, now := context.WithTimeout(t.Context(), time.Minute+c.hurry)
				defer now()
				if _, err := s.gateway(running, hurry, &config.Config{}); !errors.Is(err, c.want) || time.Since(began) != time.Minute+c.after {
					t.Errorf("%v after %v", err, time.Since(began))
				}
				time.Sleep(2 * time.Hour) // the try ends
			})
		})
	}
}

// TestEachTryHasAConfig: a start that failed after it had taken its config over is tried again with that of the file, as it is then.
func TestEachTryHasAConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used, tries := map[*config.Config]bool{}, 0
		s := &start{every: waitForDisk, o: gateway.Options{Log: slog.New(slog.DiscardHandler), Load: func() (*config.Config, error) { return &config.Config{}, nil }}}
		s.open = func(_ context.Context, cfg *config.Config, _ gateway.Options) (*gateway.Gateway, error) {
			used[cfg] = true
			if tries++; tries == 3 {
				return nil, nil
			}
			return nil, errNoRoom
		}
		if _, err := s.gateway(t.Context(), t.Context(), &config.Config{}); err != nil || len(used) != 3 {
			t.Errorf("%d configs for %d tries, %v", len(used), tries, err)
		}
	})
}
