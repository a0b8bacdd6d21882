package web

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/telemetry"
)

// metricsType is the media type of the Prometheus text format, version 0.0.4.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// exposition writes the Prometheus text format: each family's HELP and TYPE once, then its series. The
// format wants the series of a family together, so the snapshot is walked once per family.
type exposition struct {
	buf  *bytes.Buffer
	name string
}

func (e *exposition) family(name, kind, help string) {
	e.name = name
	e.buf.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

// series writes one value of the current family; labels are pairs of name and value.
func (e *exposition) series(value float64, labels ...string) {
	e.open(labels)
	e.buf.Write(strconv.AppendFloat(e.buf.AvailableBuffer(), value, 'g', -1, 64))
	e.buf.WriteByte('\n')
}

// count is series for whole numbers, exact beyond 2^53.
func (e *exposition) count(value uint64, labels ...string) {
	e.open(labels)
	e.buf.Write(strconv.AppendUint(e.buf.AvailableBuffer(), value, 10))
	e.buf.WriteByte('\n')
}

func (e *exposition) open(labels []string) {
	e.buf.WriteString(e.name)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		e.buf.WriteByte(sep)
		e.buf.WriteString(labels[i])
		e.buf.WriteString(`="`)
		e.escape(labels[i+1])
		e.buf.WriteByte('"')
	}
	if len(labels) > 0 {
		e.buf.WriteByte('}')
	}
	e.buf.WriteByte(' ')
}

// escape writes a label's value: backslash, quote and line feed escaped, invalid UTF-8 replaced.
func (e *exposition) escape(s string) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	for i := range len(s) {
		switch s[i] {
		case '\\':
			e.buf.WriteString(`\\`)
		case '"':
			e.buf.WriteString(`\"`)
		case '\n':
			e.buf.WriteString(`\n`)
		default:
			e.buf.WriteByte(s[i])
		}
	}
}

func writeMetrics(buf *bytes.Buffer, s *Snapshot) {
	e := &exposition{buf: buf}
	e.family("millrace_info", "gauge", "Always 1; the gateway's name, version and epoch are labels.")
	e.count(1, "gateway", s.Gateway, "version", s.Version, "epoch", s.Epoch)
	e.family("millrace_start_time_seconds", "gauge", "When the process started, in seconds since 1970.")
	e.series(unix(s.Started))
	e.config(&s.Config)
	e.ledger(s)
	e.states(s)
	e.certificates(s.Certificates)
	e.devices(s)
	e.connects(s)
	e.commands(s.Commands)
	e.groups(s)
	e.destinations(s)
	e.buffer(&s.Buffer)
	e.page(&s.Page)
	e.process(&s.Process)
}

func (e *exposition) config(c *Config) {
	e.family("millrace_config_info", "gauge", "Always 1; the hash of the config in force is a label.")
	e.count(1, "hash", c.Hash)
	e.family("millrace_config_loaded_time_seconds", "gauge", "When the config in force was loaded, in seconds since 1970.")
	e.series(unix(c.Since))
	e.family("millrace_config_last_reload_successful", "gauge", "0 when the last reload was refused and the config before it stays in force.")
	e.count(bit(c.Problem == ""))
	e.family("millrace_config_reloads_total", "counter", "Reloads, by result.")
	e.count(c.Reloads, "result", "done")
	e.count(c.Refused, "result", "refused")
}

func (e *exposition) ledger(s *Snapshot) {
	device := func(name, help string, of func(*Device) uint64) {
		e.family(name, "counter", help)
		for i := range s.Devices {
			e.count(of(&s.Devices[i]), "device", s.Devices[i].Name)
		}
	}
	device("millrace_readings_polled_total", "Readings taken from the device.", func(d *Device) uint64 { return d.Polled })
	tags := func(quality string, n func(*Device) int) {
		for i := range s.Devices {
			e.count(uint64(n(&s.Devices[i])), "device", s.Devices[i].Name, "quality", quality)
		}
	}
	e.family("millrace_tags", "gauge", "Tags by the quality of their last reading.")
	tags("good", func(d *Device) int { return d.Good })
	tags("uncertain", func(d *Device) int { return d.Uncertain })
	tags("bad", func(d *Device) int { return d.Bad })
	device("millrace_readings_suppressed_total", "Readings held back by report by exception.", func(d *Device) uint64 { return d.Suppressed })
	device("millrace_readings_missed_total", "Readings that the device had and that never came, as far as they are known: a queue of it overflowed, or a message was lost. Each time is reported to the destinations as a gap, as are outages.",
		func(d *Device) (n uint64) {
			for i := range d.Groups {
				n += d.Groups[i].Lost
			}
			return n
		})
	device("millrace_readings_accepted_total", "Readings the buffer took.", func(d *Device) uint64 { return d.Accepted })

	account := func(name, kind, help string, of func(*Account) uint64) {
		e.family(name, kind, help)
		eachAccount(s, func(d *Device, a *Account) { e.count(of(a), "device", d.Name, "destination", a.Destination) })
	}
	account("millrace_readings_before_total", "counter", "Readings accepted before the destination was added.", func(a *Account) uint64 { return a.Before })
	account("millrace_readings_delivered_total", "counter", "Readings acknowledged by the destination.", func(a *Account) uint64 { return a.Delivered })
	account("millrace_readings_buffered", "gauge", "Readings waiting for the destination.", func(a *Account) uint64 { return a.Buffered })
	account("millrace_readings_in_flight", "gauge", "Readings sent and not yet acknowledged.", func(a *Account) uint64 { return a.InFlight })

	e.family("millrace_readings_dropped_total", "counter", "Readings given up, by cause; each drop is also reported to the destination as a gap.")
	eachAccount(s, func(d *Device, a *Account) {
		for cause, n := range a.Dropped.Causes {
			e.count(n, "device", d.Name, "destination", a.Destination, "cause", cause)
		}
	})
	e.family("millrace_ledger_imbalance_readings", "gauge", "Polled readings that the ledger does not explain; lasting values other than 0 are a bug.")
	eachAccount(s, func(d *Device, a *Account) {
		e.series(float64(d.Imbalance(a)), "device", d.Name, "destination", a.Destination)
	})
}

func eachAccount(s *Snapshot, do func(*Device, *Account)) {
	for i := range s.Devices {
		d := &s.Devices[i]
		for j := range d.Accounts {
			do(d, &d.Accounts[j])
		}
	}
}

// states exports what is not ok. Its words change with counts and times, so they are no labels; the state is.
func (e *exposition) states(s *Snapshot) {
	e.family("millrace_state_since_seconds", "gauge", "Parts of the gateway that are not ok, with their state, and since when, in seconds since 1970.")
	for i := range s.States {
		st := &s.States[i]
		e.series(unix(st.Since), "kind", st.Kind, "name", st.Name, "state", st.State)
	}
	e.family("millrace_readings_lost_unacknowledged", "gauge", "Readings lost since `millrace ack`.")
	lost := map[string]uint64{}
	for i := range s.Losses {
		lost[s.Losses[i].Destination] = s.Losses[i].Readings
	}
	for i := range s.Destinations {
		e.count(lost[s.Destinations[i].Name], "destination", s.Destinations[i].Name)
	}
}

func (e *exposition) certificates(all []Certificate) {
	e.family("millrace_certificate_not_after_seconds", "gauge", "When the certificate ends, in seconds since 1970.")
	for i := range all {
		which := "server"
		switch {
		case all[i].Authority != "":
			which = "authority"
		case all[i].Own:
			which = "own"
		}
		e.series(unix(all[i].NotAfter), "kind", all[i].Kind, "name", all[i].Owner, "certificate", which)
	}
}

func (e *exposition) devices(s *Snapshot) {
	bad := func(name, kind, help string, of func(*Device) *BadCounts) {
		e.family(name, kind, help)
		for i := range s.Devices {
			for class, n := range of(&s.Devices[i]) {
				e.count(n, "device", s.Devices[i].Name, "reason", telemetry.ReasonClass(class).String())
			}
		}
	}
	bad("millrace_readings_bad_total", "counter", "Bad readings, by the class of their reason.", func(d *Device) *BadCounts { return &d.BadBy })
	bad("millrace_tags_bad", "gauge", "Tags whose last reading is bad, by the class of its reason.", func(d *Device) *BadCounts { return &d.BadTagsBy })
	e.family("millrace_clock_set", "gauge", "0 when the machine's clock is known not to be set.")
	e.count(bit(s.Clock.State != StateUnset))
	e.family("millrace_device_clock_skew_seconds", "gauge", "The device's clock less ours, by source times that are news.")
	for i := range s.Devices {
		if skew := s.Devices[i].Skew; skew != nil {
			e.series(*skew, "device", s.Devices[i].Name)
		}
	}
	e.family("millrace_device_learned_options", "gauge", "Options that would make permanent what was learned of the device.")
	for i := range s.Devices {
		if n := len(s.Devices[i].Learned); n > 0 {
			e.count(uint64(n), "device", s.Devices[i].Name)
		}
	}
	e.family("millrace_device_notes", "gauge", "What is to be known of the device though it may be well; the snapshot has the words.")
	for i := range s.Devices {
		if n := len(s.Devices[i].Notes); n > 0 {
			e.count(uint64(n), "device", s.Devices[i].Name)
		}
	}
	e.family("millrace_device_up", "gauge", "0 when the device is down: it does not answer, or all its tags are bad.")
	for i := range s.Devices {
		e.count(bit(s.Devices[i].Up), "device", s.Devices[i].Name, "driver", s.Devices[i].Driver)
	}
}

// connects is told at the first device of each connection.
func (e *exposition) connects(s *Snapshot) {
	each := func(name, help string, of func(*Connects) uint64) {
		e.family(name, "counter", help)
		for i := range s.Devices {
			if c := s.Devices[i].Connects; c != nil {
				e.count(of(c), "device", s.Devices[i].Name)
			}
		}
	}
	each("millrace_connects_total", "Attempts to connect to the device, and to those behind the same connection.", func(c *Connects) uint64 { return c.Attempts })
	each("millrace_connects_failed_total", "Attempts to connect that failed.", func(c *Connects) uint64 { return c.Failed })
	each("millrace_idle_closes_total", "Attempts because the device had closed the connection while it was idle.", func(c *Connects) uint64 { return c.IdleCloses })
}

// commands have the devices that rules name as labels, whatever a command names.
func (e *exposition) commands(list []Commands) {
	e.family("millrace_commands_total", "counter", "Writes and calls, by outcome; without a device those to devices that no rule names.")
	for i := range list {
		c := &list[i]
		e.count(c.Done, "device", c.Device, "outcome", "done")
		e.count(c.Refused, "device", c.Device, "outcome", "refused")
		e.count(c.Failed, "device", c.Device, "outcome", "failed")
	}
}

func (e *exposition) groups(s *Snapshot) {
	group := func(name, kind, help string, of func(*Group) float64) {
		e.family(name, kind, help)
		for i := range s.Devices {
			for j := range s.Devices[i].Groups {
				g := &s.Devices[i].Groups[j]
				e.series(of(g), "device", s.Devices[i].Name, "group", g.Name)
			}
		}
	}
	group("millrace_poll_interval_seconds", "gauge", "The group's interval as configured.", func(g *Group) float64 { return g.Interval.Seconds() })
	group("millrace_polls_total", "counter", "Polls, good or bad.", func(g *Group) float64 { return float64(g.Polls) })
	group("millrace_polls_failed_total", "counter", "Polls that read no tag.", func(g *Group) float64 { return float64(g.Failed) })
	group("millrace_poll_overruns_total", "counter", "Polls missed because the one before took too long.", func(g *Group) float64 { return float64(g.Overruns) })
	group("millrace_poll_duration_seconds", "gauge", "How long the last poll took.", func(g *Group) float64 { return g.LastPoll.Seconds() })
	group("millrace_poll_planned_seconds", "gauge", "How long a poll should take by the plan that check prints; 0 when not known.", func(g *Group) float64 { return g.Planned.Seconds() })
	group("millrace_poll_late_max_seconds", "gauge", "The latest start of a poll after its time.", func(g *Group) float64 { return g.MaxLate.Seconds() })
}

func (e *exposition) destinations(s *Snapshot) {
	each := func(name, kind, help string, of func(*Destination) float64) {
		e.family(name, kind, help)
		for i := range s.Destinations {
			e.series(of(&s.Destinations[i]), "destination", s.Destinations[i].Name)
		}
	}
	each("millrace_destination_connected", "gauge", "1 when the destination takes messages.", func(d *Destination) float64 { return float64(bit(d.State == StateConnected)) })
	each("millrace_destination_state_change_time_seconds", "gauge", "When the connection last came or went, in seconds since 1970.", func(d *Destination) float64 { return unix(d.Since) })
	each("millrace_messages_sent_total", "counter", "Messages sent, re-sent ones included.", func(d *Destination) float64 { return float64(d.Sent) })
	each("millrace_messages_acknowledged_total", "counter", "Messages the destination acknowledged.", func(d *Destination) float64 { return float64(d.Acked) })
	each("millrace_messages_resent_total", "counter", "Messages sent again after a connection was lost.", func(d *Destination) float64 { return float64(d.Resent) })
	each("millrace_sent_bytes_total", "counter", "Payload bytes sent.", func(d *Destination) float64 { return float64(d.Bytes) })
	each("millrace_destination_reconnects_total", "counter", "Connections made after the first.", func(d *Destination) float64 { return float64(d.Reconnects) })
	each("millrace_backlog_records", "gauge", "Records not yet acknowledged.", func(d *Destination) float64 { return float64(d.BacklogRecords) })
	each("millrace_backlog_readings", "gauge", "Readings not yet acknowledged.", func(d *Destination) float64 { return float64(d.BacklogReadings) })
	each("millrace_backlog_oldest_age_seconds", "gauge", "Age of the oldest record not yet acknowledged.", func(d *Destination) float64 { return d.OldestAge.Seconds() })
	each("millrace_ack_latency_seconds", "gauge", "From sending a message to its acknowledgement, smoothed.", func(d *Destination) float64 { return d.AckLatency.Seconds() })
	each("millrace_ack_latency_max_seconds", "gauge", "The longest of the present session.", func(d *Destination) float64 { return d.AckMax.Seconds() })
	each("millrace_stray_answers_total", "counter", "Answers of the destination to messages that were not sent.", func(d *Destination) float64 { return float64(d.Stray) })
	each("millrace_discarded_messages_total", "counter", "Messages of the destination that nobody asked for.", func(d *Destination) float64 { return float64(d.Discarded) })
	each("millrace_open_breakers", "gauge", "Poll groups whose messages the destination refuses.", func(d *Destination) float64 { return float64(len(d.Breakers)) })
	each("millrace_records_held_back", "gauge", "Records held back because the destination refuses others of their poll group.", func(d *Destination) float64 { return float64(d.Held) })
	each("millrace_messages_in_flight", "gauge", "Messages sent and not yet acknowledged.", func(d *Destination) float64 { return float64(d.InFlight) })
}

func (e *exposition) buffer(b *Buffer) {
	one := func(name, kind, help string, v float64) {
		e.family(name, kind, help)
		e.series(v)
	}
	one("millrace_buffer_healthy", "gauge", "1 when the buffer keeps readings.", float64(bit(b.Health == HealthOK)))
	one("millrace_buffer_bytes", "gauge", "Bytes on disk.", float64(b.Bytes))
	one("millrace_buffer_max_bytes", "gauge", "The bound of millrace_buffer_bytes. The store is full below it: some is kept for state.db and the next commit.", float64(b.MaxBytes))
	one("millrace_buffer_segments", "gauge", "Segment files.", float64(b.Segments))
	one("millrace_buffer_tail_bytes", "gauge", "Bytes of records held in memory.", float64(b.TailBytes))
	one("millrace_buffer_commits_total", "counter", "Commits to disk.", float64(b.Commits))
	one("millrace_buffer_written_bytes_total", "counter", "Bytes written to disk.", float64(b.BytesWritten))
	one("millrace_buffer_next_sequence", "gauge", "The sequence number of the next record.", float64(b.NextSeq))
	one("millrace_buffer_unclean_start", "gauge", "1 when the process before did not close the buffer, nobody knows whether it did, its files are gone, or this is a backup or an older copy: what may be missing is told in gap messages.", float64(bit(b.Unclean)))
	one("millrace_buffer_damaged_segments_total", "counter", "Damaged segments set aside.", float64(b.Corrupt))
	if b.OutageHours != nil {
		one("millrace_buffer_outage_seconds", "gauge", "How long the buffer and its disk last at the present rate with no link.", *b.OutageHours*3600)
	}
}

func (e *exposition) page(p *Page) {
	e.family("millrace_page_connections", "gauge", "Connections to the page's address, this one included.")
	e.count(uint64(p.Connections))
	e.family("millrace_page_connections_refused_total", "counter", "Connections to the page's address closed, new or idle ones, because there were too many.")
	e.count(p.Refused)
}

func (e *exposition) process(p *Process) {
	one := func(name, kind, help string, v float64) {
		e.family(name, kind, help)
		e.series(v)
	}
	one("go_goroutines", "gauge", "Goroutines.", float64(p.Goroutines))
	one("go_memstats_heap_alloc_bytes", "gauge", "Bytes of heap objects.", float64(p.HeapBytes))
	one("process_resident_memory_bytes", "gauge", "Resident memory.", float64(p.RSSBytes))
	one("process_cpu_seconds_total", "counter", "User and system time.", p.CPUSeconds)
	one("process_open_fds", "gauge", "Open file descriptors.", float64(p.OpenFiles))
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
