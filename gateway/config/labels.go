package config

import (
	"fmt"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers/telemetry"
)

// maxLabel bounds the name and the value of a label and a description, in bytes: they stand in each stored schema.
const maxLabel = 256

func labelsKind[T any](at func(*T) *[]telemetry.Label) kind[T] {
	return kind[T]{
		set: func(l *loader, f field, v *T) bool { return l.labels(f, at(v)) },
		get: func(v *T) string {
			if len(*at(v)) == 0 {
				return ""
			}
			return flowLabels(*at(v))
		},
		form: form{schema: schema{"type": "object", "maxProperties": maxLabels}},
	}
}

// labels reads `labels:`, any names with a text each: its table has no keys.
func (l *loader) labels(f field, dst *[]telemetry.Label) bool {
	if f.v.n.Kind != yaml.MappingNode {
		l.errorf(l.at(f.v), "write names with values, such as {line: \"4\"}", "%s must be keys with values, not %s", f.name, kindOf(f.v.n))
		return false
	}
	before := l.mistakes.total
	var labels []telemetry.Label
	read(l, f.v, &table[[]telemetry.Label]{in: "labels"}, dst, hooks{other: func(f field) bool {
		if f.name == "" || len(f.name) > maxLabel || strings.ContainsFunc(f.name, isControl) {
			l.errorf(l.at(f.k), fmt.Sprintf("use 1 to %d bytes without control characters", maxLabel), "the name of a label is not usable")
			return true
		}
		label := telemetry.Label{Name: l.intern(f.name)}
		if l.short(f, &label.Value, maxLabel) {
			label.Value = l.intern(label.Value)
			labels = append(labels, label)
		}
		return true
	}})
	if len(labels) > maxLabels {
		l.errorf(l.at(f.k), fmt.Sprintf("keep %d", maxLabels), "there are %d labels", len(labels))
		return false
	}
	slices.SortFunc(labels, func(a, b telemetry.Label) int { return strings.Compare(a.Name, b.Name) })
	*dst = slices.Clip(labels)
	return l.mistakes.total == before
}

// flowLabels writes labels as YAML that Load reads.
func flowLabels(labels []telemetry.Label) string {
	parts := make([]string, len(labels))
	for i, label := range labels {
		parts[i] = text(label.Name) + ": " + text(label.Value)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
