package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// uaFaultHelp is the faults that a simulated server has on demand.
const uaFaultHelp = `  silent                       answers nothing; connections stay
  unpublished                  answers everything but Publish requests: subscriptions are silent
  off                          is switched off: no port, no sessions; with an end it comes back
  restart                      is switched off and on
  drop-sessions                forgets all sessions
  drop-subscriptions[:HOW]     ends all subscriptions: told (default), refused (BadNoSubscription) or quietly
  skip:COUNT                   does not send so many messages with values: they can be asked for again (Republish)
  lose:COUNT                   nor has them any more
  garbage                      pushes noise in place of values
  mute:VARIABLE                says nothing of a variable, such as mute:Spindle.Load
  bad:VARIABLE                 it is BadNoCommunication
  poison:VARIABLE              a Read request with it and others is refused as a whole
  remove:VARIABLE              it is deleted, and the server tells that its nodes have changed
  grow:NAME                    a variable Grown.NAME comes, and that is told
  rate:HERTZ                   the counters count so often a second, 0 to 1000
  namespaces                   the machine's namespace gets another index
  wrong-nonce                  proves its identity with another nonce than it has told (on secured channels)
  cut                          all connections are cut
  unreachable                  nothing gets through, either way; connections stay
  held                         what the server says is held up, and comes at the end
  expired-token                its next message is under a token that it has not given
  chunk:WHAT                   of its next chunk one thing is wrong: message, type, size, channel, token, sequence, request, body or renewal`

// uaChange is what becomes of the server at a moment.
type uaChange struct {
	text string
	at   time.Duration // since the start
	do   func() error
}

// planUAFaults reads faults such as "mute:Spindle.Load@30s-1m", and returns when which begins and ends, in order.
func planUAFaults(s *simulatedUA, faults []string) (all []uaChange, err error) {
	for _, text := range faults {
		name, when, _ := strings.Cut(text, "@")
		from, to, err := parseSpan(when)
		if err != nil {
			return nil, fmt.Errorf("fault %q: %w", text, err)
		}
		kind, what, _ := strings.Cut(name, ":")
		begin, end, err := uaFaultOf(s, kind, what)
		switch {
		case err != nil:
			return nil, fmt.Errorf("fault %q: %w", text, err)
		case to > 0 && end == nil:
			return nil, fmt.Errorf("fault %q: it has no end; write @%v", text, from)
		}
		if to == 0 {
			all = append(all, uaChange{name, from, begin})
			continue
		}
		all = append(all, uaChange{name + " begins", from, begin}, uaChange{name + " is over", to, end})
	}
	slices.SortStableFunc(all, func(a, b uaChange) int { return cmp.Compare(a.at, b.at) })
	return all, nil
}

// parseSpan reads "", "30s" or "30s-1m10s". No end is 0.
func parseSpan(text string) (from, to time.Duration, err error) {
	if text == "" {
		return 0, 0, nil
	}
	begin, end, ends := strings.Cut(text, "-")
	if from, err = time.ParseDuration(begin); err == nil && ends {
		to, err = time.ParseDuration(end)
	}
	if err == nil && ends && to <= from {
		return 0, 0, fmt.Errorf("%q ends before it begins: both times are counted from the start, as in @30s-1m10s", text)
	}
	if err != nil || from < 0 {
		return 0, 0, fmt.Errorf("%q is no time: write it like @30s or @30s-1m10s", text)
	}
	return from, to, nil
}

// uaFaultOf returns how a fault begins and ends; end is nil where it is over at once, or stays.
func uaFaultOf(s *simulatedUA, kind, what string) (begin, end func() error, err error) {
	toggled := func(set func(on bool)) (begin, end func() error, err error) {
		if what != "" {
			return nil, nil, fmt.Errorf("nothing stands after %s", kind)
		}
		return func() error { set(true); return nil }, func() error { set(false); return nil }, nil
	}
	switch kind {
	case "silent":
		return toggled(s.SetSilent)
	case "unpublished":
		return toggled(s.SetUnpublished)
	case "wrong-nonce":
		return toggled(s.SetWrongNonce)
	case "garbage":
		all := opcuasim.Notifications()
		noise := &all[len(all)-1]
		return toggled(func(on bool) {
			if s.Spoil(nil); on {
				s.Spoil(noise)
			}
		})
	case "namespaces":
		return toggled(func(on bool) {
			if s.SetNamespaces(machineURI); on {
				s.SetNamespaces("urn:millrace:another", machineURI)
			}
		})
	case "off":
		_, _, err = toggled(nil)
		return s.off, s.on, err
	case "restart":
		_, _, err = toggled(nil)
		return s.Restart, nil, err
	case "drop-sessions":
		begin, _, err = toggled(func(bool) { s.DropSessions() })
		return begin, nil, err
	}
	if begin, end, known, err := uaFaultOfPath(s, kind, what); known {
		return begin, end, err
	}
	return uaFaultWith(s, kind, what)
}

// uaFaultWith is uaFaultOf for those that take something.
func uaFaultWith(s *simulatedUA, kind, what string) (begin, end func() error, err error) {
	do := func(f func()) func() error { return func() error { f(); return nil } }
	switch kind {
	case "drop-subscriptions":
		how, known := map[string]opcuasim.Drop{"": opcuasim.DropTold, "told": opcuasim.DropTold, "refused": opcuasim.DropRefused, "quietly": opcuasim.DropQuietly}[what]
		if !known {
			return nil, nil, fmt.Errorf("%q is not known; use told, refused or quietly", what)
		}
		return do(func() { s.DropSubscriptions(how) }), nil, nil
	case "skip", "lose":
		n, err := strconv.Atoi(what)
		if err != nil || n < 1 || n > 10_000 {
			return nil, nil, fmt.Errorf("%q is no number from 1 to 10000; write %s:3", what, kind)
		}
		return do(func() { s.SkipMessages(n, kind == "lose") }), nil, nil
	case "grow":
		if !uaGrown.MatchString(what) {
			return nil, nil, fmt.Errorf("%q is no name of up to 64 letters, digits, - and _; write grow:Sensor2", what)
		}
		return do(func() { s.machine.Grow(what) }), nil, nil
	case "rate":
		rate, err := strconv.ParseFloat(what, 64)
		if err != nil || !(rate >= 0 && rate <= 1000) {
			return nil, nil, fmt.Errorf("%q is no number from 0 to 1000; write rate:50", what)
		}
		return do(func() { s.counters.SetRate(rate) }), do(func() { s.counters.SetRate(s.rate) }), nil
	case "mute", "bad", "poison", "remove":
		known := s.Identifiers(machineURI)
		if !slices.Contains(known, "s="+what) {
			return nil, nil, fmt.Errorf("the machine has no variable %q; it has %s", what, strings.ReplaceAll(strings.Join(known, ", "), "s=", ""))
		}
	default:
		return nil, nil, fmt.Errorf("there is none of that name; use one of\n%s", uaFaultHelp)
	}
	switch kind {
	case "mute":
		return do(func() { s.SetMute(what, true) }), do(func() { s.SetMute(what, false) }), nil
	case "bad":
		const badNoCommunication = 0x80310000
		return do(func() { s.SetStatus(what, badNoCommunication) }), do(func() { s.SetStatus(what, 0) }), nil
	}
	if kind == "poison" {
		return do(func() { s.poison("s="+what, true) }), do(func() { s.poison("s="+what, false) }), nil
	}
	return do(func() { s.machine.Remove(what) }), nil, nil
}

// uaGrown is what a variable that comes may be called.
var uaGrown = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
