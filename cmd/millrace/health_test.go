package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestHealth: a gateway without a page is healthy; one that has stopped is not.
func TestHealth(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	file, stop := running(t, dir)
	if !strings.Contains(readFile(t, file), "enabled: false") {
		t.Fatal("the test wants a gateway without a page")
	}
	until(t, `"status":"ok"`, "health", "--config", file)
	t.Chdir(filepath.Dir(file)) // ./millrace.yaml is the default of every command
	for _, args := range [][]string{nil, {"--config", file}, {"--path", dir}} {
		var out bytes.Buffer
		if got := execute(append([]string{"health"}, args...), &out); got != exitOK || out.String() != `{"status":"ok","problems":[]}`+"\n" {
			t.Errorf("health %q exits with %d: %s", args, got, &out)
		}
	}
	stop()
	if got := execute([]string{"health", "--config", file}, io.Discard); got != exitFailed {
		t.Errorf("of a gateway that has stopped it exits with %d", got)
	}
	if got := execute([]string{"health", "--config", file, "--path", dir}, io.Discard); got != exitUsage {
		t.Errorf("with two addresses it exits with %d", got)
	}
}

// TestHealthPage: only what answers as a gateway's page does says that a gateway is healthy.
func TestHealthPage(t *testing.T) {
	for body, want := range map[string]int{`{"status":"ok","problems":[]}`: exitOK, "hello": exitFailed, "{}": exitFailed, "": exitFailed} {
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		var out bytes.Buffer
		if got := execute([]string{"health", "--url", page.URL}, &out); got != want || (out.Len() > 0) != (want == exitOK) {
			t.Errorf("%q: exits with %d, want %d: %s", body, got, want, &out)
		}
		page.Close()
	}
}

// TestHealthSaysHow: without a scheme, or without a config, the command says how the gateway is named.
func TestHealthSaysHow(t *testing.T) {
	t.Chdir(t.TempDir())
	page := httptest.NewServer(http.NotFoundHandler())
	host := strings.TrimPrefix(page.URL, "http://")
	page.Close() // nobody listens there any more
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `there is no config "millrace.yaml"; name the gateway's with --config FILE, or its store with --path DIR, or its page with --url http://HOST:PORT/healthz`},
		{[]string{"--config", "none.yaml"}, `there is no config "none.yaml"; name`},
		{[]string{"--url", "localhost:9280"}, `--url "localhost:9280" does not begin with http:// or https://; write http://localhost:9280/healthz`},
		{[]string{"--url", "192.168.1.7:9280/healthz"}, `write http://192.168.1.7:9280/healthz`},
		{[]string{"--url", "mqtt://a:1"}, `--url "mqtt://a:1" is no page of a gateway; write http://a:1/healthz`},
		{[]string{"--url", "http://"}, `write http://HOST:PORT/healthz`},
		{[]string{"--url", "http://a b"}, `--url "http://a b" cannot be read`},
		{[]string{"--url", page.URL}, `ask "` + page.URL + `": dial tcp ` + host + `: connect: connection refused; is the gateway running?`},
	} {
		cmd := newHealth()
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs(c.args)
		err := cmd.Execute()
		var e *exitError
		if !errors.As(err, &e) || e.code != exitFailed || !strings.Contains(err.Error(), c.want) {
			t.Errorf("health %q: %v, want %s", c.args, err, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 1023: "0.999 KiB", 1024: "1 KiB", 1536: "1.5 KiB", 2 << 30: "2 GiB", 999.6 * (1 << 20): "0.976 GiB", 5 << 40: "5 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%v bytes are shown as %q, want %q", n, got, want)
		}
	}
}
