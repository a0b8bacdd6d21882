package importer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// The parts of a benthos-umh config that matter.
type (
	umhFile struct {
		Input struct {
			Modbus *umhModbus `yaml:"modbus"`
		} `yaml:"input"`
	}
	umhModbus struct {
		Controller string       `yaml:"controller"`
		Mode       string       `yaml:"transmissionMode"`
		SlaveID    *int         `yaml:"slaveID"`
		SlaveIDs   []int        `yaml:"slaveIDs"`
		Timeout    string       `yaml:"timeout"`
		Between    string       `yaml:"timeBetweenReads"`
		ByteOrder  string       `yaml:"byteOrder"`
		Addresses  []umhAddress `yaml:"addresses"`
		Around     struct {
			AfterConnect string `yaml:"pauseAfterConnect"`
			Between      string `yaml:"timeBetweenRequests"`
			Location     string `yaml:"stringRegisterLocation"`
		} `yaml:"workarounds"`
	}
	umhAddress struct {
		Name     string  `yaml:"name"`
		Register string  `yaml:"register"`
		Address  *int    `yaml:"address"`
		Type     string  `yaml:"type"`
		Length   int     `yaml:"length"`
		Bit      int     `yaml:"bit"`
		Scale    float64 `yaml:"scale"`
		SlaveID  *int    `yaml:"slaveID"`
	}
)

// umh reads the modbus input of a benthos-umh config.
func umh(b *builder, data []byte) error {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth), loaderlimits.AliasValue(0))))
	if err != nil {
		return fmt.Errorf("read YAML: %w", err)
	}
	var f umhFile
	if err := loader.Load(&f); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read YAML: %w", err)
	}
	m := f.Input.Modbus
	if m == nil {
		return errNothing
	}
	units := m.units(b)
	for i := range m.Addresses {
		a := &m.Addresses[i]
		where := fmt.Sprintf("address %d, %q", i+1, a.Name)
		tag, err := a.tag(m.ByteOrder)
		if err == nil {
			err = m.around().fits(&tag)
		}
		if err != nil {
			b.problem(where, "left out: %v", err)
			continue
		}
		for _, unit := range a.units(units) {
			m.add(b, where, unit, tag)
		}
	}
	all, err := anyYAML(data)
	unread(b, "yaml", all, f)
	return err
}

// anyYAML reads a document without knowing its form.
func anyYAML(data []byte) (all any, err error) {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth), loaderlimits.AliasValue(0))))
	if err == nil {
		err = loader.Load(&all)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	return all, nil
}

func (m *umhModbus) around() *workarounds {
	return &workarounds{afterConnect: m.Around.AfterConnect, between: m.Around.Between, location: m.Around.Location}
}

// units are those that every address is read from, 255 at most.
func (m *umhModbus) units(b *builder) []int {
	units := m.SlaveIDs
	if len(units) == 0 && m.SlaveID != nil {
		units = []int{*m.SlaveID}
	}
	if len(units) > 255 {
		b.problem("slaveIDs", "left out: those behind the first 255")
		units = units[:255]
	}
	if len(units) == 0 {
		units = []int{1}
	}
	return units
}

func (a *umhAddress) units(all []int) []int {
	if a.SlaveID != nil {
		return []int{*a.SlaveID}
	}
	return all
}

func (m *umhModbus) add(b *builder, where string, unit int, tag Tag) {
	if unit < 0 || unit > 255 {
		b.problem(where, "left out: unit id %d is out of range; use 0 to 255", unit)
		return
	}
	url, remark := controllerURL(m.Controller, 0, "", 0, 0, m.Mode)
	before := len(b.result.Devices)
	d := b.device("input.modbus", "", url, unit)
	if len(b.result.Devices) > before {
		if remark != "" {
			b.problem("input.modbus", "%s", remark)
		}
		d.Timeout = duration(b, "input.modbus", m.Timeout)
		m.around().set(b, "input.modbus", d, true)
	}
	b.add(where, b.group(where, d, "", duration(b, where, m.Between)), tag)
}

func (a *umhAddress) tag(order string) (Tag, error) {
	if a.Address == nil {
		return Tag{}, errors.New("it has no address; write it by hand")
	}
	table := strings.ToLower(cmp.Or(a.Register, "holding"))
	if table != "coil" && table != "discrete" && table != "input" && table != "holding" {
		return Tag{}, fmt.Errorf("there is no register %q; use holding, input, coil or discrete", a.Register)
	}
	tag, bit := Tag{Name: a.Name, Scale: a.Scale}, -1
	if table == "input" || table == "holding" {
		if tag.Type = telegrafTypes[strings.ToUpper(a.Type)]; tag.Type == "" {
			return Tag{}, fmt.Errorf("type %q has no counterpart; choose a type of drivers/modbus/README.md by hand", a.Type)
		}
		if tag.Type == "string" {
			tag.Length = 2 * min(a.Length, 1000) // registers
		}
		if tag.Type == "bool" {
			bit = max(a.Bit, 0)
		}
		if strings.HasSuffix(strings.ToUpper(a.Type), "8H") {
			tag.Byte = "high"
		}
		if err := tag.setOrder(order, &bit); err != nil {
			return Tag{}, err
		}
	}
	return tag, tag.settle(table, *a.Address, bit)
}
