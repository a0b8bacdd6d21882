package opcua

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// mistakes returns "device/group/tag field: message" of each.
func mistakes(err error) []string {
	var all []string
	joined, _ := err.(interface{ Unwrap() []error })
	if joined == nil {
		return nil
	}
	for _, e := range joined.Unwrap() {
		var c *drivers.ConfigError
		if errors.As(e, &c) {
			all = append(all, fmt.Sprintf("%d/%d/%d %s: %s", c.Device, c.Group, c.Tag, c.Field, c))
		}
	}
	return all
}

func TestEveryMistakeAtOnce(t *testing.T) {
	c := connection("192.168.1.20:4840", time.Second, "ns=2;s=ok", "Speed", "ns=2;i=1", "i=1")
	c.Devices[0].Options = map[string]string{"security_policy": "Basic512Sha256", "security_mode": "encrypt", "allow_insecure": "yes", "password": "x"}
	c.Devices[0].Groups[0].Tags[2].Type = "real"
	c.Devices[0].Groups[0].Tags[3].Type = "8"
	_, err := newDriver(c)
	want := []string{
		`0/-1/-1 url: url "192.168.1.20:4840" is not an OPC UA endpoint; use "opc.tcp://192.168.1.20:4840"`,
		`0/-1/-1 security_policy: security_policy "Basic512Sha256" is not known; use one of auto, none, basic128rsa15, basic256, basic256sha256, aes128-sha256-rsaoaep, aes256-sha256-rsapss`,
		`0/-1/-1 security_mode: security_mode "encrypt" is not known; use sign or sign-and-encrypt, or leave it out to take the strongest; none has no mode: write security_policy: none`,
		`0/-1/-1 allow_insecure: allow_insecure "yes" is neither true nor false; use true or false`,
		`0/-1/-1 password: password is given without a username; add username, or remove password`,
		`0/0/1 address: address "Speed": no identifier of the form i=, s=, g= or b=; for a text identifier use "ns=2;s=Speed" with the server's namespace index`,
		`0/0/2 type: type "real" is not known; use one of bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, string, time, json or event, or leave type out to take the server's`,
		`0/0/3 type: type "8" is not known; use one of bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, string, time, json or event, or leave type out to take the server's`,
	}
	if got := mistakes(err); !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestContradictions has security keys that are known and do not go together.
func TestContradictions(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		want    string
	}{
		{map[string]string{"security_policy": "none", "security_mode": "sign"}, `0/-1/-1 security_mode: security_mode is given with security_policy none; remove one of them`},
		{map[string]string{"security_policy": "basic256"}, `0/-1/-1 security_policy: security_policy basic256 has been withdrawn: it can be broken; choose another, or add allow_insecure: true`},
		{map[string]string{"security_policy": "basic256", "allow_insecure": "true", "security_mode": "sign"}, ""},
		{map[string]string{"security_policy": "auto", "security_mode": "sign-and-encrypt"}, ""},
		{nil, ""},
	} {
		conn := connection("opc.tcp://plc", time.Second, "i=1")
		conn.Devices[0].Options = c.options
		_, err := newDriver(conn)
		if got := strings.Join(mistakes(err), "\n"); got != c.want {
			t.Errorf("%v:\ngot  %s\nwant %s", c.options, got, c.want)
		}
	}
}

func TestGroupOptions(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		want    string
	}{
		{map[string]string{"max_silence": "1h", "on_silence": "last-known"}, ""},
		{map[string]string{"max_silence": "1ms"}, `0/0/-1 max_silence: max_silence "1ms" is not a time from 1s to 24h; write one such as 5m, or remove it`},
		{map[string]string{"max_silence": "5m", "on_silence": "good"}, `0/0/-1 on_silence: on_silence "good" is not known; use bad or last-known`},
		{map[string]string{"on_silence": "bad"}, "0/0/-1 on_silence: on_silence is given without max_silence; add max_silence: a time such as 5m, or remove on_silence"},
	} {
		conn := connection("opc.tcp://plc", time.Second, "i=1")
		conn.Devices[0].Groups[0].Options = c.options
		_, err := newDriver(conn)
		if got := strings.Join(mistakes(err), "\n"); got != c.want {
			t.Errorf("%v:\ngot  %s\nwant %s", c.options, got, c.want)
		}
	}
}

// TestSilenceOfEvents: nothing happening is no silence.
func TestSilenceOfEvents(t *testing.T) {
	const want = `0/0/-1 max_silence: max_silence is of values, and the group takes events only: that nothing happens is no silence; remove it`
	for _, c := range []struct {
		types   []string
		browse  string
		refused bool
	}{{[]string{"event"}, "", true}, {[]string{"event", "event"}, "", true}, {[]string{"event", ""}, "", false}, {[]string{"event"}, "i=85", false}} {
		conn := connection("opc.tcp://plc", time.Second, "i=2253", "i=2254")
		g := &conn.Devices[0].Groups[0]
		g.Options, g.Tags = map[string]string{"max_silence": "5m"}, g.Tags[:len(c.types)]
		if c.browse != "" {
			g.Options["browse"] = c.browse
		}
		for i := range g.Tags {
			g.Tags[i].Type = c.types[i]
		}
		_, err := newDriver(conn)
		if got := strings.Join(mistakes(err), "\n"); (got != "") != c.refused || c.refused && got != want {
			t.Errorf("%q, browse %q: %s", c.types, c.browse, got)
		}
	}
}

// TestNormal: the urls of one endpoint have one form; another path is another endpoint.
func TestNormal(t *testing.T) {
	for in, want := range map[string]string{
		"opc.tcp://PLC": "opc.tcp://plc:4840", "opc.tcp://plc:4840/": "opc.tcp://plc:4840", "opc.tcp://plc/UA/Server/": "opc.tcp://plc:4840/UA/Server",
		"opc.tcp-listen://:4841": "opc.tcp-listen://:4841", "opc.tcp://[FE80::1]": "opc.tcp://[fe80::1]:4840", "plc": "plc", "opc.tcp://plc:x": "opc.tcp://plc:x",
	} {
		if got := Normal(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestURLs(t *testing.T) {
	const example = `; use "opc.tcp://host:port/path", for example "opc.tcp://192.168.1.20:4840"`
	for in, want := range map[string]string{
		"opc.tcp://192.168.1.20:4840":      "192.168.1.20:4840",
		"opc.tcp://plc/UA/Server":          "plc:4840",
		"opc.tcp://[fe80::1]:4841":         "[fe80::1]:4841",
		"":                                 `url "" is not an OPC UA endpoint` + example,
		"plc":                              `url "plc" is not an OPC UA endpoint; use "opc.tcp://plc"`,
		"opc.tcp//plc:4840":                `url "opc.tcp//plc:4840" is not an OPC UA endpoint; use "opc.tcp://plc:4840"`,
		"opc.tcp:plc:4840":                 `url "opc.tcp:plc:4840" is not an OPC UA endpoint; use "opc.tcp://plc:4840"`,
		"//plc:4840":                       `url "//plc:4840" is not an OPC UA endpoint; use "opc.tcp://plc:4840"`,
		"plc:4840":                         `url "plc:4840" is not an OPC UA endpoint; use "opc.tcp://plc:4840"`,
		"http://plc:4840":                  `url "http://plc:4840": transport "http" is not supported` + example,
		"opc.tcp://:4840":                  `url "opc.tcp://:4840" has no host` + example,
		"opc.tcp://10.0.0.256":             `url "opc.tcp://10.0.0.256": "10.0.0.256" is no address and can be no name; ` + drivers.HostMend,
		"opc.tcp://plc:0":                  `url "opc.tcp://plc:0": port "0" is not a number from 1 to 65535` + example,
		"opc.tcp://plc:70000":              `url "opc.tcp://plc:70000": port "70000" is not a number from 1 to 65535` + example,
		"opc.tcp://plc:x":                  `url "opc.tcp://plc:x" is not an OPC UA endpoint` + example,
		"opc.tcp://user:secret@plc:4840/x": `url of host "plc" holds a user or password; use the device's username and password`,
	} {
		var s settings
		got := ""
		s.parseURL(in, func(field, what, mend string) { got += what + "; " + mend })
		if got == "" {
			got = s.host
		}
		if got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", in, got, want)
		}
	}
}

func TestPlanWords(t *testing.T) {
	for count, want := range map[int][]string{
		1:    {"read 1 node in 1 request of up to 500"},
		250:  {"read 250 nodes in 1 request of up to 500"},
		1001: {"read 500 nodes in request 1 of 3, up to 500 each", "read 500 nodes in request 2 of 3, up to 500 each", "read 1 node in request 3 of 3, up to 500 each"},
	} {
		c := connection("opc.tcp://plc", time.Second, variables(count)...)
		c.Devices[0].Options["mode"] = "read"
		d, err := newDriver(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.(drivers.Planner).Plan(drivers.Ref{}); !slices.Equal(got, want) {
			t.Errorf("%d tags: %q, want %q", count, got, want)
		}
	}
}

// TestRequestsFitOneChunk has node ids so long that the bytes bound the request, not their number.
func TestRequestsFitOneChunk(t *testing.T) {
	var long []string
	for i := range 40 {
		long = append(long, fmt.Sprintf("ns=2;s=%04000d", i))
	}
	c := connection("opc.tcp://plc", time.Second, long...)
	c.Devices[0].Options["mode"] = "read"
	d, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.(drivers.Planner).Plan(drivers.Ref{}); len(got) != 4 {
		t.Errorf("plan %q, want 4 requests of 12 nodes of 4 KB", got)
	}
}

func TestSessionTimeout(t *testing.T) {
	for fastest, want := range map[time.Duration]time.Duration{
		100 * time.Millisecond: time.Minute,
		time.Minute:            3 * time.Minute,
		24 * time.Hour:         time.Hour,
	} {
		groups := []drivers.Group{{Interval: 24 * time.Hour}, {Interval: fastest}}
		if got := sessionTimeout(groups); got != want {
			t.Errorf("fastest group %v: %v, want %v", fastest, got, want)
		}
	}
}

func TestOneDeviceAConnection(t *testing.T) {
	c := connection("opc.tcp://plc", time.Second, "i=1")
	c.Devices = append(c.Devices, drivers.Device{Groups: []drivers.Group{{Tags: []telemetry.Tag{}}}})
	if _, err := newDriver(c); err == nil || !strings.HasPrefix(err.Error(), "BUG: ") {
		t.Errorf("two devices: %v", err)
	}
}
