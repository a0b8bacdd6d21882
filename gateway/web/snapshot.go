// Package web owns what a person or a monitoring system sees of a running gateway: the operator's page,
// /healthz, /readyz, /metrics and the API, with the client that commands use. Its views are of one Snapshot, so they never
// contradict each other. The page's address only shows; the socket in the store's directory serves the whole API.
//
// The gateway package implements Gateway and runs Run and RunLocal; nothing here starts on its own.
package web

import (
	"encoding/json"
	"time"

	"millrace/drivers/telemetry"
)

// Snapshot is the state of the whole gateway at one moment. Counters run since the buffer was made (the
// ledger) or since the process started (everything else).
type Snapshot struct {
	Gateway      string         `json:"gateway"`
	Version      string         `json:"version"`
	Epoch        string         `json:"epoch"`
	Started      time.Time      `json:"started"`
	Now          time.Time      `json:"now"`
	Config       Config         `json:"config"`
	Devices      []Device       `json:"devices"`
	Destinations []Destination  `json:"destinations"`
	Absent       []Absent       `json:"absent,omitempty"` // destinations that are not in the config and hold records in the store
	Commands     []Commands     `json:"commands"`         // writes and calls to each device that the rules name; first, without a device, to all others
	Buffer       Buffer         `json:"buffer"`
	Page         Page           `json:"page"`
	Process      Process        `json:"process"`
	Losses       []Loss         `json:"losses"` // not acknowledged by a person, by destination
	Stalls       []Stall        `json:"-"`
	Clock        Clock          `json:"clock"`
	Certificates []Certificate  `json:"certificates"`
	Exposures    []Exposure     `json:"-"`
	Changes      []DeviceChange `json:"-"`
	States       []State        `json:"states"` // by Judge: everything that is not ok, loudest first
}

// Loss is what was lost for one destination since a person last acknowledged losses.
type Loss struct {
	Destination string    `json:"destination"`
	Readings    uint64    `json:"readings"`
	Causes      string    `json:"causes"`  // in words, with counts
	Damaged     uint64    `json:"damaged"` // of Readings, those that damage to the store's files has cost
	From        time.Time `json:"from"`    // when the first was noticed
	To          time.Time `json:"to"`      // and the last
	Losing      bool      `json:"losing"`  // it goes on
	LosingSince time.Time `json:"-"`       // with no pause; zero = it does not
}

// Stall is something that takes longer than it may.
type Stall struct {
	Kind, Name string // of the part that it makes hang
	What       string
	Since      time.Time
	Limit      time.Duration
}

// Clock is how far the machine's clock can be believed.
type Clock struct {
	State  string    `json:"state"` // ok, not set or jumped
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Certificate is one that a destination or a device rests on, as of the last attempt to connect.
type Certificate struct {
	Kind      string    `json:"kind"`                // destination or device
	Owner     string    `json:"owner"`               // its name
	Own       bool      `json:"own"`                 // ours, not the other side's
	Name      string    `json:"name"`                // its file where it is ours, else what it calls itself
	Authority string    `json:"authority,omitempty"` // what it calls itself where it is one that we trust: of the file, or where it is not ours of the machine's own list
	NotBefore time.Time `json:"-"`
	NotAfter  time.Time `json:"not_after"`
	Next      string    `json:"next,omitempty"` // what happens before it ends, where that is not for a person to do
	Replaced  time.Time `json:"-"`              // the end of the one that it replaces, which the other side may still know
}

// Exposure is a protection of a device that the config gives up, in words.
type Exposure struct{ Device, What, Mend string }

// DeviceChange says that a device is not any more what its config was written for, which nobody has acknowledged.
type DeviceChange struct {
	Device string    `json:"device"`
	Since  time.Time `json:"since"`
	What   string    `json:"what"` // in words
	Mend   string    `json:"-"`
}

// Seen is what a person has acknowledged.
type Seen struct {
	Losses  []Loss         `json:"losses"`
	Changes []DeviceChange `json:"changes"`
	Remade  time.Time      `json:"remade,omitzero"`    // when the store's directory was taken away
	NotKept string         `json:"not_kept,omitempty"` // why the disk did not take that it is acknowledged, which is tried again; "" = it did
}

// Config is which config is in force, and how the last attempt to reload it went.
type Config struct {
	File      string    `json:"file"`
	Hash      string    `json:"hash"`       // as `millrace check` prints it
	Since     time.Time `json:"since"`      // when what is in force was loaded
	Reloads   uint64    `json:"reloads"`    // done
	Refused   uint64    `json:"refused"`    // reloads that changed nothing
	Problem   string    `json:"problem"`    // why the last one was refused, a line for each mistake; "" = it was done, or there was none
	Mistakes  int       `json:"mistakes"`   // how many mistakes of the config Problem is; 0 = the config itself is right
	ProblemAt time.Time `json:"problem_at"` // zero when there is no Problem
}

// Device is the state and the account of one device.
type Device struct {
	Name       string    `json:"name"`
	Driver     string    `json:"driver"`
	URL        string    `json:"url"`                   // without credentials
	State      string    `json:"state"`                 // by Judge: ok, late, on spare path, contested, partly bad, changed or down
	Up         bool      `json:"up"`                    // by Judge: it is not down
	Connected  bool      `json:"connected"`             // its connection stands
	Awaited    bool      `json:"-"`                     // its first poll is not over and has its time, or it was up until a moment ago, when a reload exchanged its connection, and was not tried since
	Beginning  bool      `json:"-"`                     // it is connected, and its first poll is not over
	Ended      bool      `json:"-"`                     // it is not polled any more, because the gateway stops
	Reason     string    `json:"reason"`                // why none of its readings can be read; "" when it answers
	LineAt     string    `json:"line_at"`               // what its connection has been at for over two seconds, and for how long; "" = nothing
	Since      time.Time `json:"since"`                 // when Connected or Reason last changed; zero when unknown
	Learned    []string  `json:"learned,omitempty"`     // how it wants to be asked, as far as the config does not say it: lines of a config
	Notes      []string  `json:"notes,omitempty"`       // what is to be known of it though it may be well
	Path       string    `json:"path,omitempty"`        // in use, where there are several
	SparePaths []string  `json:"spare_paths,omitempty"` // the others, in the order in which they are taken
	Connects   *Connects `json:"connects,omitempty"`    // of its connection, at the first device of that; nil at the others
	Trouble    Trouble   `json:"-"`                     // with its connection, where the readings do not tell it
	Rule       RuleFault `json:"-"`                     // with a rule that is to select tags
	Skew       *float64  `json:"clock_skew_seconds"`    // its clock less ours, by source times that are news; nil = none was of late
	BadTag     string    `json:"bad_tag"`               // the first whose last reading is bad
	BadReason  string    `json:"bad_reason"`
	BadBy      BadCounts `json:"bad_readings"` // since the process started
	BadTagsBy  BadCounts `json:"bad_tags"`
	Tags       int       `json:"tags"`
	Good       int       `json:"tags_good"` // by their last reading, as the next two
	Uncertain  int       `json:"tags_uncertain"`
	Bad        int       `json:"tags_bad"`
	Groups     []Group   `json:"groups"`
	Polled     uint64    `json:"polled"`     // readings, by every poll
	Suppressed uint64    `json:"suppressed"` // readings held back by report by exception
	Accepted   uint64    `json:"accepted"`   // readings the buffer took
	Accounts   []Account `json:"accounts"`   // one per destination, in the order of Snapshot.Destinations
}

// Commands counts the writes and calls to one device since the process started, or since the rules name it.
type Commands struct {
	Device  string `json:"device"`  // "" = those that no rule names
	Done    uint64 `json:"done"`    // the device confirmed
	Refused uint64 `json:"refused"` // by the gateway: nothing was sent
	Failed  uint64 `json:"failed"`  // refused by the device, not reached, or not known
}

// Connects counts the attempts to connect since the process started or a reload exchanged the connection.
type Connects struct {
	Attempts   uint64 `json:"attempts"`
	Failed     uint64 `json:"failed"`
	IdleCloses uint64 `json:"idle_closes"` // made because the device had closed the connection while it was idle, within a poll
}

// Trouble is a state that a connection is in though its device answers. Without a State there is none.
type Trouble struct {
	State      string
	Since      time.Time
	What, Mend string
}

// RuleFault is why a rule of a device does not add the tags that it should, as of when it was last followed. Without a What it does, or was not followed yet.
type RuleFault struct{ What, Mend string }

// Group counts the polls of one poll group.
type Group struct {
	Name      string        `json:"name"`
	Interval  time.Duration `json:"-"`
	Tags      int           `json:"tags"`
	Polls     uint64        `json:"polls"`     // ticks served, good or bad
	Failed    uint64        `json:"failed"`    // ticks for which no tag could be read
	Pushed    bool          `json:"pushed"`    // the device pushes the readings
	Pushes    uint64        `json:"pushes"`    // taken
	Lost      uint64        `json:"lost"`      // readings known to be missing between pushes
	Overruns  uint64        `json:"overruns"`  // ticks missed because the one before took too long
	LastPoll  time.Duration `json:"-"`         // how long the last poll took
	Planned   time.Duration `json:"-"`         // how long one should take by the plan, 0 = not known
	MissedAt  time.Time     `json:"missed_at"` // when a tick was last missed; zero when never
	Behind    string        `json:"behind"`    // ticks are missed again and again: what takes the time, poll, line, store or machine; "" = they are not
	BehindFor time.Duration `json:"-"`         // how long that took of the last tick that made the group miss others
	BehindBy  string        `json:"behind_by"` // what of the line took the most of it, in words; "" = not known
	MaxLate   time.Duration `json:"-"`         // the latest start of a poll after its tick
	LastAt    time.Time     `json:"last_at"`   // when the last poll ended; zero when unknown
}

// BadCounts counts bad readings or tags by the class of their reason.
type BadCounts [telemetry.ReasonClasses]uint64

// MarshalJSON writes the counts by the word of their class.
func (b BadCounts) MarshalJSON() ([]byte, error) {
	out := map[string]uint64{}
	for i, n := range b {
		out[telemetry.ReasonClass(i).String()] = n
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON writes; classes that this version does not know are left out.
func (b *BadCounts) UnmarshalJSON(text []byte) error {
	in := map[string]uint64{}
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	for i := range b {
		b[i] = in[telemetry.ReasonClass(i).String()]
	}
	return nil
}

// Account is what became of one device's readings on their way to one destination.
type Account struct {
	Destination string `json:"destination"`
	Before      uint64 `json:"before"`    // accepted before the destination was added, or while it was not in the config: not meant for it
	Delivered   uint64 `json:"delivered"` // acknowledged by the destination
	Buffered    uint64 `json:"buffered"`
	InFlight    uint64 `json:"in_flight"`
	Dropped     Drops  `json:"dropped"`
}

// Drops counts dropped readings by cause.
type Drops struct {
	Full     uint64 `json:"full"`
	Expired  uint64 `json:"expired"`
	Rejected uint64 `json:"rejected"`
	Shutdown uint64 `json:"shutdown"`
	Damaged  uint64 `json:"damaged"`
}

// Destination is the state of one uplink.
type Destination struct {
	Name            string        `json:"name"`
	URL             string        `json:"url"`   // without credentials
	State           string        `json:"state"` // StateConnected or, in one word, what it is doing instead
	Since           time.Time     `json:"since"` // when the link came up, or was lost
	LastError       string        `json:"last_error"`
	Sent            uint64        `json:"sent"` // messages, re-sent ones included
	Acked           uint64        `json:"acked"`
	Resent          uint64        `json:"resent"`
	Rejected        uint64        `json:"rejected"`      // records put into quarantine
	Bytes           uint64        `json:"bytes"`         // payload bytes sent
	AckLatency      time.Duration `json:"-"`             // from sending to the acknowledgement, smoothed
	AckMax          time.Duration `json:"-"`             // the longest of this session
	Stray           uint64        `json:"stray_answers"` // answers to nothing
	Discarded       uint64        `json:"discarded"`     // messages from the receiver that nobody asked for
	Reconnects      uint64        `json:"reconnects"`
	BacklogRecords  uint64        `json:"backlog_records"`
	BacklogReadings uint64        `json:"backlog_readings"`
	InFlight        uint64        `json:"in_flight"` // records
	OldestAge       time.Duration `json:"-"`         // age of the oldest record not yet acknowledged
	Behind          time.Time     `json:"behind"`    // since when it takes fewer records than come, though it is connected; zero when it does not
	Stuck           time.Time     `json:"stuck"`     // since when its oldest record does not go out, though it is connected and nothing is seen that keeps it; zero when it does
	Held            uint64        `json:"held_back"` // records of the streams whose breaker is open
	Breakers        []Breaker     `json:"breakers,omitempty"`
}

// Breaker is the circuit breaker of one poll group whose messages the destination refuses.
type Breaker struct {
	Device  string    `json:"device"`
	Topic   string    `json:"topic"`
	State   string    `json:"state"` // open or half-open
	Since   time.Time `json:"since"`
	Held    int       `json:"held_back"` // records
	NextTry time.Time `json:"next_try"`  // not before
	Reason  string    `json:"reason"`
}

// Absent is a destination that is not in the config any more and holds records in the store. It gets nothing new.
type Absent struct {
	Name     string    `json:"name"`
	Records  uint64    `json:"records"`
	Readings uint64    `json:"readings"`
	Since    time.Time `json:"since"` // when it left the config; zero when it is not known
}

// StateConnected is the State of a destination that takes messages.
const StateConnected = "connected"

// Buffer is the state of the store.
type Buffer struct {
	Path         string    `json:"path"`
	Bytes        int64     `json:"bytes"`     // on disk
	MaxBytes     int64     `json:"max_bytes"` // the bound of Bytes
	Segments     int       `json:"segments"`
	TailBytes    int64     `json:"tail_bytes"` // in memory
	Commits      uint64    `json:"commits"`
	BytesWritten uint64    `json:"bytes_written"`
	NextSeq      uint64    `json:"next_seq"`
	Health       string    `json:"health"`                 // HealthOK or why records are not made durable
	FailingSince time.Time `json:"failing_since"`          // when that began; zero when it is ok
	Refusing     time.Time `json:"refusing"`               // since when new readings are refused, because it is full; zero when none is
	RefusedUntil time.Time `json:"refused_until"`          // new readings are taken again (there is room, where Health is ok), and this is when the last was refused; zero while it is refused, and when none is
	RefusingFor  []string  `json:"refusing_for,omitempty"` // the destinations that alone do not get them; none when nobody does
	RefusingDisk bool      `json:"refusing_disk"`          // that is because its memory is full of what its disk does not take, not because of MaxBytes
	Remade       time.Time `json:"remade"`                 // when its directory was last found taken away while in use; zero: never since the start, or a person has acknowledged it
	DiskFull     bool      `json:"disk_full"`              // a write of the last 10 s found no space left on its disk
	DiskFree     *int64    `json:"disk_free"`              // bytes that its disk has for us; nil when unknown
	NoInodes     bool      `json:"disk_no_inodes"`         // its disk can have no further file, however many bytes are free
	Corrupt      uint64    `json:"corrupt"`                // damaged segments set aside
	Unclean      bool      `json:"unclean"`                // the process before did not close the store, nobody knows whether it did, its files are gone, or this is a backup or an older copy: a gap message tells of it for each device
	OutageHours  *float64  `json:"outage_hours"`           // until the store or its disk is full at the present rate with no link; nil when unknown
}

// Page is who looks at the page's address. All is 0 when there is none.
type Page struct {
	Connections int    `json:"connections"`
	Refused     uint64 `json:"refused"` // connections closed at once because there were so many
}

// HealthOK is the Health of a buffer that accepts records and makes them durable.
const HealthOK = "ok"

// Process is what the gateway costs its machine. Fields that the platform does not tell are 0.
type Process struct {
	Goroutines int     `json:"goroutines"`
	HeapBytes  uint64  `json:"heap_bytes"`
	RSSBytes   uint64  `json:"rss_bytes"`
	CPUSeconds float64 `json:"cpu_seconds"`
	OpenFiles  int     `json:"open_files"`
}

// Imbalance returns how many polled readings the account does not explain: positive when readings are
// missing, negative when there are too many, 0 when polled = suppressed + before + delivered + buffered + in flight
// + dropped. A reading on its way from the poller to the buffer shows for that moment.
func (d *Device) Imbalance(a *Account) int64 {
	return int64(d.Polled - d.Suppressed - a.Before - a.Delivered - a.Buffered - a.InFlight - a.Dropped.Total())
}

// Total returns the dropped readings of all causes.
func (d *Drops) Total() uint64 { return d.Full + d.Expired + d.Rejected + d.Shutdown + d.Damaged }

// Causes calls yield for every cause, zero or not, always in the same order.
func (d *Drops) Causes(yield func(cause string, n uint64) bool) {
	_ = yield("full", d.Full) && yield("expired", d.Expired) && yield("rejected", d.Rejected) &&
		yield("shutdown", d.Shutdown) && yield("damaged", d.Damaged)
}

// MarshalJSON writes durations in seconds.
func (g Group) MarshalJSON() ([]byte, error) {
	type plain Group
	return json.Marshal(struct {
		plain
		Interval  float64 `json:"interval_seconds"`
		LastPoll  float64 `json:"last_poll_seconds"`
		Planned   float64 `json:"planned_poll_seconds"`
		MaxLate   float64 `json:"max_late_seconds"`
		BehindFor float64 `json:"behind_seconds"`
	}{plain(g), g.Interval.Seconds(), g.LastPoll.Seconds(), g.Planned.Seconds(), g.MaxLate.Seconds(), g.BehindFor.Seconds()})
}

// MarshalJSON writes durations in seconds.
func (d Destination) MarshalJSON() ([]byte, error) {
	type plain Destination
	return json.Marshal(struct {
		plain
		OldestAge  float64 `json:"oldest_age_seconds"`
		AckLatency float64 `json:"ack_latency_seconds"`
		AckMax     float64 `json:"ack_latency_max_seconds"`
	}{plain(d), d.OldestAge.Seconds(), d.AckLatency.Seconds(), d.AckMax.Seconds()})
}
