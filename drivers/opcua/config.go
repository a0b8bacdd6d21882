package opcua

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"millrace/drivers"
	"millrace/drivers/callers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

const defaultPort = "4840" // IANA: opcua-tcp

// settings is what the config says about one server.
type settings struct {
	device                   string
	endpoint                 string // as configured: servers compare it with theirs
	host                     string // host:port to dial
	locales                  []string
	user                     string // "" for anonymous
	password                 string
	userCertificate, userKey string        // files of the user who logs in by a certificate
	policy                   *wire.Policy  // nil: the strongest that is offered
	mode                     wire.Mode     // 0: the strongest that is offered
	insecure                 bool          // withdrawn policies, too
	timeout                  time.Duration // of one request
	session                  time.Duration // of a session without requests, asked of the server
	lifetime                 time.Duration // of the secure channel's token, asked of the server

	subscribing   mode
	register      bool          // see register
	backfill      bool          // the server's history of what was missed is asked for
	quiet         time.Duration // without a message until the server counts as silent: see minQuiet
	verify        time.Duration // see verified; 0 = never
	namespaces    map[uint16]string
	queue         int      // values that the server keeps of an item until they are published
	clearPassword bool     // also over a connection that is not encrypted
	reverse       *reverse // of a server that calls; nil = it is dialled
	serverName    string   // host that the server's certificate must be for
	pki           PKI
	seen          *seen // certificates of the last attempt
}

func deviceOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "security_policy", Example: "auto", Help: "auto (default: the strongest that the server offers, never none), none, basic256sha256, aes128-sha256-rsaoaep, aes256-sha256-rsapss; with allow_insecure also basic128rsa15, basic256"},
		{Name: "security_mode", Example: "sign-and-encrypt", Help: "sign or sign-and-encrypt (default: the strongest that the server offers)"},
		{Name: "server_name", Example: "cnc-1.local", Help: "host name or address that the server's certificate must be for (default: the host of url)"},
		{Name: "server_uri", Example: "urn:cnc-1:server", Help: "application URI of a server that calls (url opc.tcp-listen://:4841); required there"},
		{Name: "allow_from", Example: "10.1.0.0/16", Help: "addresses and networks from which such a server may call, for example 10.1.0.0/16, 192.168.1.7 (default: everywhere)"},
		{Name: "pki", Example: "pki", Path: true, Help: "folder of certificates for this device alone (default: pki.path of the config)"},
		{Name: "allow_insecure", Example: "false", Help: "true to allow the withdrawn policies basic128rsa15 and basic256 (default false)"},
		{Name: "allow_clear_password", Example: "false", Help: "true to send the password unencrypted to servers that can do no better, and to any server (default false)"},
		{Name: "backfill", Example: "history", Help: "history: after an outage, also one of the gateway, ask the server for what it kept meanwhile; off (default)"},
		{Name: "mode", Example: "subscribe", Help: "subscribe (default: the server pushes what changes), read (poll at the interval), or auto (subscribe, and poll where the server refuses that)"},
		{Name: "register_nodes", Example: "true", Help: "true: with mode read or auto, the server gives handles of the nodes that are polled, which spares it to look them up (RegisterNodes; default false)"},
		{Name: "queue_size", Example: "10", Help: fmt.Sprintf("values of a tag that the server keeps while they wait to be sent, 1 to %d (default %d)", maxQueue, defaultQueue)},
		{Name: "verify_interval", Example: "1m", Help: "read values that were not pushed for so long, to find one that the server has stopped to report, 1s to 24h (default: never)"},
		{Name: "language", Example: "de", Help: "of the server's texts, the first that it has, such as de-AT, de, en (default en)"},
		{Name: "namespaces", Example: "2=urn:machine 3=urn:tools", Help: "what the namespace indexes in addresses stand for, so that it is noticed when the server changes that (default: what they stood for at the first connect)"},
		{Name: "username", Example: "${env:OPCUA_USER}", Help: "user to log in as (default: anonymous)"},
		{Name: "user_certificate", Example: "operator.pem", Help: "file of the certificate to log in as a user with, PEM or DER, instead of username", Path: true, File: true, Certificates: userCertificate, KeyFile: "user_key"},
		{Name: "user_key", Example: "operator.key", Help: "file of its RSA key, PEM or DER without a passphrase (default: user_certificate holds both)", Path: true, File: true},
		{Name: "password", Example: "${file:/run/secrets/opcua}", Help: "password of username; best given as ${env:NAME} or ${file:PATH}", Secret: true},
	}
}

func tagOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "field", Example: "set.temperature", Help: "part of a structure or array: names with dots between, elements from 0 in brackets (default: the whole; a structure is JSON)"},
		{Name: "min_severity", Example: "500", Help: "with type: event, the least severity, 1 to 1000 (default: all events)"},
		{Name: "event_type", Example: "i=2915", Help: "with type: event, the node id of the only type that is taken, with its subtypes: i=2782 conditions, i=2915 alarms (default: all events)"},
		{Name: "server_deadband", Example: "0.5", Help: "changes up to this, in the node's own units, are not sent by the server, and are not in values and heartbeats either (default: all are sent)"},
		{Name: "enum", Example: "server", Help: "server (the server's texts of an enumeration) or a table such as 0=off, 1=on; a number without a text is uncertain"},
		{Name: "read_back", Example: "true", Help: "true: a write is read back and is an error unless the server holds it; default false"},
	}
}

// group is one poll group, parsed.
type group struct {
	tags     []tag
	ask      plan
	interval time.Duration
	also     map[int][]int // tags that are other parts of a tag's node, which is asked for once; nil = none
	follows  map[int]int   // these, and that tag
	about    describing

	rule    *rule    // nil = it has none
	walk    *walk    // by which it is being followed; nil = it is not
	written []string // with a rule: the tags' addresses, as the config has them

	silence time.Duration // see silence; 0 = for ever
	keeps   bool          // a silent tag keeps its value

	muted  bool   // the server did not report one of its values
	spoilt bool   // one of its values spoils what is pushed: it is polled
	noted  string // what was said last of its subscription
	unheld string // why the server does not tell which conditions stand; "" = it does

	doubts atomic.Pointer[[]string] // by tag, why its value may be another node's; nil = none may
}

// mode says how the server is asked for values.
type mode int

const (
	modeSubscribe mode = iota
	modeRead
	modeAuto
)

type tag struct {
	addr     address
	want     wanted
	event    *event  // nil: its value
	readBack bool    // after a write
	deadband float64 // of the server; 0 = none

	unsaid [sayings]bool // the config says nothing, and the server may
}

// parse checks the whole connection and returns all mistakes at once.
func parse(c drivers.Connection) (settings, [][]group, error) {
	s := settings{lifetime: wire.MaxLifetime, quiet: minQuiet, seen: &seen{}}
	var errs []error
	groups := make([][]group, len(c.Devices))
	for i, d := range c.Devices {
		fail := func(field, what, mend string) {
			errs = append(errs, &drivers.ConfigError{Device: i, Group: -1, Tag: -1, Field: field, What: what, Mend: mend})
		}
		s.device, s.timeout = d.Name, d.Timeout
		s.parseURL(c.URL, fail)
		s.parseOptions(d.Options, fail)
		s.session = sessionTimeout(d.Groups)
		groups[i] = make([]group, len(d.Groups))
		for j, g := range d.Groups {
			groups[i][j].interval = g.Interval
			wrong := func(field, what, mend string) {
				errs = append(errs, &drivers.ConfigError{Device: i, Group: j, Tag: -1, Field: field, What: what, Mend: mend})
			}
			groups[i][j].parseSilence(g.Options, wrong)
			groups[i][j].rule = parseRule(g.Options, wrong)
			groups[i][j].tags = make([]tag, len(g.Tags))
			for k := range g.Tags {
				errs = append(errs, parseTag(&groups[i][j].tags[k], &g.Tags[k], s.subscribing, i, j, k)...)
				if groups[i][j].rule != nil {
					groups[i][j].written = append(groups[i][j].written, g.Tags[k].Address)
				}
			}
			if groups[i][j].silence > 0 && len(groups[i][j].bands()) > 0 {
				errs = append(errs, &drivers.ConfigError{Device: i, Group: j, Tag: -1, Field: "max_silence", What: "max_silence of a group with server_deadband: a value that stays within it is never told", Mend: "remove one of them"})
			}
			if groups[i][j].onlyEvents() && g.Options["max_silence"] != "" {
				wrong("max_silence", "max_silence is of values, and the group takes events only: that nothing happens is no silence", "remove it")
			}
			groups[i][j].share()
			errs = append(errs, groups[i][j].checkEvents(s.subscribing, i, j)...)
		}
	}
	return s, groups, errors.Join(errs...)
}

func (s *settings) parseURL(text string, fail func(field, what, mend string)) {
	const example = `use "opc.tcp://host:port/path", for example "opc.tcp://192.168.1.20:4840"`
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme == "" || (u.Host == "" && u.Opaque != ""):
		mend := example
		if !strings.Contains(text, "://") && text != "" {
			mend = fmt.Sprintf("use %q", "opc.tcp://"+strings.TrimLeft(strings.TrimPrefix(text, "opc.tcp"), ":/"))
		}
		fail("url", fmt.Sprintf("url %q is not an OPC UA endpoint", text), mend)
		return
	case u.Scheme != "opc.tcp" && u.Scheme != listenScheme:
		fail("url", fmt.Sprintf("url %q: transport %q is not supported", text, u.Scheme), example)
		return
	case u.Scheme == listenScheme && (u.Port() == "" || u.Path != "" || u.RawQuery != "" || u.User != nil):
		fail("url", fmt.Sprintf("url %q is no address to listen on", text), `use "opc.tcp-listen://:4841", or with an address of this machine before the port`)
		return
	case u.Hostname() == "" && u.Scheme != listenScheme:
		fail("url", fmt.Sprintf("url %q has no host", text), example)
		return
	case drivers.NoHost(u.Hostname()):
		fail("url", fmt.Sprintf("url %q: %q is no address and can be no name", text, u.Hostname()), drivers.HostMend)
		return
	case u.User != nil:
		fail("url", fmt.Sprintf("url of host %q holds a user or password", u.Hostname()), "use the device's username and password")
		return
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	if n, err := parseDecimal(port, 16); err != nil || n == 0 {
		fail("url", fmt.Sprintf("url %q: port %q is not a number from 1 to 65535", text, port), example)
	}
	if u.Scheme == listenScheme {
		s.reverse = newReverse(net.JoinHostPort(u.Hostname(), port), "")
		return
	}
	s.endpoint, s.host, s.serverName = text, net.JoinHostPort(u.Hostname(), port), u.Hostname()
}

// Normal returns the one form of all urls that lead to the same server, "opc.tcp://h:4840" for "opc.tcp://H/"; one that is wrong comes back
// as it is.
func Normal(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return text
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	u.Host, u.Path = net.JoinHostPort(strings.ToLower(u.Hostname()), port), strings.TrimRight(u.Path, "/")
	return u.String()
}

func (s *settings) parseOptions(o map[string]string, fail func(field, what, mend string)) {
	s.parseSecurity(o, fail)
	s.parseSubscribing(o, fail)
	s.insecure = parseFlag(o, "allow_insecure", fail)
	s.clearPassword = parseFlag(o, "allow_clear_password", fail)
	if s.policy != nil && s.policy.Insecure && !s.insecure {
		fail("security_policy", fmt.Sprintf("security_policy %s has been withdrawn: it can be broken", s.policy.Name), "choose another, or add allow_insecure: true")
	}
	s.pki.Path = o["pki"]
	if name := o["server_name"]; name != "" {
		s.serverName = name
	}
	s.parseLanguage(o["language"], fail)
	s.parseReverse(o, fail)
	if meant, wrong := parseNamespaces(o[namespacesOption]); wrong != "" {
		fail(namespacesOption, wrong, "write for example 2=urn:machine 3=urn:tools, or leave it out")
	} else {
		s.namespaces = meant
	}
	s.user, s.password = o["username"], o["password"]
	s.userCertificate, s.userKey = o["user_certificate"], o["user_key"]
	switch {
	case s.userCertificate == "" && s.userKey != "":
		fail("user_key", "user_key is given without a user_certificate", "add user_certificate, or remove user_key")
	case s.userCertificate != "" && s.user != "":
		fail("user_certificate", "user_certificate and username are both given", "remove one of them: a session has one user")
	}
	if s.user == "" && s.password != "" {
		fail("password", "password is given without a username", "add username, or remove password")
	}
}

func (s *settings) parseLanguage(text string, fail func(field, what, mend string)) {
	if text == "" {
		text = "en"
	}
	for one := range strings.SplitSeq(text, ",") {
		one = strings.TrimSpace(one)
		if !locale.MatchString(one) || len(s.locales) == maxLocales {
			fail("language", fmt.Sprintf("language %q is not a language, or one too many", clip(one)), "write for example de, or de-AT, de, en")
			return
		}
		s.locales = append(s.locales, one)
	}
}

const maxLocales = 8

// locale is a language, perhaps with a region and so on (RFC 3066, OPC 10000-3, 8.4).
var locale = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$`)

// listenScheme is the transport of servers that make the connection themselves.
const listenScheme = "opc.tcp-listen"

func (s *settings) parseReverse(o map[string]string, fail func(field, what, mend string)) {
	server := o["server_uri"]
	from, limited := o["allow_from"]
	switch {
	case s.reverse == nil && limited:
		fail("allow_from", "allow_from is of servers that call", `use url "opc.tcp-listen://:4841", or leave allow_from out`)
	case s.reverse == nil && server != "":
		fail("server_uri", "server_uri is of servers that call", `use url "opc.tcp-listen://:4841", or leave server_uri out`)
	case s.reverse == nil:
	case server == "" || len(server) > maxIdentifier:
		fail("server_uri", "server_uri, which tells the servers that call apart, is missing or too long", "write the application URI of the server, such as urn:cnc-1:server")
	default:
		s.reverse.slot.server, s.reverse.named = server, s.serverName != ""
	}
	if s.reverse == nil || !limited {
		return
	}
	allow, err := callers.ParseAllowed(from)
	if s.reverse.slot.allow = allow; err != nil {
		fail("allow_from", fmt.Sprintf("allow_from: %v", err), callers.HowToAllow)
	}
}

func (s *settings) parseSubscribing(o map[string]string, fail func(field, what, mend string)) {
	switch v := o["mode"]; v {
	case "", "subscribe":
		s.subscribing = modeSubscribe
	case "read":
		s.subscribing = modeRead
	case "auto":
		s.subscribing = modeAuto
	default:
		fail("mode", fmt.Sprintf("mode %q is not known", v), "use subscribe, read or auto")
	}
	if s.register = parseFlag(o, "register_nodes", fail); s.register && s.subscribing == modeSubscribe {
		fail("register_nodes", "register_nodes is for what is polled, and mode is subscribe", "write mode: read, or remove it")
	}
	switch v := o["backfill"]; {
	case v == "history" && s.subscribing == modeRead:
		fail("backfill", "backfill is for what the server pushes, and mode is read", "remove one of them")
	case v == "history":
		s.backfill = true
	case v != "" && v != "off":
		fail("backfill", fmt.Sprintf("backfill %q is not known", v), "use history or off")
	}
	s.queue = defaultQueue
	if v := o["queue_size"]; v != "" {
		n, err := parseDecimal(v, 16)
		if err != nil || n < 1 || n > maxQueue {
			fail("queue_size", fmt.Sprintf("queue_size %q is not a number from 1 to %d", v, maxQueue), fmt.Sprintf("remove it to have %d", defaultQueue))
		}
		s.queue = int(n)
	}
	if v := o["verify_interval"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < time.Second || d > 24*time.Hour {
			fail("verify_interval", fmt.Sprintf("verify_interval %q is not a time from 1s to 24h", v), "write one such as 1m, or remove it")
		}
		s.verify = d
	}
}

func groupOptions() []drivers.Option {
	return append(ruleOptions(), []drivers.Option{
		{Name: "max_silence", Example: "5m", Help: "a tag that was neither pushed nor confirmed by verify_interval for so long is not good any more, 1s to 24h (default: never)"},
		{Name: "on_silence", Example: "bad", Help: "what it is then: bad (default: good values only), or last-known (uncertain, with the last value and its time)"},
	}...)
}

func (g *group) parseSilence(o map[string]string, fail func(field, what, mend string)) {
	if v := o["max_silence"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < time.Second || d > 24*time.Hour {
			fail("max_silence", fmt.Sprintf("max_silence %q is not a time from 1s to 24h", v), "write one such as 5m, or remove it")
		}
		g.silence = d
	}
	switch v := o["on_silence"]; v {
	case "", "bad":
	case "last-known":
		g.keeps = true
	default:
		fail("on_silence", fmt.Sprintf("on_silence %q is not known", v), "use bad or last-known")
	}
	if o["on_silence"] != "" && o["max_silence"] == "" {
		fail("on_silence", "on_silence is given without max_silence", "add max_silence: a time such as 5m, or remove on_silence")
	}
}

// onlyEvents reports a group that has tags of events and can have no others.
func (g *group) onlyEvents() bool {
	return g.rule == nil && len(g.tags) > 0 && len(g.eventTags()) == len(g.tags)
}

func (s *settings) parseSecurity(o map[string]string, fail func(field, what, mend string)) {
	plain := func(v string) string { return strings.ReplaceAll(strings.ToLower(v), "_", "-") } // OPC UA writes Aes128_Sha256_RsaOaep
	if v := o["security_policy"]; v != "" && plain(v) != "auto" {
		var names []string
		for _, p := range wire.Policies() {
			if names = append(names, p.Name); p.Name == plain(v) {
				s.policy = p
			}
		}
		if s.policy == nil {
			fail("security_policy", fmt.Sprintf("security_policy %q is not known", v), "use one of auto, "+strings.Join(names, ", "))
		}
	}
	switch v := o["security_mode"]; {
	case v == "":
	case s.policy == wire.None():
		fail("security_mode", "security_mode is given with security_policy none", "remove one of them")
	case plain(v) == wire.ModeSign.String():
		s.mode = wire.ModeSign
	case plain(v) == wire.ModeSignAndEncrypt.String() || strings.EqualFold(v, "SignAndEncrypt"):
		s.mode = wire.ModeSignAndEncrypt
	default:
		fail("security_mode", fmt.Sprintf("security_mode %q is not known", v), "use sign or sign-and-encrypt, or leave it out to take the strongest; none has no mode: write security_policy: none")
	}
}

func parseFlag(o map[string]string, name string, fail func(field, what, mend string)) bool {
	switch v := o[name]; v {
	case "true":
		return true
	case "", "false":
	default:
		fail(name, fmt.Sprintf("%s %q is neither true nor false", name, v), "use true or false")
	}
	return false
}

func parseTag(t *tag, from *telemetry.Tag, subscribing mode, device, group, index int) (errs []error) {
	fail := func(field, what, mend string) {
		errs = append(errs, &drivers.ConfigError{Device: device, Group: group, Tag: index, Field: field, What: what, Mend: mend})
	}
	a, m := parseAddress(from.Address)
	if m != nil {
		fail("address", fmt.Sprintf("address %q: %s", clip(from.Address), m.what), m.mend)
	}
	if from.Type == eventType {
		t.addr, t.event = a, parseEvent(from, fail)
		t.deadband = t.parseDeadband(from, subscribing, fail)
		if from.Options["read_back"] != "" {
			fail("read_back", "read_back is of values, and the tag takes events", "remove it")
		}
		return errs
	}
	for _, name := range []string{"min_severity", "event_type"} {
		if from.Options[name] != "" {
			fail(name, name+" is of events, and the tag takes values", "add type: event, or remove it")
		}
	}
	w, ok := parseType(from.Type)
	if !ok {
		fail("type", fmt.Sprintf("type %q is not known", from.Type), "use one of "+strings.ReplaceAll(typeWords, " ", ", ")+" or event, or leave type out to take the server's")
	}
	if field, m := w.wants(from.Options); m != nil {
		fail(field, m.what, m.mend)
	}
	if w.part != nil && (w.part.server || w.part.own != nil) && from.Scaled() {
		fail("enum", "enum of a tag that is scaled", "remove one of them")
	}
	t.addr, t.want = a, w
	t.deadband = t.parseDeadband(from, subscribing, fail)
	whole := w.part == nil || len(w.part.steps) == 0
	t.unsaid = [sayings]bool{sayUnit: from.Unit == "" && !from.Scaled() && whole, sayDescription: from.Description == "" && whole,
		sayRange: t.event == nil && w.part == nil && w.kind != telemetry.KindString && w.kind != telemetry.KindBool && w.kind != telemetry.KindTime}
	if t.readBack = parseFlag(from.Options, "read_back", fail); t.readBack && t.readOnly() != "" {
		fail("read_back", "read_back: "+t.readOnly(), "leave it out")
	}
	return errs
}

// textSize is the most bytes that the tag's text has, 0 where it is none or nobody knows what it is, -1 for a text as long as the server makes it.
func (t *tag) textSize() (n int) {
	p := t.want.part
	switch {
	case p != nil && p.own != nil:
		for _, text := range p.own.of {
			n = max(n, len(text))
		}
	case t.event != nil, t.want.kind == telemetry.KindString, p != nil && p.server:
		return -1
	}
	return n
}

// clip keeps a message readable when an address is absurdly long.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// sessionTimeout returns how long the server shall keep a session without requests: three polls of
// the fastest group, so that a lost poll does not end it, but not so long that the sessions of lost
// connections pile up on a small server.
func sessionTimeout(groups []drivers.Group) time.Duration {
	fastest := time.Hour
	for _, g := range groups {
		fastest = min(fastest, g.Interval)
	}
	return min(max(3*fastest, time.Minute), time.Hour)
}
