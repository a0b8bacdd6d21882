package main

import (
	"fmt"
	"time"

	"millrace/gateway"
	"millrace/gateway/config"
)

// What the store costs the flash, measured (buffer/DESIGN.md, LIBRARIES: bbolt's write amplification).
const (
	rewrittenPerCommit = 20 << 10 // five pages that each commit rewrites whatever its size
	idleRate           = 150      // bytes a second of checkpoints while everything is acknowledged promptly: the store's own bound
)

// estimate is what a config asks of the edge box's flash.
type estimate struct {
	healthyDay, outageDay float64 // bytes written
	hours                 float64 // of outage until max_size, or until the file system is full
}

func estimateFor(cfg *config.Config, l load) estimate {
	const day = 24 * time.Hour
	perSecond, commits := gateway.OutageRate(l.readings, l.records, cfg.Buffer.CommitInterval)
	outage := (perSecond + commits*rewrittenPerCommit) * day.Seconds()
	e := estimate{healthyDay: idleRate * day.Seconds(), outageDay: outage}
	if cfg.Buffer.CommitInterval == 0 {
		e.healthyDay = outage // everything is written before it is sent
	}
	if perSecond > 0 {
		room, _ := gateway.Capacity(cfg.Buffer.Path, cfg.Buffer.MaxSize)
		e.hours = float64(room) / perSecond / 3600
	}
	return e
}

func (p *planWriter) buffer(cfg *config.Config, l load) {
	e := estimateFor(cfg, l)
	p.printf("buffer %q: up to %s, commit each %v, when full %s\n", cfg.Buffer.Path, size(float64(cfg.Buffer.MaxSize)), cfg.Buffer.CommitInterval, cfg.Buffer.WhenFull)
	p.printf("  estimate: %s a day to flash with a healthy uplink, %s a day in an outage; full after %s of outage\n",
		size(e.healthyDay), size(e.outageDay), length(e.hours))
	if room, short := gateway.Capacity(cfg.Buffer.Path, cfg.Buffer.MaxSize); short {
		p.printf("  its file system has room for %s only, less than max_size: lower max_size or free space\n", size(float64(room)))
	}
	if cfg.Buffer.MaxAge > 0 && cfg.Buffer.MaxAge.Hours() < e.hours {
		p.printf("  max_age comes first: what is older than %s is dropped\n", length(cfg.Buffer.MaxAge.Hours()))
	}
}

func size(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 999.5 { // what %.3g writes in three digits
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.3g TiB", n)
}

func length(hours float64) string {
	switch {
	case hours <= 0:
		return "no time"
	case hours < 72:
		return fmt.Sprintf("%.1f hours", hours)
	}
	return fmt.Sprintf("%.0f days", hours/24)
}
