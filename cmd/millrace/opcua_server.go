package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/opcua"
	"millrace/drivers/telemetry"
)

// ownSession is said by every command that opens a session.
const ownSession = `It needs no running gateway, and none minds: it opens a session of its own, of which OPC UA servers take several. --option takes the
keys of a device of a config: the server must be trusted, or --option security_policy=none.`

// serverFlags say how to reach a server.
type serverFlags struct {
	options map[string]string
	timeout time.Duration
	pki     *pkiFlags
}

func (f *serverFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringToStringVar(&f.options, "option", nil, "key=value of a device of a config, such as security_policy=none or username=operator")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Second, "of each request")
}

// dial opens a session for tags, which are polled unless the mode says otherwise.
func (f *serverFlags) dial(ctx context.Context, url string, tags []telemetry.Tag, interval time.Duration, mode string) (*opcua.Client, error) {
	return f.dialGroups(ctx, url, []drivers.Group{{Name: "nodes", Interval: interval, Tags: tags}}, mode)
}

func (f *serverFlags) dialGroups(ctx context.Context, url string, groups []drivers.Group, mode string) (*opcua.Client, error) {
	options, err := f.device(mode)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		for i := range g.Tags {
			g.Tags[i].Name = g.Tags[i].Address
		}
	}
	c, err := opcua.Dial(ctx, drivers.Connection{URL: url, Devices: []drivers.Device{{Name: "tool", URL: url, Timeout: f.timeout, Options: options, Groups: groups}}})
	if err != nil {
		return nil, asOption(err)
	}
	return c, nil
}

// device returns the options of the server's device.
func (f *serverFlags) device(mode string) (map[string]string, error) {
	if err := knownOptions(f.options); err != nil {
		return nil, err
	}
	pki, err := f.pki.pki()
	if err != nil {
		return nil, err
	}
	options := map[string]string{"mode": mode, "pki": pki.Path}
	maps.Copy(options, f.options)
	return options, nil
}

func knownOptions(given map[string]string) error {
	var names []string
	known := map[string]bool{}
	for _, o := range opcua.Protocol().DeviceOptions {
		names = append(names, o.Name)
		known[o.Name] = true
	}
	for k := range given {
		if !known[k] {
			return fmt.Errorf("option %q is not known; use one of %s", k, strings.Join(names, ", "))
		}
	}
	return nil
}

// inConfig is how the driver's errors say what to write in a config.
var inConfig = regexp.MustCompile(`(?:write|add) "?([a-z_]+)(?:: ([a-z0-9-]+)| and ([a-z_]+))?`)

// asOption adds to an error how to say here what it says to write in a config.
func asOption(err error) error {
	for _, m := range inConfig.FindAllStringSubmatch(err.Error(), -1) {
		if knownOptions(map[string]string{m[1]: ""}) != nil {
			continue
		}
		here := "--option " + m[1] + "=" + cmp.Or(m[2], "…")
		if m[3] != "" && knownOptions(map[string]string{m[3]: ""}) == nil {
			here += " --option " + m[3] + "=…"
		}
		return fmt.Errorf("%w; here it is %s", err, here)
	}
	return err
}

// nodeTags makes a tag of each node.
func nodeTags(nodes []string) []telemetry.Tag {
	tags := make([]telemetry.Tag, len(nodes))
	for i, n := range nodes {
		tags[i].Address = n
	}
	return tags
}

// shortText is a value for people; a text is quoted, because it may hold anything, and an array is cut.
func shortText(v telemetry.Value) string {
	s := valueText(v, 0)
	if v.Kind == telemetry.KindString {
		s = strconv.Quote(s)
	}
	return cut(s, 200)
}

// jsonValue is a value as JSON has it: whole numbers with all their digits, what is no number as text.
func jsonValue(v telemetry.Value) any {
	switch v.Kind {
	case telemetry.KindNone:
		return nil
	case telemetry.KindBool:
		return v.Bits != 0
	case telemetry.KindInt, telemetry.KindUint:
		return json.Number(valueText(v, 0))
	case telemetry.KindFloat32, telemetry.KindFloat64:
		if f, _ := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return valueText(v, 0)
		}
		return json.Number(valueText(v, 0))
	case telemetry.KindArray:
		list := []any{}
		v.Elements(func(e telemetry.Value) bool {
			list = append(list, jsonValue(e))
			return true
		})
		return list
	}
	return valueText(v, 0)
}

// microText writes a time to the microsecond, in UTC; "" for none.
func microText(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// knownFormat refuses an output that is neither of two.
func knownFormat(format string) error {
	if format != "table" && format != "json" {
		return fmt.Errorf("output %q is unknown; use table or json", format)
	}
	return nil
}
