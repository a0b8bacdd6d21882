package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
)

// TestReferenceHoldsTheDefaults loads configs/reference.yaml, which says of every key what its default is.
func TestReferenceHoldsTheDefaults(t *testing.T) {
	path := filepath.Join("..", "..", "configs", "reference.yaml")
	c := mustLoad(t, path)
	want := Default()
	want.Buffer.Path = filepath.Join(filepath.Dir(path), want.Buffer.Path)
	if c.Processors != want.Processors || c.GraceTime != want.GraceTime || c.Log != want.Log || c.Web != want.Web || c.Buffer != want.Buffer {
		t.Errorf("got  %v %v %v %v\nwant %v %v %v %v", c.GraceTime, c.Log, c.Web, c.Buffer, want.GraceTime, want.Log, want.Web, want.Buffer)
	}
	dest := DefaultDestination()
	dest.Name, dest.URL, dest.ClientID = "cloud", "mqtt://broker.example:1883", c.Gateway
	if !reflect.DeepEqual(c.Destinations, []Destination{dest}) {
		t.Errorf("got  %+v\nwant %+v", c.Destinations[0], dest)
	}
	if d := c.Devices[0]; d.Timeout != DefaultTimeout || d.Retry != DefaultDeviceRetry() || d.Groups[0].Report != nil || d.Groups[0].Tags[0].Scaled() {
		t.Errorf("device %+v", d)
	}
}

// TestEveryKeyIsDocumented looks for each key in configs/reference.yaml and in README.md.
func TestEveryKeyIsDocumented(t *testing.T) {
	reference, err := os.ReadFile(filepath.Join("..", "..", "configs", "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	tables := newTables()
	for _, lv := range tables.levels() {
		for _, k := range lv.keys {
			if !regexp.MustCompile(`(?m)^[ #-]*` + k + `:`).Match(reference) {
				t.Errorf("configs/reference.yaml lacks %s of %s", k, lv.in)
			}
			if !regexp.MustCompile("(?m)^\\| `" + k + "`").Match(readme) {
				t.Errorf("README.md lacks %s of %s", k, lv.in)
			}
		}
	}
}

// TestExamplesLoad loads the other configs as far as the protocols of this package's tests go; cmd/millrace
// loads them with the real drivers.
func TestExamplesLoad(t *testing.T) {
	paths, _ := filepath.Glob(filepath.Join("..", "..", "configs", "*.yaml"))
	if len(paths) < 4 {
		t.Fatalf("found %d configs", len(paths))
	}
	for _, path := range paths {
		if _, err := load(path); err != nil {
			t.Error(err)
		}
	}
}
