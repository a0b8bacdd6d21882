//go:build unix

package opcua

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// TestPipeAmongCertificates: a pipe among the certificates hangs nobody, and a note of the device says that it is passed over.
func TestPipeAmongCertificates(t *testing.T) {
	made, err := opcuasim.NewIdentity(2048, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := connection("opc.tcp://h", time.Second, "ns=2;s=v0")
	c.Devices[0].Options["pki"] = t.TempDir()
	d, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.Devices[0].Options["pki"], "issuers")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "ca.der"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &d.(*driver).set
	_, _ = s.trusted(made.Certificate, &endpoint{url: "opc.tcp://h"}) // it is not
	if notes := d.(*driver).Notes(); len(notes) != 1 || !strings.HasSuffix(notes[0], "ca.der among the certificates is passed over: it is not a regular file") {
		t.Errorf("notes %q", notes)
	}
}
