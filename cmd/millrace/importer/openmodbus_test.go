package importer

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/configs/templates"
)

func TestImportOpenModbus(t *testing.T) {
	r := imported(t, "openmodbus")
	want := []string{
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|relay coil:7",
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|voltage_L1 input:20 float32 V",
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|status holding:40 uint16",
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|status.ready holding:40.0",
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|status.fault holding:40.11",
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|serial holding:50 string length 12",
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|odd holding:70 float32",
		"acme_meter tcp://192.0.2.1:502 1 CDAB|registers 1s|energy holding:100 int64 DCBA *0.001+0 kWh",
	}
	if got := lines(r); !slices.Equal(got, want) {
		t.Errorf("tags:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	problems := []string{"the unit id of the device", "put its url", "bit 16: left out: it is not in the first register", "can only be written", "4 registers does not fit", `type "decimal"`, "is no register", "device: these keys were not translated: maintainers", "6 tags: no interval"}
	if len(r.Problems) != len(problems) {
		t.Fatalf("problems: %v", r.Problems)
	}
	for i, want := range problems {
		if got := r.Problems[i].String(); !strings.Contains(got, want) {
			t.Errorf("problem %d is %s, no %s", i, got, want)
		}
		goodWords(t, r.Problems[i])
	}
}

// TestOpenModbusThereAndBack writes each built-in template as a device profile and reads it again: every tag that the
// form can hold has the address, type, order and scale that it had.
func TestOpenModbusThereAndBack(t *testing.T) {
	unit := 1
	for _, name := range templates.List() {
		tpl, err := templates.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := fromTemplate(tpl, Options{}, templates.Params{Unit: 1})
		if err != nil {
			t.Fatal(err)
		}
		var profile bytes.Buffer
		left, err := writeOpenModbus(&profile, tpl, templates.Params{Unit: 1})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Import("openmodbus", profile.Bytes(), Options{URL: placeholder, Unit: &unit, Interval: time.Second})
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, &profile)
		}
		got.Problems = slices.DeleteFunc(got.Problems, func(p Problem) bool { return p.What == writable }) // whose commands stand in no template
		if len(got.Problems) > 0 || got.Tags < want.Tags-len(left) {
			t.Errorf("%s: %d tags of %d, %d left out; %v", name, got.Tags, want.Tags, len(left), got.Problems)
		}
		if order := got.Devices[0].Order; order != cmp.Or(want.Devices[0].Order, "ABCD") {
			t.Errorf("%s: order %s", name, order)
		}
		held := map[string]Tag{}
		for _, tag := range got.Devices[0].Groups[0].Tags {
			held[tag.Address] = tag
		}
		for _, g := range want.Devices[0].Groups {
			for _, tag := range g.Tags {
				if tag.Expr != "" {
					continue // named as left out
				}
				h, ok := held[tag.Address]
				same := h.Type == tag.Type && h.Order == tag.Order && cmp.Or(h.Scale, 1) == cmp.Or(tag.Scale, 1) && h.Offset == tag.Offset && h.Unit == tag.Unit
				if bit := strings.Contains(tag.Address, ".") || strings.HasPrefix(tag.Address, "coil") || strings.HasPrefix(tag.Address, "discrete"); !ok || !bit && !same {
					t.Errorf("%s: %+v became %+v", name, tag, h)
				}
			}
		}
	}
}
