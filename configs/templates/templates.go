// Package templates owns the device templates: the register lists of common equipment as data, one YAML file a
// device, built into the program. It promises that a template it returns is whole and within bounds, and that it
// expands to groups and tags that the Modbus driver accepts. The command `millrace template` calls it. It reads no network
// and knows no driver.
package templates

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

//go:embed *.yaml
var embedded embed.FS

// Template is the register list of one kind of device. What it holds was checked by Parse.
type Template struct {
	Name         string // as `template:` names it: lower case, digits and dashes
	Device       string // maker and models that it fits
	Source       Source
	Verified     string // document, simulator, hardware or none; README.md says what each promises
	Note         string // what a user must know before relying on it
	Order        string // byte order of the device's numbers, "" = ABCD
	MaxRegisters int    // most registers that the device answers in one request, 0 = not known
	MaxGap       int    // registers to read across, -1 = the driver's default
	Base         int    // register that offsets count from, 0 to 65535; -1 = no tag has an offset
	groups       []group
}

// Source is the document that the facts were taken from and what they were compared with.
type Source struct {
	Title   string
	Edition string // number or date, "" = not known
	Checked string // the open list that every address, type and scale was compared with, "" = none
}

// Group is one poll group of an expanded template.
type Group struct {
	Name     string
	Interval time.Duration
	Tags     []Tag
	Derived  []Derived
}

// Derived is a value that is worked out from tags.
type Derived struct {
	Name        string
	Expr        string // of the config's language
	Raw         string // the tag that it is the value of
	Unit        string
	Description string
}

// Tag is one tag of an expanded template, in the words of the config.
type Tag struct {
	Name        string
	Address     string // as the Modbus driver takes it, such as holding:100
	Type        string
	Unit        string
	Description string
	Scale       float64 // 0 = values as the device has them
	Offset      float64
	Writable    bool              // the device accepts a write; the config's `writes:` must name the tag all the same
	Options     map[string]string // of the driver: order, length, and invalid (numbers before scaling, with commas); nil = none
}

// List returns the names of the built-in templates in order.
func List() []string {
	files, err := fs.Glob(embedded, "*.yaml")
	if err != nil {
		panic("BUG: " + err.Error()) // only a malformed pattern
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, ".yaml")
	}
	slices.Sort(files)
	return files
}

// Raw returns the built-in template of that name as it is written: what LoadFrom takes.
func Raw(name string) ([]byte, error) {
	if _, err := Load(name); err != nil {
		return nil, err
	}
	return fs.ReadFile(embedded, name+".yaml")
}

// Load returns the built-in template of that name.
func Load(name string) (*Template, error) { return LoadFrom(embedded, name) }

// LoadFrom returns the template of that name from a folder of the user's own: the file NAME.yaml, 256 KiB at most.
func LoadFrom(folder fs.FS, name string) (*Template, error) {
	if !validName(name) {
		return nil, fmt.Errorf("load template %q: that is not a template's name; use one of: %s", name, strings.Join(List(), ", "))
	}
	f, err := folder.Open(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("load template %q: there is none; use one of: %s", name, strings.Join(List(), ", "))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read template %q: %w", name, err)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("load template %q: %w", name, err)
	}
	if t.Name != name {
		return nil, fmt.Errorf("load template %q: its name is %q; a template is called like its file", name, t.Name)
	}
	return t, nil
}
