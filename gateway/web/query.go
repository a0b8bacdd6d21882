package web

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"millrace/gateway/values"
)

// queryKeys are the query keys of each path of the API, argument once for each. A path that is not here takes none.
var queryKeys = map[string][]string{
	"/api/v1/values":                  {"device", "tag", "bad", "watch"},
	"/api/v1/store/records":           {"from", "to", "from_time", "to_time", "device"},
	"/api/v1/ack":                     {"by"},
	"/api/v1/learned/reset":           {"device", "by"},
	"/api/v1/write":                   {"device", "tag", "value"},
	"/api/v1/call":                    {"device", "method", "argument"},
	"/api/v1/ask":                     {"driver", "url", "request"},
	"/api/v1/trace":                   {"device"},
	"/api/v1/store/quarantine/retry":  {"id"},
	"/api/v1/store/quarantine/delete": {"id"},
	"/api/v1/store/forget":            {"destination"},
}

// queryNeeds are those of them that must be given, value and request also empty.
var queryNeeds = map[string][]string{
	"/api/v1/learned/reset":           {"device"},
	"/api/v1/write":                   {"device", "tag", "value"},
	"/api/v1/call":                    {"device", "method"},
	"/api/v1/ask":                     {"driver", "url", "request"},
	"/api/v1/trace":                   {"device"},
	"/api/v1/store/quarantine/retry":  {"id"},
	"/api/v1/store/quarantine/delete": {"id"},
	"/api/v1/store/forget":            {"destination"},
}

// checkQuery answers a request of the API whose query says what nobody reads: a misspelt key would mean "all". Paths outside of
// the API take any, because monitoring systems add keys of their own.
func checkQuery(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r) // "" = not found, or another method: the mux says so
		if _, path, _ := strings.Cut(pattern, " "); strings.HasPrefix(path, "/api/") {
			if err := mistakeIn(r.URL.RawQuery, path); err != nil {
				fail(w, http.StatusBadRequest, fmt.Errorf("%s: %w", r.URL.Path, err))
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// mistakeIn returns what is wrong with the query of a path of the API.
func mistakeIn(query, path string) error {
	keys := queryKeys[path]
	q, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the query is not one: %w; write & between its parts and quote what is special", err)
	}
	for _, key := range slices.Sorted(maps.Keys(q)) {
		switch {
		case len(keys) == 0:
			return fmt.Errorf("unknown key %q; it takes none", key)
		case !slices.Contains(keys, key):
			return fmt.Errorf("unknown key %q; it takes %s", key, strings.Join(keys, ", "))
		case len(q[key]) > 1 && key != "argument":
			return fmt.Errorf("key %q is given %d times; give it once", key, len(q[key]))
		case key == "bad" || key == "watch":
			if _, err := strconv.ParseBool(q.Get(key)); err != nil {
				return fmt.Errorf("%s=%s: write 1 for yes, or 0", key, q.Get(key))
			}
		case key == "by":
			if err := badName(q.Get(key)); err != nil {
				return err
			}
		}
	}
	return missingFrom(q, path)
}

// MaxBy is how many characters the name may have of the person who asks for what is logged with it.
const MaxBy = 100

// badName says what is wrong with the name of a person.
func badName(by string) error {
	switch n := utf8.RuneCountInString(by); {
	case n > MaxBy:
		return fmt.Errorf("by has %d characters, more than %d; write the name of a person", n, MaxBy)
	case !utf8.ValidString(by) || strings.ContainsFunc(by, unicode.IsControl):
		return errors.New("by holds what is not text; write the name of a person")
	}
	return nil
}

// missingFrom names what must be given and is not, and where it is looked for: people try the body first.
func missingFrom(q url.Values, path string) error {
	var missing, form []string
	for _, key := range queryNeeds[path] {
		if q.Get(key) == "" && !(q.Has(key) && (key == "value" || key == "request")) {
			missing = append(missing, key)
		}
		form = append(form, key+"=…")
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("no %s given; parameters stand in the query, as %s?%s; a body is not read", strings.Join(missing, ", no "), path, strings.Join(form, "&"))
}

// flag reads a yes or no of the query; checkQuery has seen that it is one.
func flag(r *http.Request, key string) bool {
	yes, _ := strconv.ParseBool(r.FormValue(key))
	return yes
}

// unknown says that there is no such device or tag. A device whose values are missing because a reload exchanges it is known.
func (s *views) unknown(device, tag string) error {
	switch {
	case device == "" && tag == "" || s.hasValue(device, tag):
		return nil
	case device == "":
		return fmt.Errorf("no device has a tag %q; see /api/v1/values for all", tag)
	case s.hasValue(device, ""):
		return fmt.Errorf("device %q has no tag %q; see /api/v1/values?device=%s for its tags", device, tag, url.QueryEscape(device))
	}
	devices := s.snapshot().Devices
	if i := slices.IndexFunc(devices, func(d Device) bool { return d.Name == device }); i >= 0 {
		if groups := devices[i].Groups; tag != "" && len(groups) > 0 && !slices.ContainsFunc(groups, func(g Group) bool { return g.Tags > 0 }) {
			return fmt.Errorf("device %q has no tags yet; see /api/v1/values?device=%s for why", device, url.QueryEscape(device))
		}
		return nil
	}
	return fmt.Errorf("no device %q; see /api/v1/snapshot for all", device)
}

func (s *views) hasValue(device, tag string) (has bool) {
	s.g.Values().Each(device, tag, func(*values.Entry) bool {
		has = true
		return false
	})
	return has
}
