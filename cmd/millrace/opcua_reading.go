package main

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"time"

	"millrace/drivers/telemetry"
)

// shownReading is a reading as -o json has it; a table and CSV have the same columns.
type shownReading struct {
	Node    string `json:"node"`
	Value   any    `json:"value"`
	Quality string `json:"quality"`
	Reason  string `json:"reason,omitempty"`
	Source  string `json:"source_time,omitempty"`
}

// sourceText is the source time of a reading, "" where the server has none.
func sourceText(r *telemetry.Reading) string {
	if r.Time == 0 {
		return ""
	}
	return microText(time.UnixMicro(r.Time))
}

// readingPrinter prints readings in one of the formats: table, json or csv.
type readingPrinter struct {
	value func(node string, r *telemetry.Reading)
	flush func() error
}

func newReadingPrinter(out io.Writer, format string) *readingPrinter {
	switch format {
	case "json":
		enc := json.NewEncoder(out)
		var problem error
		return &readingPrinter{func(node string, r *telemetry.Reading) {
			if problem == nil {
				problem = enc.Encode(shownReading{node, jsonValue(r.Value), r.Quality.String(), r.Reason, sourceText(r)})
			}
		}, func() error { return problem }}
	case "csv":
		w := csv.NewWriter(out)
		w.Write([]string{"source_time", "node", "value", "quality", "reason"}) // Error tells
		return &readingPrinter{func(node string, r *telemetry.Reading) {
			w.Write([]string{sourceText(r), node, valueText(r.Value, 0), r.Quality.String(), r.Reason})
		}, func() error { w.Flush(); return w.Error() }}
	}
	t := &table{out: out, widths: []int{len("2026-01-02T15:04:05.000000Z")}} // the first that are printed may be bad, and have none
	t.head("SOURCE TIME", "NODE", "VALUE", "QUALITY", "REASON")
	return &readingPrinter{func(node string, r *telemetry.Reading) {
		t.add(sourceText(r), node, shortText(r.Value), r.Quality.String(), r.Reason)
	}, t.flush}
}
