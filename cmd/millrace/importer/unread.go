package importer

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// strays are the keys of a file that no field of ours takes, by the path of what holds them.
type strays struct {
	tag   string // of the form: toml, yaml or json
	found map[string]map[string]bool
}

// unread names the keys of a document that the importer did not read, so that none is dropped in silence. document is the
// file once more, as maps and lists; into has the type that it was read into.
func unread(b *builder, tag string, document, into any) {
	s := strays{tag, map[string]map[string]bool{}}
	s.walk("", document, reflect.TypeOf(into))
	for _, path := range slices.Sorted(maps.Keys(s.found)) {
		where := path
		if path == "" {
			where = "the file"
		}
		sayUnread(b, where, "keys", slices.Sorted(maps.Keys(s.found[path])))
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

func (s *strays) walk(path string, v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case []any:
		if t.Kind() == reflect.Slice {
			for _, one := range v {
				s.walk(path, one, t.Elem())
			}
		}
	case map[string]any:
		for key, one := range v {
			s.key(path, key, one, t)
		}
	}
}

func (s *strays) key(path, key string, v any, t reflect.Type) {
	inner := strings.TrimPrefix(path+"."+key, ".")
	switch t.Kind() {
	case reflect.Map:
		s.walk(strings.TrimPrefix(path+".*", "."), v, t.Elem())
	case reflect.Struct:
		if f := s.field(t, key); f != nil {
			s.walk(inner, v, f)
			return
		}
		if s.found[path] == nil {
			s.found[path] = map[string]bool{}
		}
		s.found[path][key] = true
	}
}

// field returns the type of the field that takes the key; nil = none does.
func (s *strays) field(t reflect.Type, key string) reflect.Type {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if inner := s.field(f.Type, key); inner != nil {
				return inner
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get(s.tag), ",")
		if name == key || s.tag != "yaml" && strings.EqualFold(name, key) {
			return f.Type
		}
	}
	return nil
}
