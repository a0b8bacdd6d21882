package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
)

// apiRow is a row of README.md's table of paths: method, path, whether the page has it, and what it answers.
var apiRow = regexp.MustCompile("(?m)^\\| `(GET|POST) (/api/v1/[^`]+)` \\|( yes)? \\| yes \\|(.*)$")

// TestUnknownKeysAreRefused walks the table of paths in README.md: each path at the page and at the socket answers 400 to a key
// that the table does not tell, or that is given twice, in the words of the API.
func TestUnknownKeysAreRefused(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t, 1)
	f.table, _ = plantTable()
	dir, page := serve(t, f), Handler(f, 0)
	rows := apiRow.FindAllStringSubmatch(string(readme), -1)
	if len(rows) < 16 {
		t.Fatalf("%d rows in the table of paths", len(rows))
	}
	told := map[string]bool{}
	for _, row := range rows {
		method, path := row[1], strings.Replace(row[2], "NAME", "store", 1)
		told[path] = true
		queries := []string{"typo=1", "a;b", "typo"}
		for _, key := range queryKeys[path] {
			if !regexp.MustCompile("`" + key + "(=1)?`").MatchString(row[4]) {
				t.Errorf("README.md does not tell the key %q of %s", key, path)
			}
			queries = append(queries, key+"=&"+key+"=")
		}
		for _, q := range queries {
			code, text := over(t, dir, method, path+"?"+q)
			sayRefused(t, path+"?"+q, code, string(text), 400)
			if row[3] != "" {
				r := request(page, method, path+"?"+q)
				sayRefused(t, "page "+path+"?"+q, r.StatusCode, body(t, r), 400)
			}
		}
	}
	for path := range queryKeys {
		if !told[path] {
			t.Errorf("%s has keys and is not in README.md", path)
		}
	}
	if f.wrote != [3]string{} {
		t.Errorf("written: %q", f.wrote)
	}
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics"} {
		if r := request(page, "GET", path+"?now=1"); r.StatusCode == http.StatusBadRequest {
			t.Errorf("%s?now=1: %s", path, r.Status)
		}
	}
}

// TestWhoIsBounded: what is logged of who asks is the name of a person, not a page.
func TestWhoIsBounded(t *testing.T) {
	f := newFake(t, 1)
	dir := serve(t, f)
	for by, want := range map[string]string{
		strings.Repeat("é", MaxBy):             "",
		strings.Repeat("x", 15000):             "by has 15000 characters, more than 100; write the name of a person",
		"a\nlevel=INFO msg=everything+is+fine": "by holds what is not text",
		"\xff":                                 "by holds what is not text",
	} {
		for _, path := range []string{"/api/v1/ack?", "/api/v1/learned/reset?device=d&"} {
			code, text := over(t, dir, "POST", path+url.Values{"by": {by}}.Encode())
			if want == "" && code == http.StatusBadRequest {
				t.Errorf("%s: %d %s", path, code, text)
			}
			if want != "" {
				sayRefused(t, path, code, string(text), 400)
				if !strings.Contains(string(text), want) {
					t.Errorf("%s: %s, want %s", path, text, want)
				}
			}
		}
	}
}

// TestUnknownNamesAreSaid: a device or tag that is not there is 404, watched or not; one that a reload exchanges is there.
func TestUnknownNamesAreSaid(t *testing.T) {
	f := newFake(t, 0)
	f.table, _ = plantTable()
	f.snap = &Snapshot{Devices: []Device{{Name: "press-7"}}}
	dir, page := serve(t, f), Handler(f, 0)
	for _, q := range []string{"device=nix", "device=press-1&tag=nix", "tag=nix", "device=nix&watch=1", "device=press-1&tag=nix&bad=1"} {
		code, text := over(t, dir, "GET", "/api/v1/values?"+q)
		sayRefused(t, q, code, string(text), 404)
		if !strings.Contains(string(text), `\"nix\"`) {
			t.Errorf("%s: %s", q, text)
		}
		r := request(page, "GET", "/api/v1/values?"+strings.TrimSuffix(q, "&watch=1"))
		sayRefused(t, "page "+q, r.StatusCode, body(t, r), 404)
	}
	for _, q := range []string{"", "device=&tag=", "device=press-7", "device=press-2&bad=1", "tag=speed"} {
		if code, text := over(t, dir, "GET", "/api/v1/values?"+q); code != 200 {
			t.Errorf("%s: %d %s", q, code, text)
		}
	}
}

func sayRefused(t *testing.T, what string, code int, text string, want int) {
	t.Helper()
	var f failure
	if err := json.Unmarshal([]byte(text), &f); err != nil || f.Error == "" || code != want {
		t.Errorf("%s: %d %s, want %d with an error", what, code, text, want)
	}
}

// TestMissingParametersAreSaid: a request that lacks what it must have is answered with what that is and where it belongs, and
// does nothing; so is a yes or no that is neither.
func TestMissingParametersAreSaid(t *testing.T) {
	f := newFake(t, 1)
	f.table, _ = plantTable()
	dir := serve(t, f)
	refused := func(method, path string, want ...string) {
		t.Helper()
		code, text := over(t, dir, method, path)
		sayRefused(t, path, code, string(text), 400)
		for _, w := range want {
			if !strings.Contains(string(text), w) {
				t.Errorf("%s: %s does not tell %q", path, text, w)
			}
		}
	}
	refused("POST", "/api/v1/write", "no device, no tag, no value given", "in the query", "a body is not read")
	refused("POST", "/api/v1/write?device=press-1&tag=", "no tag, no value given")
	for path, keys := range queryNeeds {
		method := "POST"
		if path == "/api/v1/trace" {
			method = "GET"
		}
		refused(method, path, "no "+keys[0])
	}
	if f.wrote != [3]string{} {
		t.Errorf("written: %q", f.wrote)
	}
	if code, text := over(t, dir, "POST", "/api/v1/write?device=press-1&tag=speed&value="); code != 200 || f.wrote != [3]string{"press-1", "speed", ""} {
		t.Errorf("an empty text: %d %s, written %q", code, text, f.wrote)
	}
	refused("GET", "/api/v1/values?bad=maybe", "bad=maybe", "1 for yes")
	refused("GET", "/api/v1/values?watch=", "watch=")
	_, all := over(t, dir, "GET", "/api/v1/values")
	if _, text := over(t, dir, "GET", "/api/v1/values?bad=0"); len(all) == 0 || !sameLength(text, all) {
		t.Errorf("bad=0: %s\nall: %s", text, all)
	}
}

// sameLength reports whether two lists of values have the same length.
func sameLength(a, b []byte) bool {
	var x, y []json.RawMessage
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && len(x) == len(y)
}
