package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"millrace/gateway"
	"millrace/gateway/config"
)

type logFlags struct{ level, format string }

// levelOf returns the level that the flag, else the config asks for.
func (f *logFlags) levelOf(level string) (lv slog.Level, err error) {
	if f.level != "" {
		level = f.level
	}
	if level == "" {
		level = "info"
	}
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return lv, fmt.Errorf("log level %q is unknown; use debug, info, warn or error", level)
	}
	return lv, nil
}

func (f *logFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "", "debug, info, warn or error (default: the config's log.level, info)")
	cmd.Flags().StringVar(&f.format, "log-format", "", "text or json (default: the config's log.format, text)")
}

// logger returns a logger on stderr and what sets its level to another one of the config. Flags come before the config.
func (f *logFlags) logger(cfg config.Log) (log *slog.Logger, setLevel func(string), err error) {
	lv, err := f.levelOf(cfg.Level)
	if err != nil {
		return nil, nil, err
	}
	level := new(slog.LevelVar)
	level.Set(lv)
	setLevel = func(word string) {
		if lv, err := f.levelOf(word); err == nil { // the config has been checked
			level.Set(lv)
		}
	}
	format := cfg.Format
	if f.format != "" {
		format = f.format
	}
	opts := slog.HandlerOptions{Level: level}
	switch strings.ToLower(format) {
	case "", "text":
		return slog.New(slog.NewTextHandler(os.Stderr, &opts)), setLevel, nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, &opts)), setLevel, nil
	}
	return nil, nil, fmt.Errorf("log format %q is unknown; use text or json", format)
}

func newRun() *cobra.Command {
	var file, profile string
	var lf logFlags
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the gateway until SIGINT or SIGTERM",
		Long: `Run the gateway. SIGINT or SIGTERM stops it: polling ends, what was read is published for up to the
grace time, the rest is committed to the store, exit 0. A second signal skips the grace time.

Exit 0 after a stop that lost nothing; 1 when the stop lost readings, because the store could not take what was not delivered (its disk is
full, or fails), as the log and the gap messages say; 3 when it could not start; 4 when something did not end in time.

A start on a disk that is full or read-only waits until somebody has seen to it: the log, and systemctl status, say why. SIGINT or SIGTERM
ends it, exit 0; where SIGHUP means to reload, the config is read again and the start tried at once.

Without a terminal, as under systemd, SIGHUP loads the config again as ` + "`millrace reload`" + ` does, and the log says what changed or
why nothing did. With one, SIGHUP means that the terminal is gone, and stops the gateway; under nohup it means nothing.`,
		Example: `  millrace run --config millrace.yaml
  millrace run --config millrace.yaml --log-format json --log-level debug`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stop, err := startProfile(profile)
			if err != nil {
				return err
			}
			defer stop()
			return runGateway(cmd.Context(), file, &lf)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "millrace.yaml", "config file")
	cmd.Flags().StringVar(&profile, "cpuprofile", "", "write a CPU profile of the run to this file")
	_ = cmd.Flags().MarkHidden("cpuprofile") // for cmd/millrace-bench
	lf.register(cmd)
	return cmd
}

func runGateway(ctx context.Context, file string, lf *logFlags) error {
	saveMemory()
	hangups := make(chan os.Signal, 1) // one more is as good as many: each loads the newest file
	meaning := meaningOfHangup()
	if meaning == hangupReloads {
		signal.Notify(hangups, syscall.SIGHUP)
	}
	known := protocols() // one list for all loads: listeners outlive a reload
	load := func() (*config.Config, error) {
		defer collectOften()()
		return config.Load(file, known, config.Options{})
	}
	cfg, err := load()
	if err != nil {
		return &exitError{exitStartup, err}
	}
	useProcessors(cfg.Processors)
	log, setLevel, err := lf.logger(cfg.Log)
	if err != nil {
		return err
	}
	if meaning == hangupNothing {
		log.Info("SIGHUP was ignored when this process was started, as under nohup, and still is: it neither reloads nor stops; reload with `millrace reload`")
	}
	s := &start{o: gateway.Options{Version: version, Log: log, Load: load, SetLogLevel: setLevel}, hangups: hangups, every: waitForDisk, open: gateway.New}
	running, hurry, release := signals(ctx, meaning == hangupStops, &s.waiting, log)
	defer release()
	g, err := s.gateway(running, hurry, cfg)
	switch {
	case errors.Is(err, errStopped):
		return nil
	case errors.Is(err, gateway.ErrHung):
		os.Exit(exitHung) // as below
	case errors.As(err, new(*exitError)):
		return err
	case err != nil:
		return &exitError{exitStartup, err}
	}
	defer reloadOn(running, hangups, g)()
	notifySystemd("READY=1")
	defer keepAlive()()
	err = g.Run(running, hurry)
	if errors.Is(err, gateway.ErrHung) {
		os.Exit(exitHung) // not by return: what hangs may hold what is waited for there; the log has said why
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// reloadOn reloads at each hangup until release is called. What comes of it, the gateway logs. The signal stays caught after that: it does not kill a process
// that is about to end well.
func reloadOn(ctx context.Context, hangups <-chan os.Signal, g *gateway.Gateway) (release func()) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-hangups:
				_, _ = g.Reload(ctx)
			case <-over:
				return
			}
		}
	})
	return func() {
		close(over)
		wg.Wait()
	}
}

// signals returns a context that ends at the first SIGINT, SIGTERM or, where it means that, SIGHUP, and one that ends at the second.
// waiting is whether the start waits, which then ends at once. The signals stay caught after release: one more does not kill a process that is about to end
// with its own exit code.
func signals(ctx context.Context, hangup bool, waiting *atomic.Bool, log *slog.Logger) (first, second context.Context, release func()) {
	first, stop := context.WithCancel(ctx)
	second, hurry := context.WithCancel(ctx)
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	if hangup {
		signal.Notify(ch, syscall.SIGHUP)
	}
	go func() {
		for {
			var s os.Signal
			select {
			case s = <-ch:
			case <-second.Done():
				return
			}
			if first.Err() != nil {
				hurry()
				return
			}
			if waiting.Load() {
				log.Info("stopped while the start waited for the disk of the store: nothing was polled, and the store is as it was", "signal", s.String())
			} else {
				log.Info("stopping; again to skip the grace time", "signal", s.String())
			}
			notifySystemd("STOPPING=1")
			stop()
		}
	}()
	return first, second, func() {
		stop()
		hurry()
	}
}
