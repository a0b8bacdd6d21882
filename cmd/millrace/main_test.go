package main

import (
	"cmp"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestUnknownCommand: every group of commands refuses a name that it does not have, as the root does.
func TestUnknownCommand(t *testing.T) {
	for _, group := range []string{"", "buffer", "buffer quarantine", "modbus", "opcua", "opcua trust", "config"} {
		if got := execute(append(strings.Fields(group), "no-such"), io.Discard); got != exitUsage {
			t.Errorf("millrace %s no-such exits with %d, want %d", group, got, exitUsage)
		}
		if got := execute(strings.Fields(group), io.Discard); got != exitOK {
			t.Errorf("millrace %s exits with %d, want %d and its help", group, got, exitOK)
		}
	}
}

// TestVersion: the flag that most programs have says what the command says.
func TestVersion(t *testing.T) {
	var flag, command strings.Builder
	if execute([]string{"--version"}, &flag) != exitOK || execute([]string{"version"}, &command) != exitOK {
		t.Error("refused")
	}
	if flag.String() != command.String() || !strings.HasPrefix(flag.String(), "millrace "+version+" ") {
		t.Errorf("--version says %q, version %q", flag.String(), command.String())
	}
}

// TestConfigDefault: every command that takes a config takes ./millrace.yaml when it is told no other.
func TestConfigDefault(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if f := cmp.Or(cmd.Flags().Lookup("config"), cmd.PersistentFlags().Lookup("config")); f != nil && f.DefValue != "millrace.yaml" {
			t.Errorf("%s takes %q", cmd.CommandPath(), f.DefValue)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRoot())
}

// TestConfigMissing: a config that does not exist is refused; the gateway of the default path is another one.
func TestConfigMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file, stop := running(t, dir)
	defer stop()
	until(t, "good", "values", "--config", file)
	t.Chdir(filepath.Dir(dir))
	for _, args := range []string{"ack", "reload", "health", "values", "write a/b 1"} {
		if got := execute(append(strings.Fields(args), "--config", "no-such.yaml"), io.Discard); got == exitOK {
			t.Errorf("millrace %s with no such config exits with 0", args)
		}
	}
	_, url, _ := strings.Cut(readFile(t, file), "url: tcp:")
	url, _, _ = strings.Cut("tcp:"+url, "\n")
	for _, args := range []string{"modbus trace meter-1 --count 1", "modbus read " + url + " holding:1"} {
		root := newRoot()
		root.SetOut(io.Discard)
		root.SetArgs(append(strings.Fields(args), "--config", "no-such.yaml"))
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), "it does not exist; check the path") {
			t.Errorf("millrace %s with no such config: %v", args, err)
		}
	}
	if _, err := storePath("no-such.yaml"); err == nil || !strings.Contains(err.Error(), "it does not exist; check the path") {
		t.Errorf("no such config: %v", err)
	}
}

// TestUseProcessors: GOMAXPROCS follows the machine unless the config says otherwise, and who sets it in the environment has the last word.
func TestUseProcessors(t *testing.T) {
	machine := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(machine)
	for _, c := range []struct {
		environment string
		config      int
		want        int
	}{{"", 0, machine}, {"", machine + 3, machine + 3}, {"2", machine + 5, machine}} {
		t.Setenv("GOMAXPROCS", c.environment)
		runtime.GOMAXPROCS(machine)
		if useProcessors(c.config); runtime.GOMAXPROCS(0) != c.want {
			t.Errorf("%+v: %d processors", c, runtime.GOMAXPROCS(0))
		}
	}
}
