package importer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

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
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth), loaderlimits.AliasValue(0))))
	if err != nil {
		return fmt.Errorf("read YAML: %w", err)
	}
	var p openProfile
	if err := loader.Load(&p); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read YAML: %w", err)
	}
	if len(p.Registers) == 0 {
		return errNothing
	}
	if p.Version != openModbusVersion {
		b.problem("version", "it is %q, and the form was read as %s; compare the output with the file", p.Version, openModbusVersion)
	}
	order, ok := openOrders[p.Device.Order]
	if !ok {
		b.problem("device", "default_byte_order %q is not known; set the order by hand", p.Device.Order)
	}
	url := ""
	if b.options.URL == "" && p.Device.Protocol == "modbus_udp" {
		url = strings.Replace(placeholder, "tcp:", "udp:", 1)
		b.problem("device", "the file does not say where the device is; put its host in place of that of %s", url)
	}
	d := b.device("device", p.Device.ID, cmp.Or(b.options.URL, url), 1)
	d.Order = order
	g := b.group("device", d, "registers", 0)
	for _, key := range inOrder(p.Registers) {
		r := p.Registers[key]
		r.read(b, g, fmt.Sprintf("register %s, %q", key, r.Name), key, &p.Device)
	}
	all, err := anyYAML(data)
	unread(b, "yaml", all, p)
	return err
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

func (r *openRegister) read(b *builder, g *Group, where, key string, d *openDevice) {
	if r.Readable != nil && !*r.Readable {
		b.problem(where, "left out: it can only be written (read_access: false)")
		return
	}
	number, err := strconv.ParseUint(key, 10, 16)
	table := cmp.Or(r.Table, d.Table, "holding")
	if table == "discrete_input" {
		table = "discrete"
	}
	if err != nil || !slices.Contains([]string{"holding", "input", "coil", "discrete"}, table) {
		b.problem(where, "left out: %s %q is no register of 0 to 65535 in holding, input, coil or discrete_input; write it by hand", table, key)
		return
	}
	tag := Tag{Name: r.Name, Type: r.Type, Unit: r.Unit, Description: cmp.Or(r.Display, r.Notes)}
	if r.Type == "string" {
		tag.Length = 2 * min(r.Length, 1000)
	} else if want := types[r.Type] / 16; r.Length != 0 && want != 0 && r.Length != want {
		b.problem(where, "its length of %d registers does not fit its type %s, which was taken; compare both", r.Length, r.Type)
	}
	if order, ok := openOrders[r.Order]; !ok {
		b.problem(where, "left out: byte_order %q is not known; write the tag with its order by hand", r.Order)
		return
	} else if r.Type != "string" {
		tag.Order = order
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
	}
	if err := tag.settle(table, int(number), bit); err != nil {
		b.problem(where, "left out: %v", err)
		return
	}
	b.add(where, g, tag)
	r.readBits(b, g, where, table, int(number))
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
