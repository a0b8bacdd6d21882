package telemetry

import "testing"

func TestClassOf(t *testing.T) {
	for reason, want := range map[string]string{
		"dial tcp 10.0.0.7:502: connect: connection refused": "not_connected",
		"not connected yet":                  "not_connected",
		"EOF":                                "not_connected",
		"read: i/o timeout":                  "no_answer",
		"exception 2: illegal data address":  "unknown_address",
		"exception 4: server device failure": "refused",
		"BadNodeIdUnknown":                   "unknown_address",
		"BadUserAccessDenied":                "refused",
		"":                                   "other",
		"sensor \xff broken":                 "other",
	} {
		if got := ClassOf(reason).String(); got != want {
			t.Errorf("%q: %s, want %s", reason, got, want)
		}
	}
	if got := ReasonClass(200).String(); got != "other" {
		t.Errorf("class 200 is %q", got)
	}
}
