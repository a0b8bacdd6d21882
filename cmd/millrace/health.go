package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	neturl "net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/gateway"
	"millrace/gateway/web"
)

// healthWait bounds the whole question: container health checks give up after five seconds.
const healthWait = 4 * time.Second

// newHealth asks a running gateway for its health: the health check of a container without a shell.
func newHealth() *cobra.Command {
	var at gatewayFlags
	var url string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running gateway whether it is healthy (for container health checks)",
		Long: `Ask a running gateway whether it does its one duty: its store accepts readings. A broker or a device that is down is no reason
to restart it. It is asked through the socket in its store's directory, which is there whatever "web" says in the config, and which
--config or --path names; with --url through its page, perhaps on another machine. Exit 0 when it is healthy, 1 when not or when
nobody answers.`,
		Example: `  millrace health --config /etc/millrace/millrace.yaml
  millrace health --url http://192.168.1.7:9280/healthz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), healthWait)
			defer cancel()
			if url != "" {
				return askPage(ctx, url, cmd.OutOrStdout())
			}
			dir, mistakes := at.look()
			if dir == "" {
				return &exitError{exitFailed, elsewhere(at.file, mistakes)}
			}
			err := askSocket(ctx, dir, cmd.OutOrStdout())
			if errors.Is(err, web.ErrNoGateway) {
				if why, waits := gateway.DiskTrouble(dir); waits {
					err = fmt.Errorf("%w As seen from here %s: a gateway that is started may wait for that, as its log and systemctl status say", err, why)
				} else if why != "" {
					err = fmt.Errorf("%w As seen from here %s: with such mounts run does not wait but ends, with exit code 3; let systemd (StateDirectory=, ReadWritePaths=) or the container give it this path to write", err, why)
				}
				err = &exitError{exitFailed, errors.Join(err, mistakes)} // perhaps the store is another one
			}
			return err
		},
	}
	at.register(cmd)
	cmd.Flags().StringVar(&url, "url", "", "health page of the gateway, instead of a config")
	cmd.MarkFlagsMutuallyExclusive("config", "path", "url")
	return cmd
}

// elsewhere adds, where there is no config, how else a gateway can be named.
func elsewhere(file string, err error) error {
	if _, missing := os.Stat(file); !errors.Is(missing, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("there is no config %q; name the gateway's with --config FILE, or its store with --path DIR, or its page with --url http://HOST:PORT/healthz", file)
}

// askSocket asks through the local socket, and answers as the health page does.
func askSocket(ctx context.Context, dir string, out io.Writer) error {
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("ask for health: %w", err)}
	}
	defer c.Close()
	snap, err := c.Snapshot(ctx)
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("ask for health: %w", err)}
	}
	h := snap.Alive()
	for i := range snap.States { // all that is not ok stands there; only what a restart may mend fails the check
		fmt.Fprintln(os.Stderr, snap.States[i].String())
	}
	if err := json.NewEncoder(out).Encode(h); err != nil {
		return err
	}
	if h.Status == "failing" {
		return &exitError{exitFailed, errors.New("the gateway is not healthy: " + h.Problems[0])}
	}
	return nil
}

func askPage(ctx context.Context, url string, out io.Writer) error {
	if scheme, rest, ok := strings.Cut(url, "://"); !ok {
		return &exitError{exitFailed, fmt.Errorf("--url %q does not begin with http:// or https://; write %s", url, pageOf(url))}
	} else if scheme != "http" && scheme != "https" || rest == "" {
		return &exitError{exitFailed, fmt.Errorf("--url %q is no page of a gateway; write %s", url, pageOf(rest))}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("--url %q cannot be read; write http://HOST:PORT/healthz", url)}
	}
	resp, err := http.DefaultClient.Do(req)
	var of *neturl.Error
	if errors.As(err, &of) {
		err = of.Err // the url is named below
	}
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("ask %q: %w; is the gateway running?", url, err)}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var h web.Health
	if err := json.Unmarshal(body, &h); err != nil || h.Status == "" { // whatever else answers there says nothing of a gateway
		return &exitError{exitFailed, fmt.Errorf("%q answers %s, and not as the health page of a gateway does; write http://HOST:PORT/healthz", url, resp.Status)}
	}
	fmt.Fprintf(out, "%s\n", body)
	if resp.StatusCode != http.StatusOK {
		return &exitError{exitFailed, fmt.Errorf("the gateway at %q answers %s", url, resp.Status)}
	}
	return nil
}

// pageOf is the health page at a host and port, as far as rest names them.
func pageOf(rest string) string {
	host, path, _ := strings.Cut(rest, "/")
	return "http://" + cmp.Or(host, "HOST:PORT") + "/" + cmp.Or(path, "healthz")
}
