package config

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestReferenceHoldsTheDefaults loads the reference with and without its comments, which hold what is optional.
func TestReferenceHoldsTheDefaults(t *testing.T) {
	text := Reference(protocols())
	c := mustLoad(t, writeConfig(t, []byte(text)))
	want := mustLoad(t, "testdata/minimal.good.yaml")
	if c.Processors != want.Processors || c.GraceTime != want.GraceTime || c.Log != want.Log || c.Web != want.Web || c.Buffer.MaxSize != want.Buffer.MaxSize ||
		!reflect.DeepEqual(c.Destinations, want.Destinations) || c.Devices[0].Retry != want.Devices[0].Retry || c.Devices[0].Groups[0].Report != nil || c.Devices[0].Groups[0].Tags[0].Scaled() {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	for _, key := range []string{"username", "description", "labels", "deadband"} {
		if !strings.Contains(text, "# "+key+": ") {
			t.Errorf("%s does not stand in a comment in\n%s", key, text)
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
