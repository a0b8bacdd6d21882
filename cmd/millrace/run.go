package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"millrace/gateway"
	"millrace/gateway/config"
)

type logFlags struct{ level, format string }

func (f *logFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "", "debug, info, warn or error (default: the config's log.level, info)")
	cmd.Flags().StringVar(&f.format, "log-format", "", "text or json (default: the config's log.format, text)")
}

// logger returns a logger on stderr. Flags come before the config.
func (f *logFlags) logger(level, format string) (*slog.Logger, error) {
	if f.level != "" {
		level = f.level
	}
	if f.format != "" {
		format = f.format
	}
	var opts slog.HandlerOptions
	var lv slog.Level
	if level == "" {
		level = "info"
	}
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is unknown; use debug, info, warn or error", level)
	}
	opts.Level = lv
	switch strings.ToLower(format) {
	case "", "text":
		return slog.New(slog.NewTextHandler(os.Stderr, &opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, &opts)), nil
	}
	return nil, fmt.Errorf("log format %q is unknown; use text or json", format)
}

func newRun() *cobra.Command {
	var file, profile string
	var lf logFlags
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the gateway until SIGINT or SIGTERM",
		Long: `Run the gateway. SIGINT or SIGTERM stops it: polling ends, what was read is published for up to the
grace time, the rest is committed to the store, exit 0. A second signal skips the grace time.`,
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
	tune()
	cfg, err := config.Load(file, protocols(), config.Options{})
	if err != nil {
		return &exitError{exitStartup, err}
	}
	log, err := lf.logger(cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	g, err := gateway.New(ctx, cfg, version, log)
	if err != nil {
		return &exitError{exitStartup, err}
	}
	running, hurry, release := signals(ctx, log)
	defer release()
	notifySystemd("READY=1")
	if err := g.Run(running, hurry); err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// signals returns a context that ends at the first SIGINT or SIGTERM and one that ends at the second.
func signals(ctx context.Context, log *slog.Logger) (first, second context.Context, release func()) {
	first, stop := context.WithCancel(ctx)
	second, hurry := context.WithCancel(ctx)
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range ch {
			if first.Err() != nil {
				hurry()
				continue
			}
			log.Info("stopping; again to skip the grace time", "signal", s.String())
			notifySystemd("STOPPING=1")
			stop()
		}
	}()
	return first, second, func() {
		signal.Stop(ch)
		close(ch)
		stop()
		hurry()
	}
}
