package web

import (
	"cmp"
	"fmt"
	"time"
)

// How long before its end a certificate is told of, and loudly.
const (
	certificateSoon = 30 * 24 * time.Hour
	certificateLoud = 7 * 24 * time.Hour
)

// judgeCertificates says each file of ours once, however many devices use it: by what ends first, where they rest on several authorities of it.
func (s *Snapshot) judgeCertificates() {
	first := map[string]*Certificate{} // of the files of ours
	for i := range s.Certificates {
		if c := &s.Certificates[i]; c.Own && (first[c.Name] == nil || c.NotAfter.Before(first[c.Name].NotAfter)) {
			first[c.Name] = c
		}
	}
	for i := range s.Certificates {
		if c := &s.Certificates[i]; !c.Own || first[c.Name] == c {
			s.add(c.judge(s.Now))
		}
	}
}

func (c *Certificate) judge(now time.Time) State {
	st := State{Kind: "certificate", Name: c.title(), State: StateOK, Do: cmp.Or(c.Next, c.mend())}
	day := c.NotAfter.UTC().Format(time.DateOnly)
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		st.State, st.Since, st.Reason = StateExpired, c.NotAfter, fmt.Sprintf("%s ended on %s: connections are refused from then on", c.what(), day)
	case left <= certificateLoud:
		st.State, st.Since, st.Reason = StateEnding, c.endsFrom(certificateLoud), fmt.Sprintf("%s ends on %s", c.what(), day)
	case left <= certificateSoon:
		st.State, st.Since, st.Reason = StateEndsSoon, c.endsFrom(certificateSoon), fmt.Sprintf("%s ends on %s", c.what(), day)
	case now.Before(c.Replaced):
		st.State, st.Reason = StateRenewed, fmt.Sprintf("it replaces one that ends on %s and has the same key", c.Replaced.UTC().Format(time.DateOnly))
		st.Do = "trust it in the servers that refuse it"
	}
	return st
}

// endsFrom returns since when it has had less than so long left: one that was made for less has it since it was made.
func (c *Certificate) endsFrom(left time.Duration) time.Time {
	since := c.NotAfter.Add(-left)
	if c.NotBefore.After(since) {
		return c.NotBefore
	}
	return since
}

// title names the certificate among others: our files by their path, others by who shows them.
func (c *Certificate) title() string {
	if c.Own {
		return c.Name
	}
	return c.Owner
}

func (c *Certificate) what() string {
	switch {
	case c.Authority != "":
		where := "of this machine's own list"
		if c.Own {
			where = "in this file"
		}
		return fmt.Sprintf("the authority %q %s, on which the certificate of %s %q rests,", c.Authority, where, c.Kind, c.Owner)
	case c.Own:
		return fmt.Sprintf("our own certificate for %s %q", c.Kind, c.Owner)
	}
	return fmt.Sprintf("%q, which %s %q shows,", c.Name, c.Kind, c.Owner)
}

func (c *Certificate) mend() string {
	switch {
	case c.Authority != "" && c.Own:
		return "put its successor in its place or beside it; the file is read at the next connect"
	case c.Authority != "":
		return "update this machine's list of authorities, or give the file of its successor in the config"
	case c.Own:
		return "put a new one in its place, or its issuer's behind it where that ends first; it is read at the next connect"
	}
	return "have a new one put there, or its issuer's where that ends first; it is seen at the next connect"
}
