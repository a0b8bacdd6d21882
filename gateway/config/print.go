package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Print writes the effective config, every default included, as YAML that Load reads. Passwords, and driver
// keys that sound like one, are written as "***".
func (c *Config) Print(w io.Writer) error {
	p := &printer{}
	p.line(0, "gateway", text(c.Gateway))
	p.line(0, "grace_time", formatDuration(c.GraceTime))
	p.line(0, "processors", strconv.Itoa(c.Processors))
	p.line(0, "log", fmt.Sprintf("{level: %s, format: %s}", c.Log.Level, c.Log.Format))
	p.line(0, "web", fmt.Sprintf("{enabled: %t, listen: %s}", c.Web.Enabled, text(c.Web.Listen)))
	p.buffer(&c.Buffer)
	p.line(0, "destinations", "")
	for i := range c.Destinations {
		p.destination(&c.Destinations[i])
	}
	if len(c.Writes) > 0 {
		p.line(0, "writes", "")
	}
	for _, w := range c.Writes {
		p.WriteString("  - " + w.flow() + "\n")
	}
	p.line(0, "devices", "")
	for i := range c.Devices {
		p.device(&c.Devices[i])
		if _, err := p.WriteTo(w); err != nil { // device by device: the text of a plant is many megabytes
			return fmt.Errorf("print config: %w", err)
		}
	}
	return nil
}

// Hash returns 12 hex digits that tell two effective configs apart. Comments, order of keys, how the file is laid out
// and the secrets do not change it; neither does the folder that millrace was started in.
func (c *Config) Hash() string {
	whole := *c
	if path, err := filepath.Abs(c.Buffer.Path); err == nil {
		whole.Buffer.Path = path
	}
	h := sha256.New()
	_ = whole.Print(h) // a hash takes everything
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Sum tells two devices' configs apart, secrets included: it is for comparing in memory, not for showing.
func (d *Device) Sum() [sha256.Size]byte {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%#v", *d) // no pointers in it, and maps come sorted; a hash takes everything
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

type printer struct{ bytes.Buffer }

// line writes one key at an indentation; a dash in front of it takes two of its columns.
func (p *printer) line(indent int, key, value string) {
	p.WriteString(strings.Repeat(" ", indent))
	p.WriteString(strings.TrimRight(key+": "+value, " "))
	p.WriteByte('\n')
}

// text writes any text as a YAML scalar. Go's escapes are YAML's too.
func text(s string) string { return strings.ReplaceAll(strconv.Quote(s), "${", "$${") }

func (p *printer) buffer(b *Buffer) {
	p.line(0, "buffer", "")
	p.line(2, "path", text(b.Path))
	p.line(2, "max_size", formatSize(b.MaxSize))
	p.line(2, "max_age", formatDuration(b.MaxAge))
	p.line(2, "commit_interval", formatDuration(b.CommitInterval))
	p.line(2, "when_full", string(b.WhenFull))
	p.line(2, "memory", formatSize(b.Memory))
}

func (p *printer) destination(d *Destination) {
	p.line(2, "- name", text(d.Name))
	p.line(4, "url", text(d.URL))
	p.line(4, "client_id", text(d.ClientID))
	p.given(4, "username", d.Username)
	p.given(4, "password", d.Password.String())
	p.line(4, "topic", text(d.Topic))
	p.line(4, "format", d.Format)
	p.line(4, "order", string(d.Order))
	p.line(4, "start", string(d.Start))
	p.line(4, "window", strconv.Itoa(d.Window))
	p.line(4, "max_in_flight", formatSize(d.MaxInFlightBytes))
	p.line(4, "max_message", formatSize(d.MaxMessage))
	p.line(4, "backlog_limit", fmt.Sprintf("{messages_per_second: %s, bytes_per_second: %s}",
		number(d.BacklogLimit.Messages), formatSize(d.BacklogLimit.Bytes)))
	p.line(4, "keep_alive", formatDuration(d.KeepAlive))
	p.line(4, "ack_timeout", formatDuration(d.AckTimeout))
	p.line(4, "retry", d.Retry.flow())
	if d.TLS != (TLS{}) {
		p.line(4, "tls", "")
		p.given(6, "ca", d.TLS.CA)
		p.given(6, "cert", d.TLS.Cert)
		p.given(6, "key", d.TLS.Key)
		p.given(6, "server_name", d.TLS.ServerName)
	}
	p.line(4, "int64_as_string", strconv.FormatBool(d.Int64AsString))
}

func (r Retry) flow() string {
	return fmt.Sprintf("{min: %s, max: %s}", formatDuration(r.Min), formatDuration(r.Max))
}

// given writes a key that has no default, if it was given.
func (p *printer) given(indent int, key, value string) {
	if value != "" {
		p.line(indent, key, text(value))
	}
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func (p *printer) device(d *Device) {
	p.line(2, "- name", text(d.Name))
	p.line(4, "driver", text(d.Driver))
	p.line(4, "url", text(redact(d.URL)))
	p.line(4, "timeout", formatDuration(d.Timeout))
	p.line(4, "retry", d.Retry.flow())
	p.given(4, "description", d.Description)
	if d.Labels != nil {
		p.line(4, "labels", flowLabels(d.Labels))
	}
	for _, k := range slices.Sorted(maps.Keys(d.Options)) {
		p.line(4, k, text(masked(k, d.Options[k])))
	}
	p.line(4, "groups", "")
	for i := range d.Groups {
		g := &d.Groups[i]
		p.line(6, "- name", text(g.Name))
		p.line(8, "interval", formatDuration(g.Interval))
		p.line(8, "tags", "")
		for j := range g.Tags {
			p.tag(g, j)
		}
	}
}

func (p *printer) tag(g *Group, i int) {
	t := &g.Tags[i]
	fmt.Fprintf(p, "          - {name: %s, address: %s", text(t.Name), text(t.Address))
	if t.Type != "" {
		fmt.Fprintf(p, ", type: %s", text(t.Type))
	}
	for _, k := range slices.Sorted(maps.Keys(t.Options)) {
		fmt.Fprintf(p, ", %s: %s", k, text(masked(k, t.Options[k])))
	}
	if t.Scaled() {
		if t.Scale != 0 {
			fmt.Fprintf(p, ", scale: %s", number(t.Scale))
		}
		fmt.Fprintf(p, ", offset: %s", number(t.Offset))
	}
	if t.Unit != "" {
		fmt.Fprintf(p, ", unit: %s", text(t.Unit))
	}
	if t.Description != "" {
		fmt.Fprintf(p, ", description: %s", text(t.Description))
	}
	if t.Labels != nil {
		fmt.Fprintf(p, ", labels: %s", flowLabels(t.Labels))
	}
	if g.Report != nil && g.Report[i].OnChange {
		r := g.Report[i]
		percent := ""
		if r.DeadbandPercent {
			percent = "%"
		}
		fmt.Fprintf(p, ", report: on-change, deadband: %s%s, heartbeat: %s", number(r.Deadband), percent, formatDuration(r.Heartbeat))
	}
	p.WriteString("}\n")
}

// masked hides the value of a driver's key that sounds like a secret: drivers do not say which are.
func masked(key, value string) string {
	for _, part := range [...]string{"password", "secret", "token"} {
		if strings.Contains(key, part) {
			return mask
		}
	}
	return value
}
