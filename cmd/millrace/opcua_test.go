package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/drivers"
	"millrace/drivers/opcua"
	"millrace/drivers/opcua/opcuasim"
)

// TestOPCUACommands does what the error of a first connect says, and connects.
func TestOPCUACommands(t *testing.T) {
	s, err := opcuasim.New(opcuasim.Options{Policies: []string{"http://opcfoundation.org/UA/SecurityPolicy#Aes256_Sha256_RsaPss"}, NoneToo: true, Username: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	run := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := execute(append([]string{"opcua"}, args...), &out); code != want {
			t.Errorf("%v: exit code %d, want %d", args, code, want)
		}
		return out.String()
	}
	dir := filepath.Join(t.TempDir(), "pki")
	d, err := opcua.Protocol().New(drivers.Connection{URL: s.Endpoint(), Devices: []drivers.Device{{
		Name: "x", URL: s.Endpoint(), Timeout: 10e9, Options: map[string]string{"pki": dir, "username": "u", "password": "p"}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.Connect(t.Context())
	if err == nil || !strings.Contains(err.Error(), "run: millrace opcua trust add ") {
		t.Fatalf("the first connect: %v", err)
	}
	_, line, _ := strings.Cut(err.Error(), "run: millrace opcua ")
	offers := run(0, "endpoints", s.Endpoint())
	thumb := strings.Fields(line)[2]
	for _, want := range []string{"aes256-sha256-rsapss  sign-and-encrypt  user names", "none                  none", "thumbprint " + thumb} {
		if !strings.Contains(offers, want) {
			t.Errorf("endpoints shows\n%s\nwithout %q", offers, want)
		}
	}
	if got := run(0, "trust", "ls", "--pki", dir); !strings.Contains(got, "rejected  "+thumb) {
		t.Errorf("trust ls shows\n%s", got)
	}
	run(0, strings.Fields(line)...) // as the error says it
	if err := d.Connect(t.Context()); err != nil {
		t.Error(err)
	}
	if got := run(0, "trust", "ls", "--pki", dir); !strings.Contains(got, "trusted  "+thumb) || strings.Contains(got, "rejected") || strings.Count(got, "own ") != 1 {
		t.Errorf("trust ls shows\n%s", got)
	}
	file := filepath.Join(filepath.Dir(dir), "millrace.yaml") // beside the folder; the rest of the config may have mistakes
	for text, want := range map[string]int{"": 1, "pki: {path: ./pki}\n": 1, "pki: {path: ./other}\n": 0, "nonsense: 1\n": 1} {
		writeFile(t, file, text)
		if got := run(0, "trust", "ls", "--config", file); strings.Count(got, "trusted  "+thumb) != want {
			t.Errorf("%q: trust ls shows\n%s", text, got)
		}
	}
	run(exitFailed, "trust", "ls", "--config", file+".none")
	run(0, "trust", "remove", thumb[:8], "--pki", dir)
	run(exitFailed, "trust", "remove", thumb, "--pki", dir)
	run(exitFailed, "trust", "add", thumb, "--pki", dir)
	der := filepath.Join(t.TempDir(), "server.der")
	if err := os.WriteFile(der, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(exitFailed, "trust", "add", der, "--pki", dir)
	run(exitFailed, "endpoints", "192.168.1.20")
	run(exitUsage, "trust", "add")
}
