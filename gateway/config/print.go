package config

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Print writes the effective config, every default included, as YAML that Load reads. Secrets are written as "***".
func (c *Config) Print(w io.Writer) error {
	p := &printer{bufio.NewWriter(w)}
	t := newTables()
	t.top.print(p, "", c)
	if err := p.Flush(); err != nil {
		return fmt.Errorf("print config: %w", err)
	}
	return nil
}

// Hash returns 12 hex digits that tell two effective configs apart. Comments, order of keys, how the file is laid out
// and the secrets do not change it; neither does the folder that millrace was started in.
func (c *Config) Hash() string {
	h := sha256.New()
	_ = c.Print(h) // a hash takes everything
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Sum tells two devices' configs apart, secrets included: it is for comparing in memory, not for showing.
func (d *Device) Sum() [sha256.Size]byte {
	h := sha256.New()
	add := func(part any) { _, _ = fmt.Fprintf(h, "%#v", part) } // no pointers in it, and maps come sorted; a hash takes everything
	own := *d
	own.Groups = nil
	add(own)
	for _, g := range d.Groups {
		tags := g.Tags
		g.Tags = nil
		add(g)
		for i := range tags { // one by one: the text of them all would be larger than all else that is in memory
			add(tags[i])
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// WithoutTags returns the config without what the devices' groups hold, which is nearly all of its memory.
func (c *Config) WithoutTags() *Config {
	lean := *c
	lean.Devices = slices.Clone(c.Devices)
	for i := range lean.Devices {
		lean.Devices[i].Groups = nil
	}
	return &lean
}

type printer struct{ *bufio.Writer }

// line writes one key after lead: blanks, or blanks and a dash.
func (p *printer) line(lead, key, value string) {
	p.WriteString(lead)
	p.WriteString(key)
	p.WriteByte(':')
	if value != "" {
		p.WriteByte(' ')
		p.WriteString(value)
	}
	p.WriteByte('\n')
}

func spaces(lead string) string { return strings.Repeat(" ", len(lead)) }

// text writes any text as a YAML scalar. Go's escapes are YAML's too.
func text(s string) string { return strings.ReplaceAll(strconv.Quote(s), "${", "$${") }

// given is a text that is left out when it is empty.
func given(s string) string {
	if s == "" {
		return ""
	}
	return text(s)
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
