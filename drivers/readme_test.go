package drivers

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeListsEveryInterface: who writes a driver finds in the README each interface that one may have.
func TestReadmeListsEveryInterface(t *testing.T) {
	source, err := os.ReadFile("drivers.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^type (\w+) interface \{`).FindAllSubmatch(source, -1)
	for _, m := range found {
		if name := string(m[1]); name != "Driver" && !regexp.MustCompile("(?m)^  \\|[^|]*`"+name+"`").Match(readme) {
			t.Errorf("README.md has no line for %s", name)
		}
	}
	if len(found) < 20 || !strings.Contains(string(source), "type Driver interface {") {
		t.Errorf("%d interfaces found", len(found))
	}
}
