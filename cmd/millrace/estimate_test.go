package main

import (
	"testing"
	"time"

	"millrace/gateway/config"
)

func TestEstimate(t *testing.T) {
	var cfg config.Config
	cfg.Buffer.MaxSize, cfg.Buffer.CommitInterval = 2<<30, time.Second
	small := estimateFor(&cfg, load{tags: 100, readings: 100, records: 1})
	big := estimateFor(&cfg, load{tags: 10000, readings: 10000, records: 100})
	if small.healthyDay != big.healthyDay || small.healthyDay > 20e6 {
		t.Errorf("a healthy day writes %v and %v bytes; want the same few megabytes whatever the load", small.healthyDay, big.healthyDay)
	}
	if big.outageDay <= small.outageDay || big.hours >= small.hours {
		t.Errorf("a hundred times the readings: %+v against %+v", big, small)
	}
	if big.hours < 12 || big.hours > 36 {
		t.Errorf("2 GiB last %v hours at 10,000 readings/s and about 2.6 bytes each", big.hours)
	}
	cfg.Buffer.CommitInterval = 0
	if strict := estimateFor(&cfg, load{readings: 100, records: 1}); strict.healthyDay != strict.outageDay {
		t.Errorf("strict mode writes the same with and without an uplink, not %+v", strict)
	}
	if none := estimateFor(&cfg, load{}); none.hours != 0 {
		t.Errorf("no load fills the store in %v hours", none.hours)
	}
}
