package main

import (
	"fmt"
	"time"

	"millrace/gateway"
	"millrace/gateway/config"
	"millrace/gateway/web"
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
	hoursStill            float64 // likewise, if no text changes: the store packs texts that are the same
}

// textOverhead is what a byte of a text that never repeats takes on disk, measured with hex digits of random bytes.
const textOverhead = 1.08

func estimateFor(cfg *config.Config, l load) estimate {
	const day = 24 * time.Hour
	still, commits := gateway.OutageRate(l.readings, l.records, cfg.Buffer.CommitInterval)
	perSecond := still + l.texts*textOverhead
	outage := (perSecond + commits*rewrittenPerCommit) * day.Seconds()
	e := estimate{healthyDay: idleRate * day.Seconds(), outageDay: outage}
	if cfg.Buffer.CommitInterval == 0 {
		e.healthyDay = outage // everything is written before it is sent
	}
	if perSecond > 0 {
		room, _ := gateway.Capacity(cfg.Buffer.Path, cfg.Buffer.MaxSize)
		e.hours, e.hoursStill = float64(room)/perSecond/3600, float64(room)/still/3600
	}
	return e
}

func (p *planWriter) buffer(cfg *config.Config, l load) {
	e := estimateFor(cfg, l)
	p.printf("buffer %q: up to %s, commit each %v, when full %s\n", cfg.Buffer.Path, size(float64(cfg.Buffer.MaxSize)), cfg.Buffer.CommitInterval, cfg.Buffer.WhenFull)
	p.printf("  estimate: the flash wears by %s written a day with a healthy uplink, %s a day in an outage; the store is full after %s of outage",
		size(e.healthyDay), size(e.outageDay), length(e.hours))
	if e.hours < e.hoursStill {
		p.printf(" if every text is as long as it can be and another each time, %s if none changes", length(e.hoursStill))
	}
	if l.unsized > 0 {
		p.printf("; %s whose length only the device knows %s not in it", web.Count(uint64(l.unsized), "text"), map[bool]string{true: "is", false: "are"}[l.unsized == 1])
	}
	p.printf("\n")
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
	case hours < 1./60:
		return fmt.Sprintf("%.0f seconds", hours*3600)
	case hours < 1./3:
		return fmt.Sprintf("%.1f minutes", hours*60)
	case hours < 72:
		return fmt.Sprintf("%.1f hours", hours)
	}
	return fmt.Sprintf("%.0f days", hours/24)
}
