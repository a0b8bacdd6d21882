package opcua

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

const defaultPort = "4840" // IANA: opcua-tcp

// settings is what the config says about one server.
type settings struct {
	device   string
	endpoint string // as configured: servers compare it with theirs
	host     string // host:port to dial
	user     string // "" for anonymous
	password string
	timeout  time.Duration // of one request
	session  time.Duration // of a session without requests, asked of the server
	lifetime time.Duration // of the secure channel's token, asked of the server
}

func deviceOptions() []drivers.Option {
	return []drivers.Option{
		{Name: "security", Help: `security policy and mode of the connection; only "none" as yet (default none)`},
		{Name: "username", Help: "user to log in as; the password is only ever sent encrypted (default: anonymous)"},
		{Name: "password", Help: "password of username; best given as ${env:NAME} or ${file:PATH}"},
	}
}

// group is one poll group, parsed.
type group struct {
	tags []tag
	ask  plan
}

type tag struct {
	addr address
	want wanted
}

// parse checks the whole connection and returns all mistakes at once.
func parse(c drivers.Connection) (settings, [][]group, error) {
	s := settings{lifetime: maxLifetime}
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
			groups[i][j].tags = make([]tag, len(g.Tags))
			for k := range g.Tags {
				errs = append(errs, parseTag(&groups[i][j].tags[k], &g.Tags[k], i, j, k)...)
			}
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
			mend = fmt.Sprintf("use %q", "opc.tcp://"+text)
		}
		fail("url", fmt.Sprintf("url %q is not an OPC UA endpoint", text), mend)
		return
	case u.Scheme != "opc.tcp":
		fail("url", fmt.Sprintf("url %q: transport %q is not supported", text, u.Scheme), example)
		return
	case u.Hostname() == "":
		fail("url", fmt.Sprintf("url %q has no host", text), example)
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
	s.endpoint, s.host = text, net.JoinHostPort(u.Hostname(), port)
}

func (s *settings) parseOptions(o map[string]string, fail func(field, what, mend string)) {
	switch v := o["security"]; v {
	case "", "none":
	case "None":
		fail("security", `security "None" is not known`, `use "none"`)
	default:
		fail("security", fmt.Sprintf("security %q is not supported yet: signed and encrypted connections (Basic256Sha256, Aes128_Sha256_RsaOaep, Aes256_Sha256_RsaPss) come with a later version", v),
			`use "none" on a network you trust`)
	}
	s.user, s.password = o["username"], o["password"]
	if s.user == "" && s.password != "" {
		fail("password", "password is given without a username", "add username, or remove password")
	}
}

func parseTag(t *tag, from *telemetry.Tag, device, group, index int) (errs []error) {
	fail := func(field, what, mend string) {
		errs = append(errs, &drivers.ConfigError{Device: device, Group: group, Tag: index, Field: field, What: what, Mend: mend})
	}
	a, m := parseAddress(from.Address)
	if m != nil {
		fail("address", fmt.Sprintf("address %q: %s", clip(from.Address), m.what), m.mend)
	}
	w, ok := parseType(from.Type)
	if !ok {
		fail("type", fmt.Sprintf("type %q is not known", from.Type), "use one of "+strings.ReplaceAll(typeWords, " ", ", ")+", or leave type out to take the server's")
	}
	t.addr, t.want = a, w
	return errs
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
