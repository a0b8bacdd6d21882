package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// update rewrites the expected messages: go test ./gateway/config -run Bad -update. Read the diff after it.
var update = flag.Bool("update", false, "rewrite testdata/*.bad.txt")

// testEnv is the environment of every config in testdata.
func testEnv(name string) (string, bool) {
	v, ok := map[string]string{
		"MQTT_USER": "someone", "MQTT_PASSWORD": "hunter2-hunter2", "UNIT": "3",
		"LONG": "a-device-password-that-is-too-long",
	}[name]
	return v, ok
}

func load(path string) (*Config, error) {
	return Load(path, protocols(), Options{LookupEnv: testEnv})
}

// messages are the lines of a Load error without the folder of the file.
func messages(err error) string {
	return strings.ReplaceAll(err.Error(), "testdata"+string(filepath.Separator), "") + "\n"
}

func TestBadConfigs(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(paths) < 45 {
		t.Fatalf("found %d bad configs, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".bad.yaml"), func(t *testing.T) {
			_, err := load(path)
			var list *Errors
			if !errors.As(err, &list) {
				t.Fatalf("loaded, or failed without a list: %v", err)
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			got := messages(err)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("no expected messages: %v", err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			checkForm(t, list)
		})
	}
}

// checkForm holds what every message promises: a place in a file, what is wrong, how to mend it, no secret.
func checkForm(t *testing.T, list *Errors) {
	for _, e := range list.List {
		if e.What == "" || e.Mend == "" {
			t.Errorf("message without both halves: %v", e)
		}
		for _, secret := range []string{"hunter2", "a-device-password"} {
			if strings.Contains(e.Error(), secret) {
				t.Errorf("a secret shows: %v", e)
			}
		}
	}
}

func TestBadConfigsHavePartners(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.bad.*")
	for _, path := range paths {
		stem, _, _ := strings.Cut(path, ".bad.")
		for _, partner := range []string{".bad.yaml", ".bad.txt"} {
			if _, err := os.Stat(stem + partner); err != nil {
				t.Errorf("%s has no partner %s%s", path, filepath.Base(stem), partner)
			}
		}
	}
}

func TestGoodConfigs(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.good.yaml")
	if len(paths) < 5 {
		t.Fatalf("found %d good configs", len(paths))
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".good.yaml"), func(t *testing.T) {
			if _, err := load(path); err != nil {
				t.Fatal(err)
			}
		})
	}
}
