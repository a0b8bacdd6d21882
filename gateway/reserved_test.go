package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/gateway/config"
	"millrace/gateway/format"
	"millrace/gateway/format/jsonmsg"
	"millrace/gateway/record"
)

// TestReservedLevels: what the topic of a gap message has in place of a group is no name that a config can give.
func TestReservedLevels(t *testing.T) {
	f, err := jsonmsg.New(jsonmsg.Options{Gateway: "g", Topic: "{group}"})
	if err != nil {
		t.Fatal(err)
	}
	gap := format.Record{Schema: &record.Schema{Gateway: "g", Device: "d"}, Gap: &format.Gap{Count: 1, Cause: "full"}}
	sent, err := f.Open(nil, nil).Encode(nil, []format.Record{gap})
	if err != nil {
		t.Fatal(err)
	}
	level, file := sent[0].Topic, filepath.Join(t.TempDir(), "c.yaml")
	for _, names := range [][3]string{{"g", "d", "p"}, {level, "d", "p"}, {"g", level, "p"}, {"g", "d", level}} {
		text := "gateway: " + names[0] + "\ndestinations: [{name: a, url: 'mqtt://h'}]\ndevices: [{name: " + names[1] +
			", driver: fake, url: 'tcp://h', groups: [{name: " + names[2] + ", interval: 1s, tags: [{name: t, address: 'holding:1'}]}]}]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(file, newPlant().protocols(), config.Options{})
		if reserved := names != [3]string{"g", "d", "p"}; reserved != (err != nil && strings.Contains(err.Error(), level)) {
			t.Errorf("%v: %v", names, err)
		}
	}
}
