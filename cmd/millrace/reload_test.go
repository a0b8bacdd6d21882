package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"millrace/gateway/config"
)

// TestReloadCommand: the command puts a change into force, and refuses a mistake with what check says of it, exit 1.
func TestReloadCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	file, stop := running(t, dir)
	good := readFile(t, file)
	reload := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if got := execute(append([]string{"reload"}, args...), &out); got != want {
			t.Fatalf("reload %q exits with %d, want %d: %s", args, got, want, &out)
		}
		return out.String()
	}
	if out := until(t, "nothing changed", "reload", "--config", file); !strings.Contains(out, "is in force, config ") {
		t.Errorf("unchanged: %q", out)
	}
	writeFile(t, file, strings.Replace(good, "password: hush-hush", "password: hush-hush, window: 7", 1))
	if out := reload(exitOK, "--path", dir); !strings.Contains(out, "destinations that log in again: cloud\nconnections untouched: ") || strings.Contains(out, "hush") {
		t.Errorf("with another window: %q", out)
	}
	var plan bytes.Buffer
	execute([]string{"check", "--config", file}, &plan)
	hash, _, _ := strings.Cut(plan.String()[strings.Index(plan.String(), "\nconfig ")+8:], ";")
	if out := reload(exitOK, "--config", file); !strings.Contains(out, "config "+hash) {
		t.Errorf("check says that the config is %s, reload %q", hash, out)
	}
	writeFile(t, file, strings.Replace(good, "password: hush-hush", "password: hush-three, window: 7", 1))
	if out := reload(exitOK, "--config", file); !strings.Contains(out, "config "+hash) || !strings.Contains(out, "log in again: cloud") || !strings.Contains(plan.String(), "; secrets do not change it\n") {
		t.Errorf("with another password, before %s: %q; check says %s", hash, out, &plan)
	}
	writeFile(t, file, strings.Replace(good, "hush-hush", "hush-hush, passwort: hush-two", 1))
	reload(exitFailed, "--config", file) // the store is found all the same
	_, refused := askReload(t.Context(), dir, "")
	_, check := config.Load(file, protocols(), config.Options{})
	if refused == nil || check == nil || refused.Error() != check.Error() || strings.Contains(refused.Error(), "hush") {
		t.Errorf("reload says %v, check %v", refused, check)
	}
	stop()
	writeFile(t, file, good)
	said := stderrOf(t, func() { reload(exitFailed, "--config", file) })
	contains(t, said, "is it running", "buffer.path is what was changed, that needs a restart")
	if said = stderrOf(t, func() { reload(exitFailed, "--path", dir) }); strings.Contains(said, "buffer.path") {
		t.Errorf("with --path: %s", said)
	}
	if _, err := askReload(t.Context(), dir, ""); err == nil || !strings.Contains(err.Error(), "no gateway answers") {
		t.Errorf("without a gateway: %v", err)
	}
	if got := execute([]string{"reload", "everything"}, io.Discard); got != exitUsage {
		t.Errorf("an argument too many exits with %d", got)
	}
}
