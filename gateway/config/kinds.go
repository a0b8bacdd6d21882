package config

import (
	"fmt"
	"iter"
	"strconv"
	"time"
)

// The kinds of values. Each reads with a function of scalar.go and writes what that reads.

func textKind[T any](at func(*T) *string, most int) kind[T] {
	return kind[T]{
		set:  func(l *loader, f field, v *T) bool { return l.short(f, at(v), most) },
		get:  func(v *T) string { return given(*at(v)) },
		form: form{schema: textSchema(most)},
	}
}

// wordKind is a text that many tags have in common.
func wordKind[T any](at func(*T) *string, most int) kind[T] {
	return then(textKind(at, most), func(l *loader, _ field, v *T) { *at(v) = l.intern(*at(v)) })
}

// nameKind is the name of something; inTopic says that it stands between the slashes of an MQTT topic.
func nameKind[T any](at func(*T) *string, inTopic bool) kind[T] {
	k := textKind(at, maxName)
	k.set = func(l *loader, f field, v *T) bool { return l.name(f, at(v), inTopic) }
	return k
}

func secretKind[T any](at func(*T) *Secret) kind[T] {
	return kind[T]{
		set:  func(l *loader, f field, v *T) bool { return l.secret(f, at(v)) },
		get:  func(v *T) string { return given(at(v).String()) },
		form: form{schema: textSchema(maxCredential)},
	}
}

func boolKind[T any](at func(*T) *bool) kind[T] {
	return kind[T]{
		set:  func(l *loader, f field, v *T) bool { return l.boolean(f, at(v)) },
		get:  func(v *T) string { return strconv.FormatBool(*at(v)) },
		form: form{schema: orExpanded(schema{"type": "boolean"})},
	}
}

func intKind[T any](at func(*T) *int, least, most int) kind[T] {
	return kind[T]{
		set:  func(l *loader, f field, v *T) bool { return l.integer(f, at(v), least, most) },
		get:  func(v *T) string { return strconv.Itoa(*at(v)) },
		form: form{words: fmt.Sprintf("%d to %d", least, most), schema: orExpanded(schema{"type": "integer", "minimum": least, "maximum": most})},
	}
}

// numberKind is any finite number; the zero value is left out.
func numberKind[T any](at func(*T) *float64) kind[T] {
	return kind[T]{
		set: func(l *loader, f field, v *T) bool { return l.number(f, at(v)) },
		get: func(v *T) string {
			if *at(v) == 0 {
				return ""
			}
			return number(*at(v))
		},
		form: form{schema: orExpanded(schema{"type": "number"})},
	}
}

// durationKind is a duration between least and most; zero says whether 0 is allowed as well.
func durationKind[T any](at func(*T) *time.Duration, zero bool, least, most time.Duration) kind[T] {
	return kind[T]{
		set:  func(l *loader, f field, v *T) bool { return l.duration(f, at(v), zero, least, most) },
		get:  func(v *T) string { return formatDuration(*at(v)) },
		form: form{words: span(zero, formatDuration(least), formatDuration(most)), schema: quantitySchema("duration", zero)},
	}
}

// sizeKind is a number of bytes, likewise.
func sizeKind[T any](at func(*T) *int64, zero bool, least, most int64) kind[T] {
	return kind[T]{
		set:  func(l *loader, f field, v *T) bool { return l.size(f, at(v), zero, least, most) },
		get:  func(v *T) string { return formatSize(*at(v)) },
		form: form{words: span(zero, formatSize(least), formatSize(most)), schema: quantitySchema("size", zero)},
	}
}

func span(zero bool, least, most string) string {
	if zero && least != "0" {
		return "0 or " + least + " to " + most
	}
	return least + " to " + most
}

// choiceKind is one of a few words.
func choiceKind[T any, W ~string](at func(*T) *W, words ...W) kind[T] {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return kind[T]{
		set:  func(l *loader, f field, v *T) bool { return choice(l, f, at(v), words...) },
		get:  func(v *T) string { return string(*at(v)) },
		form: form{words: orList(list), schema: orExpanded(schema{"enum": list})},
	}
}

// partKind is a mapping with a table of its own.
func partKind[T, U any](t *table[U], at func(*T) *U) kind[T] {
	k := kind[T]{
		set: func(l *loader, f field, v *T) bool {
			before := l.mistakes.total
			read(l, f.v, t, at(v), hooks{})
			return l.mistakes.total == before
		},
		get:   func(v *T) string { return t.inFlow(at(v)) },
		reset: func(l *loader, v *T) { t.reset(l, at(v)) },
		fixed: func(prefix string, whole bool, a, b *T) []string { return t.fixed(prefix, whole, at(a), at(b)) },
		form:  form{section: t.section()},
	}
	if !t.flow {
		k.block = func(p *printer, lead, name string, v *T) bool {
			p.line(lead, name, "")
			t.print(p, spaces(lead)+"  ", at(v))
			return true
		}
	}
	return k
}

// listKind is a list of mappings. items yields what is printed, set reads.
func listKind[T, U any](t *table[U], items func(*T) iter.Seq[*U], set func(*loader, field, *T)) kind[T] {
	return kind[T]{
		set: func(l *loader, f field, v *T) bool {
			before := l.mistakes.total
			set(l, f, v)
			return l.mistakes.total == before
		},
		get: func(*T) string { return "" },
		block: func(p *printer, lead, name string, v *T) (any bool) {
			for item := range items(v) {
				if !any {
					p.line(lead, name, "")
				}
				any = true
				if t.flow {
					p.WriteString(spaces(lead) + "  - " + t.inFlow(item) + "\n")
				} else {
					t.print(p, spaces(lead)+"  - ", item)
				}
			}
			return any
		},
		form: form{section: t.section(), list: true},
	}
}

// then calls after when the value was read without a mistake.
func then[T any](k kind[T], after func(*loader, field, *T)) kind[T] {
	set := k.set
	k.set = func(l *loader, f field, v *T) bool {
		before := l.mistakes.total
		if !set(l, f, v) {
			return false
		}
		after(l, f, v)
		return l.mistakes.total == before
	}
	return k
}
