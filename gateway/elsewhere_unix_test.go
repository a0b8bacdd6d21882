//go:build unix

package gateway

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"millrace/gateway/config"
)

// TestNothingIsKeptElsewhere: where another directory stands in the place of the store's, none of the files beside the store is written, which there are another gateway's.
func TestNothingIsKeptElsewhere(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "millrace.yaml")
	text := "gateway: shop\nweb: {enabled: false}\nbuffer: {path: " + dir + "}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1\"}\ndevices:\n" + device("a") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, newPlant().protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.buf.Close() }()
	files := []*kept{&g.losses.file, &g.missing.file, &g.learned.file, &g.selections.file}
	write := func(want error) {
		t.Helper()
		for _, f := range files {
			if err := f.write([]byte("{}")); !errors.Is(err, want) {
				t.Errorf("%s: %v", f.path, err)
			}
		}
	}
	write(nil)
	if err := errors.Join(os.Rename(dir, dir+"-x"), os.Mkdir(dir, 0o750)); err != nil {
		t.Fatal(err)
	}
	write(errElsewhere)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("%v was written, %v", names, err)
	}
}
