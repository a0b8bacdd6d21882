package importer

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
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
		Bit      *int    `yaml:"bit"`
		Scale    float64 `yaml:"scale"`
		SlaveID  *int    `yaml:"slaveID"`
	}
)

// umh reads the modbus input of a benthos-umh config.
func umh(b *builder, data []byte) error {
	all, err := fromYAML(data)
	if err != nil {
		return err
	}
	var f umhFile
	doc, err := fill(b, "yaml", all, &f)
	if err != nil {
		return err
	}
	m := f.Input.Modbus
	if m == nil {
		return errors.New("it has no input.modbus, as a config of benthos-umh for Modbus has; see whether it is the right file, and take the input out of others that it stands in")
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
	doc.sayStrays()
	return nil
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
		units = []int{b.unit("input.modbus")}
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
	countBool(b, &tag)
	url, remarks := controllerURL(m.Controller, 0, "", 0, 0, m.Mode)
	before := len(b.result.Devices)
	d := b.device("input.modbus", "", url, unit)
	if len(b.result.Devices) > before {
		for _, remark := range remarks {
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
	tag := Tag{Name: a.Name, Scale: a.Scale}
	if table == "coil" || table == "discrete" {
		if err := onlyBit(a.Bit, "COIL"); err != nil {
			return Tag{}, err
		}
		return tag, tag.settle(table, *a.Address, -1)
	}
	bit, err := tag.typed(strings.ToUpper(a.Type), a.Bit)
	if err != nil {
		return Tag{}, err
	}
	if tag.Type == "string" {
		tag.Length = 2 * min(a.Length, 1000) // registers
	}
	if err := tag.setOrder(order, &bit); err != nil {
		return Tag{}, err
	}
	return tag, tag.settle(table, *a.Address, bit)
}
