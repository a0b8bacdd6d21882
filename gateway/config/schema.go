package config

import (
	"encoding/json"
	"maps"

	"millrace/drivers"
)

// schema is a JSON schema, or part of one.
type schema map[string]any

// Schema returns the JSON Schema (draft-07, which editors know best) of a config file, ending in a line break.
func Schema(protocols []drivers.Protocol) []byte {
	tables := newTables()
	top := tables.top.section().schema(nil)
	devices := schema{"type": "array", "items": deviceSchema(tables.device.section(), protocols)}
	top["properties"].(schema)["devices"] = devices
	root := schema{
		"$schema": "http://json-schema.org/draft-07/schema#",
		"title":   "millrace config",
		"definitions": schema{
			"expanded": schema{"type": "string", "pattern": `\$\{(env|file):`},
			"duration": schema{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$`},
			"size":     schema{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$`},
		},
		"if": schema{"type": "array"}, "then": devices, "else": top, // an included file may be just a list of devices
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("BUG: marshal the schema: " + err.Error()) // maps of texts and numbers
	}
	return append(text, '\n')
}

// deviceSchema is the schema of a device: with the keys of the driver that it names.
func deviceSchema(s *section, protocols []drivers.Protocol) schema {
	var names []string
	var all []schema
	for i := range protocols {
		p := &protocols[i]
		names = append(names, p.Name)
		all = append(all, schema{
			"if":   schema{"properties": schema{"driver": schema{"const": p.Name}}, "required": []string{"driver"}},
			"then": s.schema(p),
		})
	}
	return schema{"type": "object", "required": []string{"driver"}, "properties": schema{"driver": schema{"enum": names}}, "allOf": all}
}

// schema describes the mapping, with the options of the protocol.
func (s *section) schema(p *drivers.Protocol) schema {
	properties := schema{}
	x := schema{"type": "object", "properties": properties, "additionalProperties": false}
	var required []string
	var either []schema
	for i := range s.entries {
		e := &s.entries[i]
		properties[e.name] = e.schema(p)
		or := e.or
		if e.name == "tags" && p != nil { // a rule may select them
			or = p.Rule
		}
		switch {
		case e.need == "" || s.in == "the top level": // another file may have it
		case or != "":
			either = append(either, schema{"anyOf": []schema{{"required": []string{e.name}}, {"required": []string{or}}}})
		default:
			required = append(required, e.name)
		}
	}
	for _, o := range s.options.of(p) {
		properties[o.Name] = schema{"type": []string{"string", "number", "boolean"}, "description": o.Help}
	}
	if len(required) > 0 {
		x["required"] = required
	}
	if len(either) > 0 {
		x["allOf"] = either
	}
	return x
}

func (e *entry) schema(p *drivers.Protocol) schema {
	x := maps.Clone(e.form.schema)
	if s := e.form.section; s != nil {
		x = s.schema(p)
		if e.form.list {
			x = schema{"type": "array", "minItems": 1, "items": x}
			if e.form.also != nil {
				x = schema{"anyOf": []schema{x, e.form.also}}
			}
		}
	}
	if about := e.about(); about != "" {
		x["description"] = about
	}
	if e.def != "" {
		x["default"] = e.def
	}
	return x
}

// textSchema is any scalar: 007 is a text, too.
func textSchema(most int) schema {
	return schema{"type": []string{"string", "number", "boolean"}, "minLength": 1, "maxLength": most}
}

// orExpanded allows ${env:...} and ${file:...} where something else than a text belongs.
func orExpanded(x schema) schema {
	return schema{"anyOf": []schema{x, {"$ref": "#/definitions/expanded"}}}
}

// quantitySchema is a duration or a size.
func quantitySchema(what string, zero bool) schema {
	any := []schema{{"$ref": "#/definitions/" + what}, {"$ref": "#/definitions/expanded"}}
	if zero {
		any = append(any, schema{"const": 0})
	}
	return schema{"anyOf": any}
}
