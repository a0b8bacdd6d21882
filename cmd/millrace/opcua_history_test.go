package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// plantServer is a simulated machine that was switched on a while ago.
func plantServer(t *testing.T, o opcuasim.Options, on time.Duration) (*opcuasim.Server, *opcuasim.Machine) {
	t.Helper()
	o.Browsable = true
	s, err := opcuasim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	m := s.AddMachineTree(time.Now().Add(-on))
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, m
}

// TestOPCUAHistory shows what a server has kept, in pages, up to --max; what it has not kept is said of each node.
func TestOPCUAHistory(t *testing.T) {
	s, _ := plantServer(t, opcuasim.Options{HistoryPage: 7}, 10*time.Minute)
	begin := time.Now().Add(-5 * time.Minute).UTC()
	from, to := begin.Format(time.RFC3339Nano), begin.Add(100*time.Second).Format(time.RFC3339Nano)
	history := func(want int, args ...string) string {
		t.Helper()
		return both(t, want, append([]string{"history", s.Endpoint(), "--option", "security_policy=none"}, args...)...)
	}
	table := history(0, "ns=2;s=Machine.Beat", "--from", from, "--to", to)
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 101 || !strings.HasPrefix(lines[0], "SOURCE TIME                  NODE                 VALUE  QUALITY  REASON") || !strings.Contains(lines[1], "Z  ns=2;s=Machine.Beat  30") {
		t.Errorf("%d lines:\n%s", len(lines), table)
	}
	out := history(0, "ns=2;s=Machine.Beat", "ns=2;s=Feed.Override", "ns=2;s=none", "ns=2;s=Program.Name", "--from", from, "--to", to, "--max", "20", "-o", "json")
	if strings.Count(out, `"node":"ns=2;s=Machine.Beat"`) != 20 || strings.Count(out, `"node":"ns=2;s=Program.Name","value":"O100`) != 20 {
		t.Errorf("20 of each are\n%s", out)
	}
	contains(t, out, "ns=2;s=Machine.Beat: there are more from 2", "ns=2;s=Feed.Override: the server gives no history of it: BadHistoryOperationUnsupported: ", "ns=2;s=none: the server gives no history of it: BadNodeIdUnknown: ")
	if all := history(0, "ns=2;s=Machine.Beat", "--from", from, "--to", to, "--max", "100"); strings.Contains(all, "there are more") {
		t.Errorf("all of them are\n%s", all)
	}
	contains(t, history(0, "ns=2;s=Axis.Position", "--max", "1", "-o", "csv"), "source_time,node,value,quality,reason\n2", `Z,ns=2;s=Axis.Position,"[`, `]",good,`)
	contains(t, history(exitFailed, "ns=2;s=Feed.Override"), "no history of any of these nodes")
	contains(t, history(exitFailed, "ns=2;s=Machine.Beat", "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z"), "keeps its history, and has no value of this time", "no value from 2020-01-01T00:00:00.000000Z to ")
	contains(t, history(exitUsage, "ns=2;s=Machine.Beat", "--from", "yesterday"), `--from "yesterday" is no time like 2026-03-01T06:00:00Z`)
	contains(t, history(exitUsage, "ns=2;s=Machine.Beat", "--from", to, "--to", from), " is not before --to ")
	contains(t, history(exitUsage, "ns=2;s=Machine.Beat", "--max", "0"), "--max 0: use 1 at least")
	if s.Continuations() != 0 || s.Sessions() != 0 {
		t.Errorf("%d places in the history and %d sessions are left", s.Continuations(), s.Sessions())
	}
}

// TestOPCUAHistoryInterrupted: who has seen enough lets the server forget where it was.
func TestOPCUAHistoryInterrupted(t *testing.T) {
	s, _ := plantServer(t, opcuasim.Options{HistoryPage: 7}, time.Hour)
	h := nodeHistory{from: time.Now().Add(-time.Hour).UnixMicro(), to: time.Now().UnixMicro(), most: 1_000_000, format: "csv"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := untilSeen{words: []string{"ns=2;s=Machine.Beat,50,"}, end: cancel}
	err := h.show(ctx, &out, &serverFlags{pki: &pkiFlags{path: "pki"}, options: map[string]string{"security_policy": "none"}, timeout: 10 * time.Second}, s.Endpoint(), []string{"ns=2;s=Machine.Beat"})
	if !errors.Is(err, errInterrupted) || s.Continuations() != 0 || s.Sessions() != 0 {
		t.Errorf("%v; %d places in the history and %d sessions are left", err, s.Continuations(), s.Sessions())
	}
	if n := strings.Count(out.seen.String(), "\n"); n > 30 {
		t.Errorf("it goes on for %d lines", n)
	}
}
