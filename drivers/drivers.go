// Package drivers says what a driver is: the one interface between a protocol and the gateway.
//
// A driver is one folder, one Protocol value and one line in cmd/millrace/drivers.go; there is no
// registration. The conformance suite that each driver passes is package drivertest.
package drivers

import (
	"context"
	"crypto/x509"
	"iter"
	"slices"
	"time"

	"millrace/drivers/peer"
	"millrace/drivers/telemetry"
)

// Protocol is what a driver package exports: its name, its own config keys and its constructor.
type Protocol struct {
	Name string // the word after `driver:`

	// Config keys beyond the common ones. Those of a connection stand at its devices; devices that share one
	// connection must not contradict each other.
	ConnectionOptions []Option
	DeviceOptions     []Option // beyond name, driver, url, timeout, retry, description, labels, groups
	GroupOptions      []Option // beyond name, interval, report, tags
	TagOptions        []Option // beyond name, address, type, scale, offset, unit, description, labels, report

	Example Example

	Shares bool // devices with the same url share one connection (Modbus unit ids behind one gateway)

	Redundant bool // a device may have several urls, one of which is used at a time

	// Normal returns the one form of all urls that lead to the same line ("tcp://h:502" for "tcp://H"), so that devices whose
	// urls are spelled differently share it too. Nil: urls are compared as they are written.
	Normal func(url string) string

	// Identity are the options that tell the devices behind one url apart: with another text it is another device.
	Identity []string

	// Apart is a connection option, "" for none: devices with the same url but other texts of it do not share a connection.
	Apart string

	// Connections is a connection option, "" for none: how many connections to its url a Driver may have open, 1 where it is not
	// given.
	Connections string

	// Rule is a group option, "" for none: a group that has it may list no tags, because the option selects them when the device is there: see Selector.
	Rule string

	// New parses every address and plans the requests. It does not touch the network, so that
	// `check` and `plan` need no plant. All mistakes come back at once: errors.Join of *ConfigError.
	New func(Connection) (Driver, error)
}

// Default returns what counts where an option of devices is not given.
func (p *Protocol) Default(option string) string {
	for _, o := range slices.Concat(p.DeviceOptions, p.ConnectionOptions) {
		if o.Name == option {
			return o.Default
		}
	}
	return ""
}

// Option is one config key that only this driver knows. Values arrive as the text of the YAML scalar.
type Option struct {
	Name    string
	Default string // what counts where it is not given, "" = nothing; for those of Identity
	Help    string // one line for the reference and editors, with unit, bounds and default
	Example string // a value for the reference
	Secret  bool   // its value is never printed, logged or hashed in clear
	Path    bool   // a file or folder: relative to the config file that it stands in, and absolute when the driver gets it
	List    bool   // several values with commas between
	File    bool   // a Path whose file must be there to be read, 1 MiB at most

	// Certificates returns what a File holds, as the connection will read it: authorities, or our certificate, its issuers behind it; in words that follow
	// the file's name why it cannot be used, where that is a *files.Flaw. key is the content of the file that KeyFile names, nil where none is given.
	Certificates func(b, key []byte) ([]*x509.Certificate, error)
	KeyFile      string // the option with the key of our certificate, "" = they are authorities
}

// Example is what the reference of the config shows of a protocol: a device that loads, and the forms of its texts.
type Example struct {
	Device         string // its name
	URL, URLHelp   string
	Address        string // of a tag
	AddressHelp    string // the forms of addresses
	Type, TypeHelp string // of that tag, "" = none
}

// Connection is what one Driver serves: one link and the devices reached over it (one device, unless
// the protocol Shares).
type Connection struct {
	URL     string
	Options map[string]string // the driver's own keys, nil for none
	Devices []Device
}

// Device is one piece of equipment as the config describes it.
type Device struct {
	Name    string
	URL     string
	Spares  []string          // other urls that lead to it, nil for none; only where the protocol is Redundant
	Timeout time.Duration     // one request; > 0
	Options map[string]string // the driver's own keys, nil for none
	Groups  []Group
}

// Group is a poll group: the tags of one device read at one interval.
type Group struct {
	Name     string
	Interval time.Duration     // > 0
	Options  map[string]string // the driver's own keys, nil for none
	Tags     []telemetry.Tag
}

// Ref names one poll group of a connection by its indexes.
type Ref struct{ Device, Group int }

// Driver serves one connection. One goroutine calls every method of it, those of the optional interfaces included,
// so it needs no locks. It never logs and never starts a goroutine that outlives Close, but for a dial that its library
// cannot interrupt: one at the most, for seconds at the most. Everything that a peer sends is bounded.
type Driver interface {
	// Connect opens the link; it may be called again after Close. It respects ctx.
	Connect(ctx context.Context) error
	// Read polls the group once and appends exactly one reading for each of its tags to dst, in the
	// order of the tags, values raw (not scaled). A tag that cannot be read is a bad reading with a
	// reason. On a nil error every tag is answered for. A reading's Time is its source time by the device's own clock,
	// or when the gateway took it where a poll needs several requests; 0 means the time of the poll.
	//
	// An error means that no tag of the group could be read; nothing is appended then. An error that
	// wraps ErrDevice says that only this device failed (a dead unit id): the link is good, or Read
	// has mended it itself. Every other error means the link is down: the caller closes and connects again.
	// One that IsClosed knows, on the first use after more than a second, is followed by that and by one more Read.
	Read(ctx context.Context, g Ref, dst []telemetry.Reading) ([]telemetry.Reading, error)
	// Close releases the link and may be called at any time, also twice or without Connect.
	Close() error
}

// Subscriber is a driver to which the device can push readings (OPC UA subscriptions).
type Subscriber interface {
	// Subscribe asks the device to push the group's readings, once after each Connect. False means that this group
	// is to be polled; an error, that the link is down.
	Subscribe(ctx context.Context, g Ref) (bool, error)
	// Pushed returns the channel of this connection's pushes: bounded, made by Connect, closed when the link is
	// lost and by Close. It is asked for behind the last Subscribe, and nothing may come before. The readings of a Push may be changed by the
	// receiver, and are valid until it takes the next one.
	Pushed() <-chan Push
}

// Push is what a device sent of its own accord: readings of one group in any order, a tag perhaps several times, oldest
// first. Without readings it says that the device has nothing new. Lost is how many readings are known to be missing before them (a queue that overflowed, a sequence gap).
type Push struct {
	Group    Ref
	Readings []telemetry.Reading
	Lost     int
	Tags     []uint32  // whose readings are missing, one for each of Lost; nil = any of the group. Valid as long as Readings
	At       time.Time // nothing is missing up to then: when the device sent it, by our clock with its monotonic part, or earlier; zero = when it is taken
	Note     string    // what a person should know of the group's subscription, for the log: what is lost and why, or what the device made of a wish
	Err      error     // why the link is lost: the last push, with nothing else but Since
	Since    time.Time // with Err: from when on readings may be missing, where that is before the last push; zero = it is not
}

// Writer is a driver that can write to equipment.
type Writer interface {
	// Write writes the values in order and returns one error for each, nil where the device confirmed. A nil slice means
	// that all were confirmed. An error that wraps ErrLink says that the link is down; the writes after it were not tried.
	Write(ctx context.Context, ws []Write) []error
}

// Write is one value for one tag, raw: not scaled, of a kind that the tag's type can take.
type Write struct {
	Group Ref
	Tag   int // index into the group's tags
	Value telemetry.Value
}

// WriteChecker is a driver that knows from the config alone which values a tag cannot take.
type WriteChecker interface {
	// CheckWrite returns why the write can never succeed, in words for `check`; nil where only a try will tell. With a value of
	// KindNone it is about any value.
	CheckWrite(w Write) error
}

// WriteTyper is a Writer that has to ask the device what a tag takes, because the config does not say it.
type WriteTyper interface {
	// WriteType returns the type of the value that a tag takes, before scaling, or of the elements of the array that it takes. An error that wraps ErrLink
	// says that the link is down; every other one says why the tag cannot be written.
	WriteType(ctx context.Context, g Ref, tag int) (typ telemetry.DataType, array bool, err error)
}

// Caller is a driver whose devices have methods.
type Caller interface {
	// CheckMethod returns why the method can never be called, as far as the config alone tells, in words for `check`; nil where only a try
	// will tell.
	CheckMethod(m Method) error
	// Call asks the device what a method takes, has give turn that into the values of the arguments, calls the method and returns what it gives.
	// give is called once at most, right before the call; its error is returned as it is, and nothing is called then. An error that wraps ErrLink
	// says that the link is down. A call that got no answer is never made again.
	Call(ctx context.Context, m Method, give func(takes []Argument) ([]telemetry.Value, error)) ([]Result, error)
}

// Method is a method of a device, in words of the config that the driver understands.
type Method struct {
	Device int    // index into the connection's devices
	Object string // what has the method; "" = not given
	Node   string // the method itself
}

// Argument is what a method takes: a value of a type, or an array of them. The texts are the device's.
type Argument struct {
	Name  string
	Type  telemetry.DataType // AnyType: none that can be given
	Array bool
}

// Result is one value that a method gave. The texts are the device's.
type Result struct {
	Name   string          // "" where the device does not say one
	Type   string          // the driver's word
	Value  telemetry.Value // KindNone where there is none, or none that can be shown
	Reason string          // why there is none, or what is to be said of it
}

// Warner is a driver that learns of things that no reading tells.
type Warner interface {
	// Warning returns what an operator should know since the last call, "" for nothing: one sentence a minute at most.
	Warning() string
}

// Learner is a driver that finds out how its devices want to be asked, where the config does not say it. What it learns, options
// of the device or the connection can say, too. Learned and Forget may be called from any goroutine.
type Learner interface {
	// Learned returns what was learned of a device, by option: the texts that make it permanent in the place of those in the
	// config. Nil = nothing. The map is not changed afterwards.
	Learned(device int) map[string]string
	// Restore takes over what Learned said of the same device in another process, before the first Connect. It leaves out
	// what is not valid, and returns why.
	Restore(device int, learned map[string]string) error
	// Forget forgets all that was learned of a device and of its connection; it is learned anew.
	Forget(device int)
}

// Redundant is a driver whose connection may have spare paths.
type Redundant interface {
	// Paths returns the url of the path in use and those of the others in the order in which they are taken, none where there is only one
	// path. It may be called from any goroutine.
	Paths() (inUse string, spares []string)
	// Failover says in words when the connection goes over to the next path, "" where there is only one. It follows from the config alone.
	Failover() string
}

// Browser is a driver that can list what a device has.
type Browser interface {
	// Browse yields the children of a node, "" for the root, until yield returns false, ctx ends or the device has no more.
	Browse(ctx context.Context, parent string) iter.Seq2[Node, error]
}

// Node is one thing that a device has, as a person would look for it.
type Node struct {
	Address     string // what a tag's address must say to read it, "" for a folder
	ID          string // what Browse takes as parent, "" for a leaf
	Name        string
	Type        string // the driver's word, "" when not known
	Unit        string
	Description string
	Writable    bool
}

// Selector is a driver whose groups may have a rule that selects tags among what the device has: see Protocol.Rule.
type Selector interface {
	// Select goes on with looking for what the rule of a group selects, for about 200 ms, until the Selection is Done. It begins anew with
	// each Connect, and behind a Selection that was Done. An error that wraps ErrLink says that the link is down, every other one why nothing can be selected.
	Select(ctx context.Context, g Ref) (Selection, error)
	// Models returns another number whenever the device may have other things than before: after each Connect, and when the device
	// says so. It may be called from any goroutine.
	Models() uint64
}

// Selection is what a rule selects of what the device has now.
type Selection struct {
	Done  bool            // else all that follows is not known yet
	Tags  []telemetry.Tag // in an order, and with names, that follow from what the device has; names may be there twice
	Most  int             // so many tags the rule may have
	Whole bool            // nothing was left out: what is not among Tags is gone
	Note  string          // what was left out, and what to do about it; "" = nothing
	Cut   string          // why it has fewer tags than it should, in words that follow those that name the rule; "" = it has all
	Mend  string          // what to do about that
}

// Historian is a driver whose device keeps past readings.
type Historian interface {
	// Backfill says whether the gateway shall ask for what the device would have pushed while it could not be heard, and
	// between which bounds the device's clock is ahead of ours. An error means that the link is down.
	Backfill(ctx context.Context) (wanted bool, least, most time.Duration, err error)
	// History calls emit with readings of the group's tags with from <= source time < to (µs since 1970), oldest first for
	// each tag, in portions that are valid only during the call, until all are given, emit fails or ctx ends. An error that wraps
	// ErrDevice says that some tags have no past and all others were given. Every other error but emit's and ctx's means that the link is down.
	// A device that does not bear to be asked must not lose its link over it for ever: after some times in a row the driver says ErrDevice without asking.
	History(ctx context.Context, g Ref, from, to int64, emit func([]telemetry.Reading) error) error
}

// Listener is a driver that can wait for its device to make the connection.
type Listener interface {
	// Listens returns where it does, known from the config alone. Without an address it makes the connection itself.
	Listens() Listening
}

// Listening is where a driver listens. Two of one protocol can listen on the same address when their callers differ.
type Listening struct {
	Address string // host:port; no host = all addresses of this machine
	Caller  string // what its device must say to be told from others; "" = nothing
	Key     string // of the config, that Caller comes from
}

// Typed is a driver that knows the data types of its tags from the config alone.
type Typed interface {
	// DataTypes returns the type of each tag of the group before scaling, telemetry.AnyType where only a read will tell.
	DataTypes(g Ref) []telemetry.DataType
}

// Eventful is a driver some of whose tags take events: what happens, not how something is.
type Eventful interface {
	// Events returns the tags of the group that take events, by their indexes, ascending, nil for none. A reading of one that is not bad is a text: an event
	// (telemetry.IsEvent), or that events come from now on (telemetry.Subscribed). Each is reported, and in a record apart from values.
	Events(g Ref) []int
}

// Sized is a driver that knows from the config alone how long the texts of its tags can be.
type Sized interface {
	// TextSizes returns the most bytes that a text of each tag of the group has: 0 where the values are no texts or their type is
	// not known, -1 where only a read will tell how long they are.
	TextSizes(g Ref) []int
}

// Describer is a driver whose device can say what its tags are.
type Describer interface {
	// Details returns what the device says of the group's tags, one for each, once that is known; nil before it and after it. It is
	// asked behind polls and pushes.
	Details(g Ref) []telemetry.Details
}

// Planner is a driver that can say in words how a group is read.
type Planner interface {
	// Plan returns a line for each request of a poll, for example "read holding 100-148 (49 registers, 20 tags)", or for the
	// subscription, and behind those what else a person should know of it.
	Plan(g Ref) []string
	// Requests returns how many requests a poll makes, 0 where the device pushes.
	Requests(g Ref) int
}

// Asker is a driver that passes on a single request of its protocol, for the tools of an integrator.
type Asker interface {
	// Ask makes a request and returns the answer, a refusal by the device among them, both as the protocol has them less its
	// framing. It refuses what could change anything in the equipment. An error that wraps ErrDevice says that the device did
	// not answer, one that wraps ErrLink that the link is down.
	Ask(ctx context.Context, request []byte) ([]byte, error)
}

// Coster is a driver that knows from the config alone how long a poll keeps its line busy.
type Coster interface {
	// Cost returns what one poll of the group asks of the line.
	Cost(g Ref) Cost
}

// Cost is what one poll of a group asks of its line.
type Cost struct {
	Requests int
	Bytes    int           // both ways, framing included
	Time     time.Duration // during which nothing else can use the line
	Assumes  string        // what Time rests on that the config does not say, in words; "" = nothing
}

// Certified is a driver that knows until when the certificates of its connection are valid.
type Certified = peer.Certified

// Certificate is a certificate that a connection rests on.
type Certificate = peer.Certificate

// Holder is a driver whose connection rests on certificates of ours that no key of the config names.
type Holder interface {
	// Held returns those that there are already, from their files: it makes none and touches no network. It is called before Connect.
	Held() []Certificate
}

// Exposed is a driver whose config may give up a protection that it would otherwise have.
type Exposed interface {
	// Exposure returns what is given up and what to do about it, in words, "" for nothing. It follows from the config alone, and may be called from
	// any goroutine.
	Exposure() (what, mend string)
}

// Noted is a driver that knows of a device that is well what a person should know all the same.
type Noted interface {
	// Notes returns that, each in words, nil for nothing. It may be called from any goroutine.
	Notes() []string
}

// Heir is a driver that knows of its device what the next one need not find out by losing its link.
type Heir interface {
	// Inherit takes that from another driver of the same kind, of the same device and groups, before Connect. Any other is passed over.
	Inherit(from any)
}

// Comparer is a driver that notices when a device is not any more what its config was written for, though it answers.
type Comparer interface {
	// Changed returns what is not as it was, zero when all is. It stands until Accept, or until the device is as it was. It may be called from any goroutine.
	Changed() Change
	// Accept takes the device as it is now, because a person has seen it. It may be called from any goroutine.
	Accept()
}

// Change is what is not as it was.
type Change struct {
	Since time.Time
	What  string // in words
	Mend  string // what to do
}

// Troubled is a driver that may know of trouble with its connection that no reading tells.
type Troubled interface {
	// Trouble returns what is the matter now. It may be called from any goroutine.
	Trouble() Trouble
}

// Trouble is what is the matter with a connection whose readings may all be good. The zero value is none.
type Trouble struct {
	State string // Contested or OnSpare
	Since time.Time
	What  string // what and where, in words
	Mend  string // what to do
}

// The states of a connection that is in trouble.
const (
	Contested = "contested"     // more than one device calls for it, or another master speaks on it
	OnSpare   = "on spare path" // its first path failed
)

// Tracer is a driver that can show what goes over its line.
type Tracer interface {
	// Trace calls f after each exchange from now on, on the driver's goroutine, until it is called with nil. f must not block,
	// and what it gets is valid only during the call. Unlike the other methods it may be called at any time.
	Trace(f func(*Exchange))
}

// Exchange is one request and what came of it, as the protocol has them less its framing (Modbus: a unit id and a PDU).
type Exchange struct {
	At      time.Time     // when the request was sent
	Took    time.Duration // until the answer was there, or given up
	Request []byte
	Answer  []byte // nil = none that fits
	Reason  string // why not
	Raw     []byte // what came instead, as on the wire; at most some hundred bytes
}
