package config

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"millrace/drivers"
	"millrace/drivers/files"
	"millrace/drivers/telemetry"
)

// protocols returns two protocols that check like the real ones, which this package may not import.
func protocols() []drivers.Protocol {
	return []drivers.Protocol{
		{
			Name:   "modbus",
			Shares: true, Redundant: true, Normal: strings.ToLower, Identity: []string{"unit"},
			Example: drivers.Example{Device: "press-1", URL: "tcp://192.168.1.10:502", Address: "holding:100"},
			DeviceOptions: []drivers.Option{
				{Name: "unit", Default: "1", Help: "unit id, 0 to 255"},
				{Name: "password", Help: "of a gateway", Secret: true},
				{Name: "order", Help: "ABCD, CDAB, BADC or DCBA"},
				{Name: "max_registers", Help: "1 to 125"},
				{Name: "max_gap", Help: "0 to 124"},
			},
			TagOptions: []drivers.Option{{Name: "order", Help: "ABCD, CDAB, BADC or DCBA"}, {Name: "length", Help: "characters"}},
			New: func(c drivers.Connection) (drivers.Driver, error) {
				return fakeModbus{devices: c.Devices}, checkModbus(c)
			},
		},
		{
			Name:          "opcua",
			Example:       drivers.Example{Device: "cnc-1", URL: "opc.tcp://192.168.1.20:4840", Address: "ns=2;s=Speed"},
			GroupOptions:  []drivers.Option{{Name: "queue_size"}, {Name: "browse"}, {Name: "browse_include", List: true}},
			Rule:          "browse",
			TagOptions:    []drivers.Option{{Name: "enum"}, {Name: "field"}, {Name: "event_type"}},
			DeviceOptions: []drivers.Option{{Name: "security_policy"}, {Name: "security_mode"}, {Name: "server_name"}, {Name: "pki", Path: true}, {Name: "user_certificate", Path: true, File: true, Certificates: fakeUser, KeyFile: "user_key"}, {Name: "user_key", Path: true, File: true}, {Name: "allow_insecure"}, {Name: "allow_clear_password"}},
			New:           func(c drivers.Connection) (drivers.Driver, error) { return fakeOPCUA{}, checkOPCUA(c) },
		},
	}
}

// fakeUser takes files as Modbus does.
func fakeUser(b, key []byte) ([]*x509.Certificate, error) {
	if key == nil {
		key = b
	}
	_, all, err := files.Pair(b, key)
	return all, err
}

type fakeDriver struct{}

func (fakeDriver) Connect(context.Context) error { return nil }
func (fakeDriver) Close() error                  { return nil }
func (fakeDriver) Read(context.Context, drivers.Ref, []telemetry.Reading) ([]telemetry.Reading, error) {
	return nil, nil
}

// fakeOPCUA has methods.
type fakeOPCUA struct{ fakeDriver }

func (fakeOPCUA) CheckMethod(m drivers.Method) error {
	if m.Object == "" {
		return errors.New(`it has no key "object"; add its node id`)
	}
	return nil
}

func (fakeOPCUA) Call(context.Context, drivers.Method, func([]drivers.Argument) ([]telemetry.Value, error)) ([]drivers.Result, error) {
	return nil, nil
}

// fakeModbus knows the types of its tags, and writes.
type fakeModbus struct {
	fakeDriver
	devices []drivers.Device
}

func (fakeModbus) Write(context.Context, []drivers.Write) []error { return nil }

func (f fakeModbus) DataTypes(g drivers.Ref) (types []telemetry.DataType) {
	for _, t := range f.devices[g.Device].Groups[g.Group].Tags {
		switch {
		case t.Type == "string":
			types = append(types, telemetry.StringType)
		case t.Type == "float32":
			types = append(types, telemetry.Float32Type)
		case strings.HasPrefix(t.Address, "coil:") || strings.HasPrefix(t.Address, "discrete:"):
			types = append(types, telemetry.BoolType)
		default:
			types = append(types, telemetry.Uint16Type)
		}
	}
	return types
}

func (f fakeModbus) CheckWrite(w drivers.Write) error {
	address := f.devices[w.Group.Device].Groups[w.Group.Group].Tags[w.Tag].Address
	if table, _, _ := strings.Cut(address, ":"); table == "input" || table == "discrete" {
		return fmt.Errorf("%s can only be read", address)
	}
	return nil
}

// checkTags calls check for each tag of a connection and joins what it finds.
func checkTags(c drivers.Connection, check func(*drivers.Device, *telemetry.Tag) *drivers.ConfigError) []error {
	var errs []error
	for d := range c.Devices {
		for g := range c.Devices[d].Groups {
			for t := range c.Devices[d].Groups[g].Tags {
				if e := check(&c.Devices[d], &c.Devices[d].Groups[g].Tags[t]); e != nil {
					e.Device, e.Group, e.Tag = d, g, t
					errs = append(errs, e)
				}
			}
		}
	}
	return errs
}

func checkURL(c drivers.Connection, scheme string) error {
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != scheme || u.Host == "" {
		return &drivers.ConfigError{Group: -1, Tag: -1, Field: "url",
			What: fmt.Sprintf("url %q is not %s://host:port", c.URL, scheme), Mend: "write " + scheme + "://192.168.1.10:502"}
	}
	return nil
}

func checkModbus(c drivers.Connection) error {
	var errs []error
	if err := checkURL(c, "tcp"); err != nil {
		errs = append(errs, err)
	}
	for i, d := range c.Devices {
		if n, err := strconv.Atoi(d.Options["unit"]); d.Options["unit"] != "" && (err != nil || n < 0 || n > 255) {
			errs = append(errs, &drivers.ConfigError{Device: i, Group: -1, Tag: -1, Field: "unit",
				What: fmt.Sprintf("unit %q is not a unit id", d.Options["unit"]), Mend: "use 0 to 255"})
		}
		if len(d.Options["password"]) > 20 {
			errs = append(errs, fmt.Errorf("log in to %s: password %q is too long", d.Name, d.Options["password"]))
		}
	}
	return errors.Join(append(errs, checkTags(c, func(_ *drivers.Device, t *telemetry.Tag) *drivers.ConfigError {
		table, register, _ := strings.Cut(t.Address, ":")
		n, err := strconv.Atoi(register)
		switch {
		case table != "holding" && table != "coil" && table != "input" && table != "discrete":
			return &drivers.ConfigError{Field: "address", What: fmt.Sprintf("address %q: unknown table %q", t.Address, table), Mend: "use coil:, discrete:, input: or holding:"}
		case err != nil || n < 0 || n > 65535:
			return &drivers.ConfigError{Field: "address", What: fmt.Sprintf("address %q: register %s is not 0 to 65535", t.Address, register), Mend: "use 0 to 65535"}
		case t.Type != "" && t.Type != "float32" && t.Type != "int16" && t.Type != "bool" && t.Type != "string":
			return &drivers.ConfigError{Field: "type", What: fmt.Sprintf("unknown type %q", t.Type), Mend: "use bool, int16 or float32"}
		case t.Options["order"] != "" && len(t.Options["order"]) != 4:
			return &drivers.ConfigError{Field: "order", What: fmt.Sprintf("unknown order %q", t.Options["order"]), Mend: "use ABCD, CDAB, BADC or DCBA"}
		case t.Type == "" && t.Options["length"] != "":
			return &drivers.ConfigError{Field: "type", What: "length without a type", Mend: "add type: string"}
		}
		return nil
	})...)...)
}

func checkOPCUA(c drivers.Connection) error {
	var errs []error
	if err := checkURL(c, "opc.tcp"); err != nil {
		errs = append(errs, fmt.Errorf("plan connection: %w", err))
	}
	for i := range c.Devices {
		for j, g := range c.Devices[i].Groups {
			root, given := g.Options["browse"]
			switch _, more := g.Options["browse_include"]; {
			case given && root == "":
				errs = append(errs, &drivers.ConfigError{Device: i, Group: j, Tag: -1, Field: "browse", What: "browse is empty", Mend: "write a node"})
			case more && !given:
				errs = append(errs, &drivers.ConfigError{Device: i, Group: j, Tag: -1, Field: "browse_include", What: "browse_include is given without browse", Mend: "add browse"})
			}
		}
	}
	return errors.Join(append(errs, checkTags(c, func(_ *drivers.Device, t *telemetry.Tag) *drivers.ConfigError {
		if strings.HasPrefix(t.Address, "ns=") || strings.HasPrefix(t.Address, "nsu=") || strings.HasPrefix(t.Address, "i=") {
			return nil
		}
		return &drivers.ConfigError{Field: "address", What: fmt.Sprintf("address %q is not a node id", t.Address), Mend: "write ns=2;s=Name, nsu=uri;s=Name or i=2258"}
	})...)...)
}
