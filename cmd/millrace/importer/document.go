package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// plain is a value that stands in a file without quotes: a number there may be meant as a text here.
type plain struct {
	text  string
	value any
}

// fromJSON, fromTOML and fromYAML read a document as maps, lists, texts, numbers and truth values, without knowing its
// form. Their errors say the line and the column.
func fromJSON(data []byte) (all any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err = d.Decode(&all); err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return all, nil
		}
		return nil, fmt.Errorf("%s: something stands behind the end of the JSON document; delete it", lineColumn(data, d.InputOffset()))
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		what := strings.Replace(syntax.Error(), "invalid character", "unexpected character", 1)
		return nil, fmt.Errorf("%s: this is not JSON: %s; mend it there", lineColumn(data, syntax.Offset-1), what)
	}
	return nil, fmt.Errorf("%s: the JSON document is not whole; save it again", lineColumn(data, int64(len(data))))
}

// lineColumn is a place in a file, counted from 1.
func lineColumn(data []byte, offset int64) string {
	before := data[:min(max(offset, 0), int64(len(data)))]
	return fmt.Sprintf("line %d, column %d", 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n'))
}

func fromTOML(data []byte) (all any, err error) {
	if err = toml.Unmarshal(data, &all); err == nil {
		return all, nil
	}
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		line, column := syntax.Position()
		return nil, fmt.Errorf("line %d, column %d: this is not TOML: %s; mend it there", line, column, strings.TrimPrefix(syntax.Error(), "toml: "))
	}
	return nil, fmt.Errorf("this is not TOML: %w", err)
}

func fromYAML(data []byte) (any, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth), loaderlimits.AliasValue(0))))
	if err != nil {
		return nil, err
	}
	var n yaml.Node
	err = loader.Load(&n)
	var syntax *yaml.LoadError
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case errors.As(err, &syntax) && syntax.Mark.Line > 0:
		return nil, fmt.Errorf("line %d, column %d: this is not YAML: %s; mend it there", syntax.Mark.Line, max(syntax.Mark.Column, 1), syntax.Message)
	case err != nil:
		return nil, fmt.Errorf("this is not YAML: %w", err)
	}
	return fromNode(&n)
}

func fromNode(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return nil, nil
		}
		return fromNode(n.Content[0])
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			v, err := fromNode(c)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, nil
	case yaml.MappingNode:
		return fromMapping(n)
	case yaml.ScalarNode:
		var v any
		if n.ShortTag() == "!!str" {
			return n.Value, nil
		}
		if err := n.Decode(&v); err != nil {
			return nil, fmt.Errorf("line %d, column %d: the value %q was not understood; write it plainly", n.Line, n.Column, n.Value)
		}
		if v == nil {
			return nil, nil
		}
		return plain{n.Value, v}, nil
	}
	return nil, fmt.Errorf("line %d, column %d: an alias (*name) is not followed; write the value itself", n.Line, n.Column)
}

func fromMapping(n *yaml.Node) (any, error) {
	m := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d, column %d: a key is no text; mend it there", key.Line, key.Column)
		}
		if _, twice := m[key.Value]; twice {
			return nil, fmt.Errorf("line %d, column %d: the key %q stands here a second time; delete one of the two", key.Line, key.Column, key.Value)
		}
		v, err := fromNode(n.Content[i+1])
		if err != nil {
			return nil, err
		}
		m[key.Value] = v
	}
	return m, nil
}

// document puts what a file says into a type of ours. Nothing is dropped in silence: an entry of a list that does not
// fit is left out and named, and so are the keys that no field of ours takes, by the path of what holds them.
type document struct {
	b      *builder
	tag    string // of the form: toml, yaml or json
	strays map[string]map[string]bool
}

// fill reads all into the value that into points at. An error means that something outside of any list does not fit.
func fill(b *builder, tag string, all, into any) (*document, error) {
	d := &document{b, tag, map[string]map[string]bool{}}
	if all == nil {
		return d, nil
	}
	return d, d.value("", "", all, reflect.ValueOf(into).Elem())
}

// sayStrays names the keys that were not read.
func (d *document) sayStrays() {
	for _, path := range slices.Sorted(maps.Keys(d.strays)) {
		where := path
		if path == "" {
			where = "the file"
		}
		sayUnread(d.b, where, "keys", slices.Sorted(maps.Keys(d.strays[path])))
	}
}

// sayUnread names keys or columns, in as many remarks as their names need.
func sayUnread(b *builder, where, what string, names []string) {
	for len(names) > 0 {
		n, length := 0, 0
		for n < len(names) && (n == 0 || length+len(names[n]) < maxRemark/2) {
			length += len(names[n]) + 2
			n++
		}
		b.problem(where, "these %s were not translated: %s", what, strings.Join(names[:n], ", "))
		names = names[n:]
	}
}

// misfit is a value of another kind than its field, at a key below what is being read.
type misfit struct {
	key  string
	is   any
	want reflect.Type
}

func (m *misfit) Error() string {
	what := "it is " + kindOf(m.is)
	if m.key != "" {
		what = fmt.Sprintf("the key %q is %s", m.key, kindOf(m.is))
	}
	return what + ", where " + kindWanted(m.want) + " belongs; correct it in the file"
}

// value puts v into a field. path is that of the keys above, place the same with the numbers and names of entries.
func (d *document) value(path, place string, v any, into reflect.Value) error {
	if v == nil {
		return nil // as if it were not there
	}
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		return d.value(path, place, v, into.Elem())
	case reflect.Struct:
		if m, ok := v.(map[string]any); ok {
			return d.keys(path, place, m, into)
		}
	case reflect.Map:
		if m, ok := v.(map[string]any); ok {
			d.entries(path, place, m, into)
			return nil
		}
	case reflect.Slice:
		if list, ok := v.([]any); ok {
			d.list(path, place, list, into)
			return nil
		}
	default:
		if scalar(v, into) {
			return nil
		}
	}
	return &misfit{"", v, into.Type()}
}

// keys fills a struct, in the order of the keys, so that remarks have one.
func (d *document) keys(path, place string, m map[string]any, into reflect.Value) error {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		field := d.field(into, key)
		if !field.IsValid() {
			if d.strays[path] == nil {
				d.strays[path] = map[string]bool{}
			}
			d.strays[path][key] = true
			continue
		}
		if err := d.value(below(path, key), below(place, key), m[key], field); err != nil {
			var wrong *misfit
			if errors.As(err, &wrong) {
				wrong.key = strings.TrimSuffix(key+"."+wrong.key, ".")
			}
			return err
		}
	}
	return nil
}

func below(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

func (d *document) entries(path, place string, m map[string]any, into reflect.Value) {
	into.Set(reflect.MakeMapWithSize(into.Type(), len(m)))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		one := reflect.New(into.Type().Elem()).Elem()
		at := place + " " + strconv.Quote(clip(key, 100))
		if err := d.value(below(path, "*"), at, m[key], one); err != nil {
			d.b.problem(at, "left out: %v", err)
			continue
		}
		into.SetMapIndex(reflect.ValueOf(key), one)
	}
}

func (d *document) list(path, place string, list []any, into reflect.Value) {
	into.Set(reflect.MakeSlice(into.Type(), 0, len(list)))
	for i, v := range list {
		one := reflect.New(into.Type().Elem()).Elem()
		at := fmt.Sprintf("%s %d", place, i+1)
		if m, ok := v.(map[string]any); ok {
			for _, key := range []string{"name", "common.ALLTYPES_NAME"} {
				if name, ok := m[key].(string); ok {
					at += " " + strconv.Quote(clip(name, 100))
				}
			}
		}
		if err := d.value(path, at, v, one); err != nil {
			d.b.problem(at, "left out: %v", err)
			continue
		}
		into.Set(reflect.Append(into, one))
	}
}

// field returns the field of a struct that takes the key; the zero Value = none does.
func (d *document) field(into reflect.Value, key string) reflect.Value {
	for i := range into.NumField() {
		f := into.Type().Field(i)
		if f.Anonymous {
			if inner := d.field(into.Field(i), key); inner.IsValid() {
				return inner
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get(d.tag), ",")
		if name != "" && (name == key || d.tag != "yaml" && strings.EqualFold(name, key)) {
			return into.Field(i)
		}
	}
	return reflect.Value{}
}

// scalar puts a text, a number or a truth value into a field, and reports whether it fits.
func scalar(v any, into reflect.Value) bool {
	if p, ok := v.(plain); ok {
		if into.Kind() == reflect.String {
			into.SetString(p.text)
			return true
		}
		v = p.value
	}
	switch into.Kind() {
	case reflect.Interface:
		if n, ok := v.(json.Number); ok {
			v = number64(n)
		}
		into.Set(reflect.ValueOf(v))
		return true
	case reflect.String:
		s, ok := v.(string)
		into.SetString(s)
		return ok
	case reflect.Bool:
		b, ok := v.(bool)
		into.SetBool(b)
		return ok
	}
	x, ok := float(v)
	switch {
	case !ok:
	case into.CanInt():
		if ok = x == math.Trunc(x) && math.Abs(x) < 1<<53; ok {
			into.SetInt(int64(x))
		}
	case into.CanFloat():
		into.SetFloat(x)
	default:
		panic("BUG: no value of a file goes into " + into.Type().String())
	}
	return ok
}

// number64 is a number of JSON as the other forms have theirs.
func number64(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	x, _ := n.Float64()
	return x
}

// float returns a number of a document; whole ones beyond 2^53 lose digits, and no field takes one.
func float(v any) (x float64, ok bool) {
	if n, is := v.(json.Number); is {
		x, err := n.Float64()
		return x, err == nil
	}
	switch r := reflect.ValueOf(v); {
	case !r.IsValid():
		return 0, false
	case r.CanInt():
		return float64(r.Int()), true
	case r.CanUint():
		return float64(r.Uint()), true
	case r.CanFloat():
		return r.Float(), finite(r.Float())
	}
	return 0, false
}

// kindOf says what a value of a file is, in words.
func kindOf(v any) string {
	if p, ok := v.(plain); ok {
		v = p.value
	}
	switch v := v.(type) {
	case map[string]any:
		return "a block of keys"
	case []any:
		return "a list"
	case string:
		return fmt.Sprintf("the text %q", clip(v, 60))
	case bool:
		return fmt.Sprintf("%t", v)
	}
	if _, ok := float(v); ok {
		return fmt.Sprintf("the number %s", clip(fmt.Sprint(v), 60))
	}
	return fmt.Sprintf("%q", clip(fmt.Sprint(v), 60))
}

// kindWanted says what belongs into a field.
func kindWanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return kindWanted(t.Elem())
	case reflect.Struct, reflect.Map:
		return "a block of keys"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}
