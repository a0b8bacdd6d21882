package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers/telemetry"
)

// TestSelects: a group with a rule needs no tags, what it says of reports holds for those that the rule selects, and derived tags stay what they are.
func TestSelects(t *testing.T) {
	c := mustLoad(t, "testdata/select.good.yaml")
	d := &c.Devices[0]
	found, both := &d.Groups[0], &d.Groups[1]
	change := TagReport{OnChange: true, Deadband: 1, Heartbeat: 10 * time.Minute}
	if !d.Selects() || !found.Selects || len(found.Tags) != 0 || found.Selected != (TagReport{}) || !both.Selects || both.Selected != change {
		t.Errorf("%+v\n%+v", found, both)
	}
	tags := []telemetry.Tag{{Name: "x", Address: "i=1"}, {Name: "y", Address: "i=2"}}
	sum := d.Sum()
	if g := found.Add(tags); !reflect.DeepEqual(g.Tags, tags) || g.Report != nil {
		t.Errorf("%+v", g)
	}
	g := both.Add(tags)
	if len(g.Tags) != 4 || g.Tags[3].Name != "y" || !slices.Equal(g.Report, []TagReport{change, {}, change, change}) || !reflect.DeepEqual(g.Aggregates, map[int]Aggregate{4: {"mean", time.Minute}}) {
		t.Errorf("%+v", g)
	}
	if len(both.Tags) != 2 || len(both.Report) != 2 || d.Sum() != sum {
		t.Errorf("the group itself has changed: %+v", both)
	}
	more := c.Only([]Device{*d})
	more.Devices[0].Groups = []Group{g}
	if more.Devices[0].Sum() == sum || d.Sum() != sum || len(more.Connections()) != 1 {
		t.Errorf("%+v", more.Devices)
	}
	var text strings.Builder
	if err := c.Print(&text); err != nil || !strings.Contains(text.String(), "deadband: 1\n") || !strings.Contains(text.String(), "report: always") {
		t.Errorf("%v\n%s", err, text.String())
	}
}
