package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/files"
	"millrace/drivers/peer"
)

func destinationTable() *table[Destination] {
	tls := partKind(tlsTable(), func(d *Destination) *TLS { return &d.TLS })
	tls.set = func(l *loader, f field, d *Destination) bool { return l.readTLS(f, &d.TLS) }
	return &table[Destination]{in: "a destination", keys: []key[Destination]{
		{name: "name", show: "cloud", need: `"name: cloud"`, kind: then(nameKind(func(d *Destination) *string { return &d.Name }, true),
			func(l *loader, f field, d *Destination) { l.unique(f, "destination", d.Name) })},
		{name: "url", show: "mqtt://broker.example:1883", need: `"url: mqtts://broker.example:8883"`,
			help: "mqtt, mqtts, ws or wss, host, port (1883, 8883, 80, 443 when left out), for ws and wss a path; no user or password",
			kind: checked(func(d *Destination) *string { return &d.URL }, (*loader).brokerURL)},
		{name: "client_id", show: "press-shop", help: "default: the gateway's name. Two destinations at one broker need two", kind: textKind(func(d *Destination) *string { return &d.ClientID }, maxClientID)},
		{name: "username", show: "${env:MQTT_USER}", kind: textKind(func(d *Destination) *string { return &d.Username }, maxCredential)},
		{name: "password", show: "${file:/run/secrets/mqtt}", help: "needs a username; best from the environment or a file", kind: secretKind(func(d *Destination) *Secret { return &d.Password })},
		{name: "topic", def: "telemetry/{gateway}/{device}/{group}", help: "{gateway}, {device} and {group} are replaced by names; no wildcards; 65535 bytes at most",
			kind: checked(func(d *Destination) *string { return &d.Topic }, (*loader).topic)},
		{name: "format", def: "json", help: "see gateway/README.md", kind: choiceKind(func(d *Destination) *string { return &d.Format }, "json")},
		{name: "order", def: string(LiveFirst), help: "after an outage fresh readings at once and the backlog beside them, or strict order",
			kind: choiceKind(func(d *Destination) *Order { return &d.Order }, LiveFirst, OldestFirst)},
		{name: "start", def: string(StartNow), help: "where a destination begins that the buffer does not know yet, now or at the oldest record",
			kind: choiceKind(func(d *Destination) *Start { return &d.Start }, StartNow, StartOldest)},
		// The most unacknowledged publishes that AWS IoT Core takes; 5,000 records/s at a 20 ms round trip.
		{name: "window", def: "100", help: "messages in flight", kind: intKind(func(d *Destination) *int { return &d.Window }, 1, maxWindow)},
		// Bounds the memory of a full window of large messages.
		{name: "max_in_flight", def: "4MiB", help: "bytes in flight", kind: sizeKind(func(d *Destination) *int64 { return &d.MaxInFlightBytes }, false, minInFlight, maxInFlight)},
		{name: "max_message", def: "0", help: "largest payload the broker takes (AWS IoT Core: 128KiB), 0 = not known. A larger one goes to quarantine unsent: brokers close the connection on it or throw it away silently",
			kind: sizeKind(func(d *Destination) *int64 { return &d.MaxMessage }, true, minMessage, maxMessage)},
		{name: "backlog_limit", help: "how fast a backlog may drain beside live readings", kind: partKind(backlogLimitTable(), func(d *Destination) *BacklogLimit { return &d.BacklogLimit })},
		// Below the idle time-out of common NATs (60 s); the least AWS IoT Core takes.
		{name: "keep_alive", def: "30s", help: "of MQTT, in whole seconds", kind: keepAliveKind()},
		// Many round trips of a bad radio link; a broker silent for longer refuses by silence.
		{name: "ack_timeout", def: "10s", help: "silence of the broker after which the session is given up",
			kind: durationKind(func(d *Destination) *time.Duration { return &d.AckTimeout }, false, minAckTimeout, maxAckTimeout)},
		// A blip costs little; a restarted broker is found within seconds.
		{name: "retry", help: "wait between two connects, growing from min to max", kind: retryKind("200ms", "8s", func(d *Destination) *Retry { return &d.Retry })},
		{name: "tls", help: "for mqtts and wss; the files are read again at every connect", kind: tls},
		{name: "int64_as_string", def: "false", help: "integers beyond 2^53 as JSON strings, for readers that would round them", kind: boolKind(func(d *Destination) *bool { return &d.Int64AsString })},
	}}
}

// checked is a text that read checks.
func checked[T any](at func(*T) *string, read func(*loader, field, *string) bool) kind[T] {
	k := textKind(at, maxText)
	k.set = func(l *loader, f field, v *T) bool { return read(l, f, at(v)) }
	return k
}

func keepAliveKind() kind[Destination] {
	k := durationKind(func(d *Destination) *time.Duration { return &d.KeepAlive }, false, minKeepAlive, maxKeepAlive)
	k.set = func(l *loader, f field, d *Destination) bool { return l.keepAlive(f, &d.KeepAlive) }
	return k
}

func backlogLimitTable() *table[BacklogLimit] {
	messages := numberKind(func(b *BacklogLimit) *float64 { return &b.Messages })
	messages.set = func(l *loader, f field, b *BacklogLimit) bool { return l.messageRate(f, &b.Messages) }
	messages.form.words = "0 = no limit, or 0.01 to 1000000"
	return &table[BacklogLimit]{in: "backlog_limit", flow: true, keys: []key[BacklogLimit]{
		{name: "messages_per_second", def: "0", kind: messages},
		{name: "bytes_per_second", def: "0", help: "0 = no limit", kind: sizeKind(func(b *BacklogLimit) *int64 { return &b.Bytes }, true, minByteRate, maxByteRate)},
	}}
}

func (l *loader) messageRate(f field, dst *float64) bool {
	var x float64
	if !l.number(f, &x) {
		return false
	}
	if x < 0 || x > maxMessageRate || x > 0 && x < 0.01 {
		l.errorf(l.at(f.v), "use 0.01 to 1000000, or 0 for no limit", "%s %s is out of range", f.name, quote(f.v.n.Value))
		return false
	}
	*dst = x
	return true
}

// retryKind is `retry:` with these defaults; what it leaves out keeps its own.
func retryKind[T any](least, most string, at func(*T) *Retry) kind[T] {
	return then(partKind(&table[Retry]{in: "retry", flow: true, keys: []key[Retry]{
		{name: "min", def: least, kind: durationKind(func(r *Retry) *time.Duration { return &r.Min }, false, minRetry, maxRetry)},
		{name: "max", def: most, kind: durationKind(func(r *Retry) *time.Duration { return &r.Max }, false, minRetry, maxRetry)},
	}}, at), func(l *loader, f field, v *T) {
		if r := at(v); r.Min > r.Max {
			l.errorf(l.at(f.v), "give both, min at most max", "retry has min %s above max %s", formatDuration(r.Min), formatDuration(r.Max))
		}
	})
}

func tlsTable() *table[TLS] {
	return &table[TLS]{in: "tls", flow: true, keys: []key[TLS]{
		{name: "ca", show: "ca.pem", help: "PEM file of the authorities to trust instead of the system's", kind: pathKind(func(t *TLS) *string { return &t.CA })},
		{name: "cert", show: "client.pem", help: "PEM file of the client certificate, with its", kind: pathKind(func(t *TLS) *string { return &t.Cert })},
		{name: "key", show: "client.key", help: "key", kind: pathKind(func(t *TLS) *string { return &t.Key })},
		{name: "server_name", show: "broker", help: "name to verify instead of the host in the url", kind: textKind(func(t *TLS) *string { return &t.ServerName }, maxName)},
	}}
}

// readDestination reads one entry of `destinations:`.
func (l *loader) readDestination(v value) {
	if len(l.cfg.Destinations) == maxDestinations {
		l.errorf(l.at(v), "delete one, or run a second gateway", "there are more than %d destinations", maxDestinations)
		return
	}
	d := Destination{}
	l.tables.destination.reset(l, &d)
	var id, topic, tlsAt, password, username pos
	note := func(f field, _ bool) {
		switch f.name {
		case "topic":
			topic = l.at(f.v)
		case "client_id":
			id = l.at(f.v)
		case "tls":
			tlsAt = l.at(f.k)
		case "password":
			password = l.at(f.k)
		case "username":
			username = l.at(f.k)
		}
	}
	seen := read(l, v, l.tables.destination, &d, hooks{note: note})
	lack(l, v, l.tables.destination, seen, called("destination", d.Name))
	if tlsAt.line > 0 && d.URL != "" && !secure(d.URL) {
		l.errorf(tlsAt, "use mqtts:// or wss:// with the broker's TLS port, or delete tls", "tls has no effect on the url %s", quote(d.URL))
	}
	if password.line > 0 && username.line == 0 {
		l.errorf(password, "add a username; MQTT sends no password without one", "password without a username")
	}
	if id.line == 0 {
		id = l.at(v)
	}
	l.cfg.Destinations = append(l.cfg.Destinations, d)
	l.clientIDs, l.topics = append(l.clientIDs, id), append(l.topics, topic)
}

func secure(url string) bool {
	return strings.HasPrefix(url, "mqtts:") || strings.HasPrefix(url, "wss:")
}

// called names something in a message: `device "press-1"`, or `the device` while it has no name.
func called(what, name string) string {
	if name == "" {
		return "the " + what
	}
	return fmt.Sprintf("%s %q", what, name)
}

// unique refuses a name that another thing of its kind has.
func (l *loader) unique(f field, what, name string) {
	full := what + " " + name
	if first, ok := l.names[full]; ok {
		l.errorf(l.at(f.v), "give it another name", "%s %q is already defined at %s", what, name, l.position(first))
		return
	}
	l.names[full] = l.at(f.v)
}

// brokerURL reads the url of a broker and fills in its port.
func (l *loader) brokerURL(f field, dst *string) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	shown := quote(redact(f.v.n.Value))
	const example = "such as mqtts://broker.example:8883"
	u, err := url.Parse(s) // its error quotes the url, password and all
	port, known := usualPorts[schemeOf(s)]
	switch {
	case !strings.Contains(s, "://"):
		l.errorf(l.at(f.v), "write scheme://host:port, "+example, "%s %s has no scheme", f.name, shown)
	case !known:
		l.errorf(l.at(f.v), "use mqtt, mqtts, ws or wss", "%s %s has the unknown scheme %s", f.name, shown, quote(schemeOf(s)))
	case err != nil && badPort(s):
		l.errorf(l.at(f.v), "use 1 to 65535", "%s %s has an impossible port", f.name, shown)
	case err != nil:
		l.errorf(l.at(f.v), "write scheme://host:port, "+example, "%s %s is not a url", f.name, shown)
	case u.User != nil:
		l.errorf(l.at(f.v), "write them as username and password, which keeps them out of the logs", "%s %s holds a username or password", f.name, shown)
	case u.Hostname() == "":
		l.errorf(l.at(f.v), "write scheme://host:port, "+example, "%s %s has no host", f.name, shown)
	case badPort(s):
		l.errorf(l.at(f.v), "use 1 to 65535", "%s %s has an impossible port", f.name, shown)
	case drivers.NoHost(u.Hostname()):
		l.errorf(l.at(f.v), drivers.HostMend, "%s %s: the host is no address and can be no name", f.name, shown)
	case strings.HasPrefix(u.Scheme, "mqtt") && (u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != ""):
		l.errorf(l.at(f.v), "end it after the port; topics have a key of their own", "%s %s has a path, which only ws and wss have", f.name, shown)
	default:
		if u.Port() == "" {
			u.Host = strings.TrimSuffix(u.Host, ":") + ":" + port
		}
		if strings.HasPrefix(u.Scheme, "mqtt") {
			u.Path = ""
		}
		l.doubtPort(f, u)
		*dst = u.String()
		return true
	}
	return false
}

func schemeOf(s string) string {
	scheme, _, _ := strings.Cut(s, "://")
	return strings.ToLower(scheme)
}

// badPort reports a port that is not 1 to 65535.
func badPort(s string) bool {
	_, rest, _ := strings.Cut(s, "://")
	host, _, _ := strings.Cut(rest, "/")
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.HasSuffix(host, "]") || i == len(host)-1 {
		return false
	}
	n, err := strconv.Atoi(host[i+1:])
	return err != nil || n < 1 || n > 65535
}

// redact hides the user and password in a url.
func redact(s string) string {
	start := strings.Index(s, "://")
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	if start < 0 || start > at {
		return mask + s[at:]
	}
	return s[:start+3] + mask + s[at:]
}

// topic reads a topic template.
func (l *loader) topic(f field, dst *string) bool {
	var s string
	if !l.short(f, &s, maxTopic) {
		return false
	}
	if strings.ContainsAny(s, "+#") {
		l.errorf(l.at(f.v), "use {device} or {group} for the part that varies", "topic %s holds a wildcard (+ or #), which a topic to publish to cannot have", quote(f.v.n.Value))
		return false
	}
	for rest := s; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			break
		}
		word, after, ok := strings.Cut(rest[i+1:], "}")
		if rest[i] == '}' || !ok || strings.Contains(word, "{") {
			l.errorf(l.at(f.v), "write {gateway}, {device} or {group}", "topic %s has a brace without its other half", quote(f.v.n.Value))
			return false
		}
		if words := []string{"gateway", "device", "group"}; word != "gateway" && word != "device" && word != "group" {
			l.errorf(l.at(f.v), didYouMean(word, words, "use one of"), "topic %s has the unknown placeholder {%s}", quote(f.v.n.Value), word)
			return false
		}
		rest = after
	}
	*dst = s
	return true
}

func (l *loader) keepAlive(f field, dst *time.Duration) bool {
	var d time.Duration
	if !l.duration(f, &d, false, minKeepAlive, maxKeepAlive) {
		return false
	}
	if d%time.Second != 0 {
		l.errorf(l.at(f.v), "use whole seconds, such as 30s", "%s %s is not a number of seconds", f.name, quote(f.v.n.Value))
		return false
	}
	*dst = d
	return true
}

// readTLS reads `tls:` and tries its files.
func (l *loader) readTLS(f field, t *TLS) bool {
	before := l.mistakes.total
	given := map[string]field{}
	read(l, f.v, tlsTable(), t, hooks{note: func(f field, ok bool) {
		if ok {
			given[f.name] = f
		}
	}})
	if (t.Cert == "") != (t.Key == "") {
		l.errorf(l.at(f.k), "give both files or neither", "tls has only one of cert and key")
	}
	ca, cert, key := l.pem(given["ca"], t.CA), l.pem(given["cert"], t.Cert), l.pem(given["key"], t.Key)
	if ca != nil {
		l.judgeFile(ca, nil, false, peer.ReadCA)
	}
	if cert != nil && key != nil {
		l.judgeFile(cert, key, true, peer.ReadPair)
	}
	return l.mistakes.total == before
}

// pemFile is a file of certificates or a key, and the key of the config that names it.
type pemFile struct {
	field
	path string
	data []byte
}

// pem reads the file that f names, nil = none or unreadable.
func (l *loader) pem(f field, path string) *pemFile {
	if path == "" {
		return nil
	}
	data, err := readRegular(path, files.MaxPEM)
	if err != nil {
		l.errorf(l.at(f.v), besideMend, "read %s %s: %s", f.name, quote(f.v.n.Value), reason(err))
		return nil
	}
	return &pemFile{f, path, data}
}
