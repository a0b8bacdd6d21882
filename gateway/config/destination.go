package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func destinationTable() *table[Destination] {
	return &table[Destination]{in: "a destination", keys: []key[Destination]{
		{name: "name", need: `"name: cloud"`, set: func(l *loader, f field, d *Destination) {
			if l.name(f, &d.Name, true) {
				l.unique(f, "destination", d.Name)
			}
		}},
		{name: "url", need: `"url: mqtts://broker.example:8883"`, set: func(l *loader, f field, d *Destination) { l.brokerURL(f, &d.URL) }},
		{name: "client_id", set: func(l *loader, f field, d *Destination) { l.short(f, &d.ClientID, maxClientID) }},
		{name: "username", set: func(l *loader, f field, d *Destination) { l.short(f, &d.Username, maxCredential) }},
		{name: "password", set: func(l *loader, f field, d *Destination) { l.secret(f, &d.Password) }},
		{name: "topic", set: func(l *loader, f field, d *Destination) { l.topic(f, &d.Topic) }},
		{name: "format", set: func(l *loader, f field, d *Destination) { choice(l, f, &d.Format, "json") }},
		{name: "order", set: func(l *loader, f field, d *Destination) { choice(l, f, &d.Order, LiveFirst, OldestFirst) }},
		{name: "start", set: func(l *loader, f field, d *Destination) { choice(l, f, &d.Start, StartNow, StartOldest) }},
		{name: "window", set: func(l *loader, f field, d *Destination) { l.integer(f, &d.Window, 1, maxWindow) }},
		{name: "max_in_flight", set: func(l *loader, f field, d *Destination) {
			l.size(f, &d.MaxInFlightBytes, false, minInFlight, maxInFlight)
		}},
		{name: "max_message", set: func(l *loader, f field, d *Destination) {
			l.size(f, &d.MaxMessage, true, minMessage, maxMessage)
		}},
		{name: "backlog_limit", set: func(l *loader, f field, d *Destination) {
			read(l, f.v, l.tables.backlogLimit, &d.BacklogLimit, hooks{})
		}},
		{name: "keep_alive", set: func(l *loader, f field, d *Destination) { l.keepAlive(f, &d.KeepAlive) }},
		{name: "ack_timeout", set: func(l *loader, f field, d *Destination) {
			l.duration(f, &d.AckTimeout, false, minAckTimeout, maxAckTimeout)
		}},
		{name: "retry", set: func(l *loader, f field, d *Destination) { l.retry(f, &d.Retry) }},
		{name: "tls", set: func(l *loader, f field, d *Destination) { l.readTLS(f, &d.TLS) }},
		{name: "int64_as_string", set: func(l *loader, f field, d *Destination) { l.boolean(f, &d.Int64AsString) }},
	}}
}

func backlogLimitTable() *table[BacklogLimit] {
	return &table[BacklogLimit]{in: "backlog_limit", keys: []key[BacklogLimit]{
		{name: "messages_per_second", set: func(l *loader, f field, b *BacklogLimit) {
			var x float64
			if !l.number(f, &x) {
				return
			}
			if x < 0 || x > maxMessageRate || x > 0 && x < 0.01 {
				l.errorf(l.at(f.v), "use 0.01 to 1000000, or 0 for no limit", "%s %s is out of range", f.name, quote(f.v.n.Value))
				return
			}
			b.Messages = x
		}},
		{name: "bytes_per_second", set: func(l *loader, f field, b *BacklogLimit) {
			l.size(f, &b.Bytes, true, minByteRate, maxByteRate)
		}},
	}}
}

func retryTable() *table[Retry] {
	return &table[Retry]{in: "retry", keys: []key[Retry]{
		{name: "min", set: func(l *loader, f field, r *Retry) { l.duration(f, &r.Min, false, minRetry, maxRetry) }},
		{name: "max", set: func(l *loader, f field, r *Retry) { l.duration(f, &r.Max, false, minRetry, maxRetry) }},
	}}
}

// retry reads `retry:`; what it leaves out keeps its default.
func (l *loader) retry(f field, r *Retry) {
	if read(l, f.v, l.tables.retry, r, hooks{}); r.Min > r.Max {
		l.errorf(l.at(f.v), "give both, min at most max", "retry has min %s above max %s", formatDuration(r.Min), formatDuration(r.Max))
	}
}

func tlsTable() *table[TLS] {
	file := func(dst func(*TLS) *string) func(*loader, field, *TLS) {
		return func(l *loader, f field, t *TLS) {
			if p := dst(t); l.short(f, p, maxText) {
				*p = beside(l.files[f.v.file], *p)
			}
		}
	}
	return &table[TLS]{in: "tls", keys: []key[TLS]{
		{name: "ca", set: file(func(t *TLS) *string { return &t.CA })},
		{name: "cert", set: file(func(t *TLS) *string { return &t.Cert })},
		{name: "key", set: file(func(t *TLS) *string { return &t.Key })},
		{name: "server_name", set: func(l *loader, f field, t *TLS) { l.short(f, &t.ServerName, maxName) }},
	}}
}

// readDestination reads one entry of `destinations:`.
func (l *loader) readDestination(v value) {
	if len(l.cfg.Destinations) == maxDestinations {
		l.errorf(l.at(v), "delete one, or run a second gateway", "there are more than %d destinations", maxDestinations)
		return
	}
	d := DefaultDestination()
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
func (l *loader) brokerURL(f field, dst *string) {
	s, ok := l.text(f)
	if !ok {
		return
	}
	shown := quote(redact(f.v.n.Value))
	const example = "such as mqtts://broker.example:8883"
	u, err := url.Parse(s) // its error quotes the url, password and all
	port, known := map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}[schemeOf(s)]
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
	case strings.HasPrefix(u.Scheme, "mqtt") && (u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != ""):
		l.errorf(l.at(f.v), "end it after the port; topics have a key of their own", "%s %s has a path, which only ws and wss have", f.name, shown)
	default:
		if u.Port() == "" {
			u.Host = strings.TrimSuffix(u.Host, ":") + ":" + port
		}
		if strings.HasPrefix(u.Scheme, "mqtt") {
			u.Path = ""
		}
		*dst = u.String()
	}
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
func (l *loader) topic(f field, dst *string) {
	var s string
	if !l.short(f, &s, maxTopic) {
		return
	}
	if strings.ContainsAny(s, "+#") {
		l.errorf(l.at(f.v), "use {device} or {group} for the part that varies", "topic %s holds a wildcard (+ or #), which a topic to publish to cannot have", quote(f.v.n.Value))
		return
	}
	for rest := s; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			break
		}
		word, after, ok := strings.Cut(rest[i+1:], "}")
		if rest[i] == '}' || !ok || strings.Contains(word, "{") {
			l.errorf(l.at(f.v), "write {gateway}, {device} or {group}", "topic %s has a brace without its other half", quote(f.v.n.Value))
			return
		}
		if words := []string{"gateway", "device", "group"}; word != "gateway" && word != "device" && word != "group" {
			l.errorf(l.at(f.v), didYouMean(word, words, "use one of"), "topic %s has the unknown placeholder {%s}", quote(f.v.n.Value), word)
			return
		}
		rest = after
	}
	*dst = s
}

func (l *loader) keepAlive(f field, dst *time.Duration) {
	d := *dst
	if l.duration(f, &d, false, minKeepAlive, maxKeepAlive); d%time.Second != 0 {
		l.errorf(l.at(f.v), "use whole seconds, such as 30s", "%s %s is not a number of seconds", f.name, quote(f.v.n.Value))
		return
	}
	*dst = d
}

// readTLS reads `tls:` and tries its files.
func (l *loader) readTLS(f field, t *TLS) {
	given := map[string]field{}
	read(l, f.v, l.tables.tls, t, hooks{note: func(f field, ok bool) {
		if ok {
			given[f.name] = f
		}
	}})
	if (t.Cert == "") != (t.Key == "") {
		l.errorf(l.at(f.k), "give both files or neither", "tls has only one of cert and key")
	}
	if ca, ok := l.pem(given["ca"], t.CA); ok && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		l.errorf(l.at(given["ca"].v), "use a file of PEM certificates (-----BEGIN CERTIFICATE-----)", "ca %s holds no certificate", quote(given["ca"].v.n.Value))
	}
	cert, ok := l.pem(given["cert"], t.Cert)
	key, kok := l.pem(given["key"], t.Key)
	if !ok || !kok {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		l.errorf(l.at(given["cert"].v), "use PEM files of one certificate and its own key", "cert and key do not work together: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// pem reads the file that f names.
func (l *loader) pem(f field, path string) ([]byte, bool) {
	if path == "" {
		return nil, false
	}
	data, err := readRegular(path, maxPEM)
	if err != nil {
		l.errorf(l.at(f.v), besideMend, "read %s %s: %s", f.name, quote(f.v.n.Value), reason(err))
		return nil, false
	}
	return data, true
}
