package importer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"millrace/configs/templates"
)

// openModbusVersion is the edition of the form that is read and written: openmodbus-schema-v0.3.0.json of
// github.com/stekker/OpenModbusSpecs. Its register numbers are those on the wire, as in the registry's own profiles.
const openModbusVersion = "0.3.0"

// A device profile. Keys that say nothing about a value (maintainers, signature, OBIS code) are not read, and named.
type (
	openProfile struct {
		Version   string                  `yaml:"version"`
		Device    openDevice              `yaml:"device"`
		Registers map[string]openRegister `yaml:"registers"`
	}
	openDevice struct {
		ID           string       `yaml:"id"`
		Manufacturer string       `yaml:"manufacturer"`
		Model        string       `yaml:"model"`
		Description  string       `yaml:"description,omitempty"`
		Protocol     string       `yaml:"protocol"`
		Order        string       `yaml:"default_byte_order,omitempty"`
		Table        string       `yaml:"default_register_type,omitempty"`
		Sources      []openSource `yaml:"sources,omitempty"`
	}
	openSource struct {
		URL string `yaml:"url"`
	}
	openRegister struct {
		Name     string             `yaml:"name"`
		Display  string             `yaml:"display_name,omitempty"`
		Type     string             `yaml:"type"`
		Length   int                `yaml:"length,omitempty"` // registers
		Order    string             `yaml:"byte_order,omitempty"`
		Unit     string             `yaml:"unit"`
		Table    string             `yaml:"register_type"`
		Readable *bool              `yaml:"read_access,omitempty"`
		Writable bool               `yaml:"write_access,omitempty"`
		Notes    string             `yaml:"notes,omitempty"`
		Bits     map[string]openBit `yaml:"bits,omitempty"`
		Scaling  *openScaling       `yaml:"scaling,omitempty"`
	}
	openBit struct {
		Name  string `yaml:"descriptive_name"`
		Plain string `yaml:"name,omitempty"` // as the registry's guide writes it, against its schema
	}
	openScaling struct {
		Factor *float64 `yaml:"factor,omitempty"`
		Offset float64  `yaml:"offset,omitempty"`
	}
)

var openOrders = map[string]string{"": "", "ABCD": "ABCD", "BADC": "BADC", "CDAB": "CDAB", "DCBA": "DCBA",
	"WORD_SWAP": "CDAB", "BYTE_SWAP": "BADC", "FULL_SWAP": "DCBA"}

// openModbus reads a device profile of OpenModbusSpecs.
func openModbus(b *builder, data []byte) error {
	all, err := fromYAML(data)
	if err != nil {
		return err
	}
	var p openProfile
	doc, err := fill(b, "yaml", all, &p)
	if err != nil {
		return err
	}
	if len(p.Registers) == 0 && len(b.result.Problems) == 0 {
		return errors.New("it has no registers, as a device profile of OpenModbusSpecs has; see whether it is the right file")
	}
	if p.Version != openModbusVersion {
		b.problem("version", "it is %q, and the form was read as %s; compare the output with the file", p.Version, openModbusVersion)
	}
	order, ok := openOrders[p.Device.Order]
	if !ok {
		b.problem("device", "default_byte_order %q is not known; set the order by hand", p.Device.Order)
	}
	d := b.device("device", p.Device.ID, p.Device.url(b), b.unit("device"))
	d.Order = order
	for _, key := range inOrder(p.Registers) {
		r := p.Registers[key]
		r.read(b, d, fmt.Sprintf("register %s, %q", key, r.Name), key, &p.Device)
	}
	doc.sayStrays()
	return nil
}

// url says what the file does of where the device is, "" = nothing.
func (d *openDevice) url(b *builder) string {
	switch {
	case b.options.URL != "" || d.Protocol == "modbus_tcp":
	case d.Protocol == "modbus_udp":
		url := strings.Replace(placeholder, "tcp:", "udp:", 1)
		b.problem("device", "the file does not say where the device is; put its host in place of that of %s", url)
		return url
	case d.Protocol == "modbus_rtu":
		b.problem("device", "it stands on a serial line (modbus_rtu); its url is such as rtu:///dev/ttyUSB0?baud=9600&parity=none")
	default:
		b.problem("device", "its protocol %q is none of modbus_tcp, modbus_rtu and modbus_udp; see to its url", d.Protocol)
	}
	return b.options.URL
}

// inOrder returns the keys of registers or bits by their number.
func inOrder[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	return keys
}

func (r *openRegister) read(b *builder, d *Device, where, key string, of *openDevice) {
	if r.Readable != nil && !*r.Readable {
		b.problem(where, "left out: it can only be written (read_access: false)")
		return
	}
	number, err := strconv.ParseUint(key, 10, 16)
	table := cmp.Or(r.Table, of.Table, "holding")
	if r.Table == "" && of.Table == "" {
		b.count("no register_type, so holding was taken; change the addresses where that is off")
	}
	if table == "discrete_input" {
		table = "discrete"
	}
	if err != nil || !slices.Contains([]string{"holding", "input", "coil", "discrete"}, table) {
		b.problem(where, "left out: %s %q is no register of 0 to 65535 in holding, input, coil or discrete_input; write it by hand", table, key)
		return
	}
	tag := Tag{Name: r.Name, Type: r.Type, Unit: r.Unit, Description: cmp.Or(r.Display, r.Notes)}
	if err := r.order(b, &tag, of); err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	if r.Type == "string" {
		tag.Length = 2 * min(r.Length, 1000)
	} else if want := types[r.Type] / 16; r.Length != 0 && want != 0 && r.Length != want {
		b.problem(where, "its length of %d registers does not fit its type %s, which was taken; compare both", r.Length, r.Type)
	}
	if s := r.Scaling; s != nil {
		tag.Offset, tag.Scale = s.Offset, 1
		if s.Factor != nil {
			tag.Scale = *s.Factor
		}
		if tag.Scale == 0 {
			b.problem(where, "a factor of 0 would make every value the same; values are raw, set scale by hand")
		}
	}
	bit := -1
	if r.Type == "bool" {
		bit = 0
		if table == "holding" || table == "input" {
			b.problem(where, "it is a bool in a register, and the form does not say which bit, so the lowest was taken, .0; change the address where it is another")
		}
	}
	if err := tag.settle(table, int(number), bit); err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	if r.Writable {
		b.count(writable)
	}
	g := b.group(where, d, "registers", 0)
	b.add(where, g, tag)
	r.readBits(b, g, where, table, int(number))
}

// order sets the order of the bytes of a tag. That of the device is for numbers of several registers.
func (r *openRegister) order(b *builder, tag *Tag, of *openDevice) error {
	order, ok := openOrders[r.Order]
	switch swapped := order == "BADC" || order == "DCBA"; {
	case !ok:
		return fmt.Errorf("byte_order %q is not known; write the tag with its order by hand", r.Order)
	case r.Type == "string" && swapped:
		tag.Order = "BADC"
	case r.Type == "string":
	case types[r.Type] == 16 && swapped && r.Type != "int8" && r.Type != "uint8":
		return fmt.Errorf("byte_order %q %s", r.Order, swapsOne)
	case r.Type == "int8" || r.Type == "uint8":
		if b.count("one byte of a register, and the form does not say which, so the lower was taken; set byte: high where it is the other"); swapped {
			tag.Byte = "high"
		}
	default:
		if tag.Order = order; order == "" && of.Order == "" && types[r.Type] > 16 {
			b.count("no byte order, for itself or for the device, so ABCD was taken; set order where the device has another")
		}
	}
	return nil
}

// readBits adds a tag for each bit that has a name, beside the register as a number.
func (r *openRegister) readBits(b *builder, g *Group, where, table string, number int) {
	for _, key := range inOrder(r.Bits) {
		bit, err := strconv.ParseUint(key, 10, 6)
		tag := Tag{Name: r.Name + "." + cmp.Or(r.Bits[key].Name, r.Bits[key].Plain, key), Type: "bool"}
		if err == nil && bit > 15 {
			err = errors.New("it is not in the first register; write it by hand, as the bit of another")
		}
		if err == nil {
			err = tag.settle(table, number, int(bit))
		}
		if err != nil {
			b.problem(fmt.Sprintf("%s, bit %s", where, clip(key, 20)), "left out: %v", err)
			continue
		}
		b.add(where, g, tag)
	}
}

// makers are the manufacturers whose name is longer than a word.
var makers = []string{"Carlo Gavazzi", "Schneider Electric"}

// writeOpenModbus writes a template as a device profile. What that form has no place for (intervals, invalid values, a
// register used twice) is named or stands in the notes.
func writeOpenModbus(w io.Writer, t *templates.Template, p templates.Params) ([]Problem, error) {
	groups, err := t.Expand(p)
	if err != nil {
		return nil, err
	}
	maker, model, _ := strings.Cut(t.Device, " ")
	for _, m := range makers {
		if rest, ok := strings.CutPrefix(t.Device, m+" "); ok {
			maker, model = m, rest
		}
	}
	out := openProfile{openModbusVersion, openDevice{ID: openName(t.Name), Manufacturer: maker, Model: cmp.Or(model, t.Device), Protocol: "modbus_tcp",
		Description: fmt.Sprintf("%s. Source: %s. Compared with: %s", t.Device, t.Source.Title, t.Verified), Order: cmp.Or(t.Order, "ABCD")}, map[string]openRegister{}}
	r := Result{}
	for _, g := range groups {
		for i := range g.Tags {
			if key, why := out.put(&g.Tags[i]); why != "" {
				remark(&r, fmt.Sprintf("tag %q, register %s", g.Tags[i].Name, key), "left out: %s", why)
			}
		}
		for _, d := range g.Derived {
			remark(&r, fmt.Sprintf("tag %q", d.Name), "left out: it is worked out from others, which the form cannot say")
		}
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return r.Problems, errors.Join(enc.Encode(&out), enc.Close())
}

var unnamed = regexp.MustCompile(`[^a-zA-Z0-9_]+`)

// openName is a name as that form wants it.
func openName(s string) string { return unnamed.ReplaceAllString(s, "_") }

// put adds a tag, or says why the form cannot hold it.
func (p *openProfile) put(t *templates.Tag) (key, why string) {
	table, key, _ := strings.Cut(t.Address, ":")
	key, bit, isBit := strings.Cut(key, ".")
	if table == "discrete" {
		table = "discrete_input"
	}
	r, used := p.Registers[key]
	if used && (r.Table != table || !isBit) {
		return key, "the form holds one value of each register number, over all tables"
	}
	if isBit {
		if !used {
			r = openRegister{Name: "register_" + key, Type: "uint16", Table: table, Bits: map[string]openBit{}}
		}
		if r.Bits == nil {
			r.Bits = map[string]openBit{}
		}
		r.Bits[bit] = openBit{Name: openName(t.Name)}
		p.Registers[key] = r
		return key, ""
	}
	r = openRegister{Name: openName(t.Name), Display: t.Description, Type: cmp.Or(t.Type, "uint16"), Unit: t.Unit, Table: table, Writable: t.Writable}
	if table == "coil" || table == "discrete_input" {
		r.Type = "bool"
	}
	if length, err := strconv.Atoi(t.Options["length"]); err == nil {
		r.Length = (length + 1) / 2
	}
	if r.Type != "string" {
		r.Order = t.Options["order"]
	}
	if x := t.Options["invalid"]; x != "" {
		r.Notes = "not available: " + x + ", before scaling"
	}
	if scale := t.Scale; scale != 0 || t.Offset != 0 {
		scale = cmp.Or(scale, 1)
		r.Scaling = &openScaling{&scale, t.Offset}
	}
	p.Registers[key] = r
	return key, ""
}
