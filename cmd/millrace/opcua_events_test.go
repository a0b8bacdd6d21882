package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// TestOPCUAEvents shows what stands, then what happens, through filters.
func TestOPCUAEvents(t *testing.T) {
	s, _ := plantServer(t, opcuasim.Options{}, 10*time.Minute)
	s.Raise(opcuasim.Event{Node: "Machine", Type: 9341, Source: "Spindle", Condition: "Overload", Message: "the load is high", Severity: 600, Limit: "High", Active: true, Retain: true})
	watch := func(w eventWatch, words ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out := untilSeen{words: words, end: cancel}
		raise := time.AfterFunc(0, func() {
			for n := 0; ctx.Err() == nil; n++ {
				s.Raise(opcuasim.Event{Node: "Machine", Message: fmt.Sprintf("part %d \x1b[2J", n), Severity: 100})
				time.Sleep(50 * time.Millisecond)
			}
		})
		defer raise.Stop()
		err := w.watch(ctx, &out, &serverFlags{pki: &pkiFlags{path: "pki"}, options: map[string]string{"security_policy": "none"}, timeout: 10 * time.Second}, s.Endpoint())
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v\n%s", err, out.seen.String())
		}
		return out.seen.String()
	}
	table := watch(eventWatch{node: "i=2253", pushWatch: pushWatch{format: "table"}}, "part")
	if lines := strings.Split(table, "\n"); !strings.HasPrefix(lines[0], "TIME ") || !strings.Contains(table, "  600       Spindle  Overload   active High, stands  no     the load is high") || strings.Contains(table, "\x1b") {
		t.Errorf("shown:\n%s", table)
	}
	if out := watch(eventWatch{node: "ns=2;s=Machine", pushWatch: pushWatch{format: "json"}, kind: "i=2915"}, `"message":"the load is high","condition":"nsu=urn:millrace:machine;s=Overload","name":"Overload","retain":true,"enabled":true,"acked":false,"active":true,"limit":"High","refresh":true}`); strings.Contains(out, "part") {
		t.Errorf("of alarms:\n%s", out)
	}
	if out := watch(eventWatch{node: "ns=2;s=Machine", pushWatch: pushWatch{format: "json"}, severity: 500}, `"severity":600`); strings.Contains(out, "part") {
		t.Errorf("of severity 500:\n%s", out)
	}
	events := func(want int, args ...string) string {
		t.Helper()
		return both(t, want, append([]string{"events", s.Endpoint(), "--option", "security_policy=none"}, args...)...)
	}
	contains(t, events(0, "--for", "5s"), "the events of i=2253 come from now on", "Overload")
	contains(t, events(exitFailed, "ns=2;s=Machine.Beat", "--for", "1m"), "does not say that it tells events", "ns=2;s=Machine.Beat tells no events: BadAttributeIdInvalid: ")
	contains(t, events(exitFailed, "ns=2;s=none", "--for", "1m"), "ns=2;s=none tells no events: BadNodeIdUnknown: ")
	contains(t, events(exitFailed, "ns=2;s=Machine", "--type", "i=2041", "--for", "1ns"), "no event came within 1ns; watch longer")
	contains(t, events(exitFailed, "--for", "1m", "--min-severity", "1001"), `min_severity "1001" is no severity; use 1`)
	contains(t, events(exitFailed, "--for", "1m", "--type", "alarm"), `event_type "alarm": `)
	contains(t, events(exitUsage, "--for", "-1s"), "leave it out")
	silent, _ := plantServer(t, opcuasim.Options{RefuseRefresh: 0x80750000}, 10*time.Minute)
	for d, said := 2*time.Second, false; !said; d *= 2 { // a slow machine may not even have subscribed in so long
		out := both(t, exitFailed, "events", silent.Endpoint(), "--option", "security_policy=none", "ns=2;s=Machine", "--type", "i=2915", "--for", d.String())
		if said = strings.Contains(out, "come from now on") || d > time.Minute; said {
			contains(t, out, "the server does not tell which conditions stand (ConditionRefresh: BadMethodInvalid: ",
				"no event came within "+d.String()+", and the server does not tell which conditions stand; watch longer")
		}
	}
	if n := s.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	time.AfterFunc(500*time.Millisecond, s.Close)
	contains(t, events(exitFailed), "millrace: ")
}
