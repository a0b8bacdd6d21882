package opcua

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/drivers/opcua/opcuasim"
)

// TestFilesMovedByHand: DER and PEM count, several in a file, and behind a link; what is no certificate is passed over.
func TestFilesMovedByHand(t *testing.T) {
	p := PKI{t.TempDir()}
	dir, elsewhere := filepath.Join(p.Path, "trusted"), t.TempDir()
	write := func(dir, name string, b []byte) string {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	link := func(from, name string) {
		t.Helper()
		if err := os.Symlink(from, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	made, err := opcuasim.NewIdentity(2048, nil)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate})
	write(dir, "a.der", made.Certificate)
	write(dir, "b.pem", slices.Concat(inPEM, inPEM))
	write(dir, "c.txt", []byte("not a certificate"))
	link(write(elsewhere, "x", made.Certificate), "d.der")
	link(filepath.Join(elsewhere, "gone"), "e.der")
	link(elsewhere, "f")
	if got := p.PassedOver(); len(got) != 1 || !strings.HasSuffix(got[0], "e.der among the certificates is passed over: it is a link to nowhere") {
		t.Errorf("passed over: %q", got)
	}
	all, err := p.List("trusted")
	var files []string
	for _, c := range all {
		files = append(files, c.File)
	}
	if want := []string{"a.der", "b.pem", "b.pem", "d.der"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v: %q, want %q", err, files, want)
	}
}
