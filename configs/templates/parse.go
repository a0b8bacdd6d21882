package templates

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// Bounds of a template. The largest built-in one has 60 tags.
const (
	maxFile   = 256 << 10
	maxDepth  = 10
	maxGroups = 64
	maxTags   = 4096
	maxText   = 1024
	maxErrors = 20
)

// file is a template as it is written.
type file struct {
	Name         string
	Device       string
	Source       Source
	Verified     string
	Note         string
	Order        string
	MaxRegisters int  `yaml:"max_registers"`
	MaxGap       *int `yaml:"max_gap"`
	Formula      string
	Base         *int
	Invalid      map[string][]string
	Groups       []fileGroup
}

type fileGroup struct {
	Name     string
	Interval string
	Tags     []fileTag
}

type fileTag struct {
	Name        string
	Address     yaml.Node // holding:100, {param: "16-13"} or {offset: 14}
	Type        string
	Unit        string
	Description string
	Scale       *float64
	Offset      float64
	Length      int
	Order       string
	Access      string
	Invalid     string
	PowerOfTen  string `yaml:"power_of_ten"` // the tag with the exponent
}

// rawSuffix ends the name of a tag with a power of ten; the scaled value has the name without it.
const rawSuffix = "_raw"

// group and tag are what Expand starts from.
type group struct {
	name     string
	interval time.Duration
	tags     []tag
}

type tag struct {
	Tag
	offset int    // from the base, -1 = Address says it all
	words  int    // registers that it takes
	power  string // the tag with the exponent of ten that its values count in, "" = none
	scaled string // unit of the values so scaled
}

// Parse reads a template and reports its mistakes, the first 20 of them, at once. It takes 256 KiB, 64 groups
// and 4096 tags at most, and no YAML anchors.
func Parse(data []byte) (*Template, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the template has over %d KiB; split it in two", maxFile>>10)
	}
	f, err := decode(data)
	if err != nil {
		return nil, err
	}
	c := &checker{file: f}
	t := c.template()
	if len(c.mistakes) > 0 {
		return nil, errors.Join(c.mistakes...)
	}
	return t, nil
}

func decode(data []byte) (*file, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithKnownFields(),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth), loaderlimits.AliasValue(0))))
	if err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	var f, second file
	if err := fits(data); err != nil {
		return nil, err
	}
	if err := loader.Load(&f); errors.Is(err, io.EOF) {
		return nil, errors.New("the template is empty; start from a built-in one")
	} else if err != nil {
		return nil, fmt.Errorf("read template: %s", inWords(err.Error()))
	}
	if err := loader.Load(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file holds more than one template; give each a file of its own")
	}
	return &f, nil
}

// fits says what a file is that is no template.
func fits(data []byte) error {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth), loaderlimits.AliasValue(0))))
	if err != nil {
		return fmt.Errorf("read template: %w", err)
	}
	var n yaml.Node
	if loader.Load(&n) != nil || len(n.Content) == 0 {
		return nil // decode says so
	}
	switch n.Content[0].Kind {
	case yaml.MappingNode:
		return nil
	case yaml.SequenceNode:
		return errors.New("the file is a list, such as a list of devices, and not a template; if it has devices, name it under include: of the config")
	}
	return errors.New("the file is not a template")
}

// The parser's words for what does not fit, which have names of types of the program.
var (
	constructed = regexp.MustCompile("cannot construct !!(\\w+)( `[^`]*`)? into [^\\s;]+")
	unknownKey  = regexp.MustCompile(`field (\S+) not found in type [^\s;]+`)
)

func inWords(text string) string {
	text = constructed.ReplaceAllStringFunc(text, func(s string) string {
		m := constructed.FindStringSubmatch(s)
		what := map[string]string{"seq": "a list", "map": "keys and values", "str": "a text", "null": "nothing"}[m[1]]
		return cmp.Or(what, "that value") + m[2] + " does not belong there"
	})
	text = strings.NewReplacer("yaml: ", "", "construct errors: ", "").Replace(text)
	return unknownKey.ReplaceAllString(text, `there is no key "$1" here`)
}

// checker turns a file into a template and collects what is wrong with it.
type checker struct {
	*file
	invalid  map[string]string // by type, as the driver takes it
	names    map[string]bool
	mistakes []error
}

func (c *checker) errorf(format string, args ...any) {
	if len(c.mistakes) < maxErrors {
		c.mistakes = append(c.mistakes, fmt.Errorf(format, args...))
	}
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func validName(name string) bool { return nameForm.MatchString(name) }

var orders = []string{"", "ABCD", "CDAB", "BADC", "DCBA"}

func (c *checker) template() *Template {
	c.head()
	c.oneOf("order", c.Order, orders...)
	c.oneOf("formula", c.Formula, "", danfoss, abb16, abb32)
	t := &Template{Name: c.file.Name, Device: c.Device, Source: c.Source, Verified: c.Verified, Note: c.Note,
		Order: c.Order, MaxRegisters: c.MaxRegisters, MaxGap: orMinus1(c.MaxGap), Base: orMinus1(c.Base)}
	c.within("max_registers", t.MaxRegisters, 0, 125)
	c.within("max_gap", t.MaxGap, -1, 124)
	c.within("base", t.Base, -1, 65535)
	c.invalid = map[string]string{}
	for typ, values := range c.Invalid {
		c.invalid[typ] = c.invalidOf("invalid of "+typ, typ, values)
	}
	t.groups = c.groups()
	c.powers(t.groups)
	return t
}

// head checks what a person reads.
func (c *checker) head() {
	if !validName(c.file.Name) {
		c.errorf("name %q: use lower case letters, digits and dashes, 64 at most", c.file.Name)
	}
	c.text("device", c.Device, true)
	c.text("source.title", c.Source.Title, true)
	c.text("source.edition", c.Source.Edition, false)
	c.text("source.checked", c.Source.Checked, false)
	c.text("note", c.Note, false)
	c.oneOf("verified", c.Verified, "document", "simulator", "hardware", "none")
	if c.Verified == "document" && c.Source.Checked == "" {
		c.errorf("verified: document needs source.checked: the list that it was compared with")
	}
	if c.Verified == "none" && c.Note == "" {
		c.errorf("verified: none needs a note: what a user must compare first")
	}
}

func (c *checker) groups() []group {
	var groups []group
	total := 0
	names := map[string]bool{}
	c.names = map[string]bool{}
	if len(c.Groups) == 0 || len(c.Groups) > maxGroups {
		c.errorf("a template has 1 to %d groups, not %d", maxGroups, len(c.Groups))
		return nil
	}
	for _, f := range c.Groups {
		g := group{name: f.Name}
		c.unique("group", f.Name, names)
		g.interval = c.interval(f)
		if total += len(f.Tags); total > maxTags {
			c.errorf("a template has %d tags at most; split it in two", maxTags)
			return nil
		}
		if len(f.Tags) == 0 {
			c.errorf("group %q has no tags", f.Name)
		}
		for i := range f.Tags {
			g.tags = append(g.tags, c.tag(&f.Tags[i]))
		}
		groups = append(groups, g)
	}
	return groups
}

func (c *checker) interval(f fileGroup) time.Duration {
	d, err := time.ParseDuration(f.Interval)
	if err != nil || d < minInterval || d > maxInterval {
		c.errorf("group %q: interval %q; write 10ms to 24h, such as 1s", f.Name, f.Interval)
	}
	return d
}

func (c *checker) tag(f *fileTag) tag {
	where := fmt.Sprintf("tag %q", f.Name)
	c.unique("tag", f.Name, c.names)
	c.text(where+": unit", f.Unit, false)
	c.text(where+": description", f.Description, false)
	c.oneOf(where+": order", f.Order, orders...)
	c.oneOf(where+": access", f.Access, "", "read", "read-write")
	t := tag{Tag: Tag{Name: f.Name, Type: f.Type, Unit: f.Unit, Description: f.Description, Offset: f.Offset, Writable: f.Access == "read-write"}, offset: -1}
	if f.Scale != nil {
		t.Scale = *f.Scale
	}
	if f.Scale != nil && t.Scale == 0 || !finite(t.Scale) || !finite(t.Offset) {
		c.errorf("%s: scale and offset are numbers, and scale is not 0; delete the key for values as they are", where)
	}
	c.address(where, f, &t)
	if t.power = f.PowerOfTen; t.power != "" {
		if !strings.HasSuffix(f.Name, rawSuffix) || f.Scale != nil || f.Offset != 0 || f.Type == "string" || f.Type == "" {
			c.errorf("%s: power_of_ten is for numbers without scale and offset, whose name ends in %s", where, rawSuffix)
		}
		c.unique("tag", strings.TrimSuffix(f.Name, rawSuffix), c.names)
		t.scaled, t.Unit = f.Unit, ""
	}
	t.Options = c.options(where, f)
	return t
}

// powers checks that the exponents are read.
func (c *checker) powers(groups []group) {
	read := map[string]bool{}
	for _, g := range groups {
		for i := range g.tags {
			read[g.tags[i].Name] = g.tags[i].power == ""
		}
	}
	for _, g := range groups {
		for i := range g.tags {
			if t := &g.tags[i]; t.power != "" && !read[t.power] {
				c.errorf("tag %q: power_of_ten %q is no tag of the template that is read as it is", t.Name, t.power)
			}
		}
	}
}

func (c *checker) options(where string, f *fileTag) map[string]string {
	o := map[string]string{}
	if f.Order != "" {
		o["order"] = f.Order
	}
	if f.Type == "string" {
		o["length"] = fmt.Sprint(f.Length)
	}
	if f.Invalid != "" {
		o["invalid"] = c.invalidOf(where+": invalid", f.Type, strings.Split(f.Invalid, ","))
	} else if s := c.invalid[f.Type]; s != "" {
		o["invalid"] = s
	}
	if len(o) == 0 {
		return nil
	}
	return o
}

func (c *checker) unique(what, name string, names map[string]bool) {
	if name == "" || len(name) > maxNameBytes || strings.ContainsAny(name, "/+#{}") {
		c.errorf("%s %q: a name has 1 to %d bytes and none of / + # { }", what, name, maxNameBytes)
	}
	if names[name] {
		c.errorf("%s %q stands there twice; give it another name", what, name)
	}
	names[name] = true
}

func (c *checker) text(what, s string, required bool) {
	if required && s == "" {
		c.errorf("%s is missing", what)
	}
	if len(s) > maxText || strings.ContainsAny(s, "\x00\n\r") {
		c.errorf("%s: one line of %d bytes at most", what, maxText)
	}
}

func (c *checker) within(what string, n, low, high int) {
	if n < low || n > high {
		c.errorf("%s %d is out of range; use %d to %d", what, n, max(low, 0), high)
	}
}

func (c *checker) oneOf(what, s string, words ...string) {
	for _, w := range words {
		if s == w {
			return
		}
	}
	c.errorf("%s %q is not known; use %s", what, s, strings.Join(strings.Fields(strings.Join(words, " ")), ", "))
}

func orMinus1(n *int) int {
	if n == nil {
		return -1
	}
	return *n
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
