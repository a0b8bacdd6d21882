package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/buffer"
	"millrace/gateway/format"
	"millrace/gateway/format/jsonmsg"
	"millrace/gateway/link"
	"millrace/gateway/record"
	"millrace/gateway/web"
)

func newBufferExport(f *storeFlags) *cobra.Command {
	var format, from, to, device string
	cmd := &cobra.Command{
		Use:   "export --format jsonl|csv",
		Short: "Write the records in the store to standard output, decoded",
		Long: `Write the records that the store holds, in order, whoever has acknowledged them. jsonl is one line a record, the
same JSON object that format json publishes, without "historical", which differs between destinations: ts is the
time of the poll, times has the source times that differ from it. csv is one row a reading:
seq,time,source_time,device,group,tag,value,unit,quality,reason. time is that of the poll by the gateway's clock (ts in
JSON), source_time the device's own where its protocol has one, else the same. A gap in the data is a row of quality
"gap", without source_time.

--from and --to take a sequence number or a time as in RFC 3339; what is at --to is not included. Exit 1 when a
segment is damaged; what is sound in it is exported. Where no gateway runs, also when a segment is missing, or a file is another store's.`,
		Example: `  millrace buffer export --format jsonl --path /var/lib/millrace >all.jsonl
  millrace buffer export --format csv --device press-1 --from 2026-03-01T06:00:00Z --to 2026-03-01T14:00:00Z
  millrace buffer export --format jsonl --from 120000 --to 130000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := parseQuery(from, to)
			if err != nil {
				return err
			}
			q.Device = device
			if err := checkFormat(format); err != nil {
				return err
			}
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				return export(ctx, s, q, format, cmd.OutOrStdout())
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "jsonl", "jsonl or csv")
	cmd.Flags().StringVar(&from, "from", "", "first sequence number or time")
	cmd.Flags().StringVar(&to, "to", "", "sequence number or time to stop before")
	cmd.Flags().StringVar(&device, "device", "", "only records of this device")
	return cmd
}

func checkFormat(format string) error {
	if format != "jsonl" && format != "csv" {
		return fmt.Errorf("format %q is unknown; use jsonl or csv", format)
	}
	return nil
}

// parseQuery reads --from and --to.
func parseQuery(from, to string) (q web.Query, err error) {
	if err := parseBound(from, &q.From, &q.FromTime); err != nil {
		return q, fmt.Errorf("--from %w", err)
	}
	if err := parseBound(to, &q.To, &q.ToTime); err != nil {
		return q, fmt.Errorf("--to %w", err)
	}
	return q, nil
}

func parseBound(text string, seq *uint64, at *int64) (err error) {
	if text == "" {
		return nil
	}
	if *seq, err = strconv.ParseUint(text, 10, 64); err == nil {
		return nil
	}
	if *at, err = parseTime(text); err != nil {
		return fmt.Errorf("%q is neither a sequence number nor a time like 2026-03-01T06:00:00Z", text)
	}
	return nil
}

// parseTime reads a time as a person gives it, into µs since 1970.
func parseTime(text string) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, fmt.Errorf("%q is no time like 2026-03-01T06:00:00Z", text)
	}
	return t.UnixMicro(), nil
}

func export(ctx context.Context, s *openedStore, q web.Query, format string, w io.Writer) error {
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	if q.To == 0 {
		q.To = st.Stats.NextSeq // not for ever after a gateway that goes on polling
	}
	e, err := newExporter(w, format, st)
	if err != nil {
		return err
	}
	first := q.From
	if n := len(st.Segments); n > 0 {
		first = max(first, st.Segments[0].FirstSeq)
	}
	p, found := newProgress("exported"), false
	err = s.Scan(ctx, q, func(r *web.StoredRecord) error {
		found = true
		p.records(r.Seq-min(first, r.Seq), q.To-min(first, q.To))
		return e.write(r)
	})
	p.end()
	if err == nil && !found {
		fmt.Fprintln(os.Stderr, "no such record is in the store; it keeps what a destination has not acknowledged yet")
	}
	return errors.Join(err, e.end(), incomplete(st))
}

// incomplete names the segments of which only a part can be read, and what else is wrong with a store that nobody runs on: a gateway tells of
// what it has lost in gap records, which are exported.
func incomplete(st *web.StoreStatus) (err error) {
	named := map[string]bool{}
	for i := range st.Segments {
		if s := &st.Segments[i]; s.Damaged {
			named[s.File] = true
			err = errors.Join(err, fmt.Errorf("segment %q (records %d to %d) is damaged; what is sound in it is exported", s.File, s.FirstSeq, s.LastSeq))
		}
	}
	for i := range st.Stats.Damage {
		if d := &st.Stats.Damage[i]; !st.Running && !named[d.File] {
			err = errors.Join(err, fmt.Errorf("%s: %s; all else is exported", d.File, d.Reason))
		}
	}
	return err
}

// exporter writes records in one format.
type exporter struct {
	out     *bufio.Writer
	csv     *csv.Writer // nil = jsonl
	json    format.Encoder
	decoder decoder
	msgs    []link.Message
	bad     int // records that could not be decoded
	why     error
}

func newExporter(w io.Writer, form string, st *web.StoreStatus) (e *exporter, err error) {
	e = &exporter{out: bufio.NewWriterSize(w, 64<<10)}
	if form == "csv" {
		e.csv = csv.NewWriter(e.out)
		return e, e.csv.Write([]string{"seq", "time", "source_time", "device", "group", "tag", "value", "unit", "quality", "reason"})
	}
	f, err := jsonmsg.New(jsonmsg.Options{Gateway: st.Gateway, Topic: "export"})
	if err != nil {
		return nil, err
	}
	e.json = f.Open(nil, nil)
	return e, nil
}

// write writes one record. One that cannot be decoded is counted and left out; an error is the output's.
func (e *exporter) write(r *web.StoredRecord) error {
	schema, rec, err := e.decoder.decode(r)
	if err == nil && e.csv == nil {
		e.msgs, err = e.json.Encode(e.msgs[:0], []format.Record{e.record(r, schema, rec)})
	}
	switch {
	case err != nil:
		e.bad++
		e.why = fmt.Errorf("record %d of %q: %w", r.Seq, r.Stream.Device, err)
		return nil
	case e.csv != nil:
		return e.rows(r, schema, rec)
	}
	if _, err = e.out.Write(e.msgs[0].Payload); err == nil {
		err = e.out.WriteByte('\n')
	}
	return err
}

// record is a stored record as a format gets it.
func (e *exporter) record(r *web.StoredRecord, schema *record.Schema, rec *record.Record) format.Record {
	out := format.Record{Epoch: r.Epoch, Seq: r.Seq, Schema: schema, Record: rec, Time: r.At}
	if g := r.Gap; g != nil {
		out.Gap = &format.Gap{From: g.From, To: g.To, FirstSeq: g.FirstSeq, LastSeq: g.LastSeq, Count: g.Count, Unknown: g.Unknown, Cause: g.Cause.String(), Reason: g.Reason, Tags: g.Tags}
	}
	return out
}

func (e *exporter) rows(r *web.StoredRecord, schema *record.Schema, rec *record.Record) error {
	seq := strconv.FormatUint(r.Seq, 10)
	if r.Gap != nil {
		return e.csv.Write([]string{seq, timeText(r.At), "", r.Stream.Device, "", "", "", "", "gap", gapText(r.Gap)})
	}
	polled := timeText(rec.Time)
	at, when := rec.Time, polled // most readings of a record are of one time
	for i := range rec.Readings {
		rd := &rec.Readings[i]
		tag := &schema.Tags[rd.Tag]
		if rd.Time != at {
			at, when = rd.Time, timeText(rd.Time)
		}
		row := []string{seq, polled, when, schema.Device, schema.Group, tag.Name, valueText(rd.Value, 0), tag.Details().Unit, rd.Quality.String(), rd.Reason}
		if err := e.csv.Write(row); err != nil {
			return err
		}
	}
	return nil
}

func (e *exporter) end() error {
	if e.csv != nil {
		e.csv.Flush()
		if err := e.csv.Error(); err != nil {
			return err
		}
	}
	err := e.out.Flush()
	if e.bad > 0 {
		err = errors.Join(err, fmt.Errorf("%s left out that could not be decoded; the last: %w", web.Count(uint64(e.bad), "record"), e.why))
	}
	return err
}

// decoder turns stored records into readings.
type decoder struct {
	schemas map[*web.StoredStream]*record.Schema
	rec     record.Record
}

// decode returns a record's readings and what their tags mean; both are valid until the next call. A gap
// record has none.
func (d *decoder) decode(r *web.StoredRecord) (s *record.Schema, rec *record.Record, err error) {
	if d.schemas == nil {
		d.schemas = map[*web.StoredStream]*record.Schema{}
	}
	if s = d.schemas[r.Stream]; s == nil {
		if s = (&record.Schema{Device: r.Stream.Device}); len(r.Stream.Schema) > 0 {
			if s, err = record.ParseSchema(r.Stream.Schema); err != nil {
				return nil, nil, err
			}
		}
		d.schemas[r.Stream] = s
	}
	if r.Gap != nil {
		return s, nil, nil
	}
	if err := record.Decode(r.Payload, &d.rec); err != nil {
		return nil, nil, err
	}
	for i := range d.rec.Readings {
		if int(d.rec.Readings[i].Tag) >= len(s.Tags) {
			return nil, nil, record.ErrRecord
		}
	}
	return s, &d.rec, nil
}

func gapText(g *buffer.Gap) string {
	text := fmt.Sprintf("%s readings lost: %s", g.Lost(), g.Cause)
	switch {
	case g.From != 0:
		text += fmt.Sprintf(", from %s to %s", timeText(g.From), timeText(g.To))
	case g.To != 0:
		text += ", from an unknown time to " + timeText(g.To)
	default:
		text += ", it is not known of when"
	}
	if len(g.Tags) > 0 {
		text += fmt.Sprintf(", of %q", g.Tags)
	}
	if g.Reason != "" {
		text += ": " + g.Reason
	}
	return text
}

func newBufferShow(f *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "show SEQ",
		Short:   "Show one record with its readings",
		Example: "  millrace buffer show 120345 --config millrace.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || seq+1 == 0 {
				return fmt.Errorf("%q is no sequence number; `millrace buffer ls` shows which there are", args[0])
			}
			return f.on(cmd, func(ctx context.Context, s *openedStore) error { return show(ctx, s, seq, cmd.OutOrStdout()) })
		},
	}
}

func show(ctx context.Context, s *openedStore, seq uint64, w io.Writer) error {
	found := false
	err := s.Scan(ctx, web.Query{From: seq, To: seq + 1}, func(r *web.StoredRecord) error {
		found = true
		var d decoder
		schema, rec, err := d.decode(r)
		if err != nil {
			return err
		}
		return showRecord(w, r, schema, rec)
	})
	if err == nil && !found {
		return fmt.Errorf("record %d is not in the store: never used, delivered and removed, or dropped; `millrace buffer ls` shows what there is", seq)
	}
	return err
}

func showRecord(w io.Writer, r *web.StoredRecord, schema *record.Schema, rec *record.Record) error {
	out := planWriter{w: w}
	if r.Gap != nil {
		out.printf("record %d of %s, device %q: a gap between records %d and %d\n%s\n", r.Seq, timeText(r.At), r.Stream.Device,
			r.Gap.FirstSeq, r.Gap.LastSeq, gapText(r.Gap))
		return out.err
	}
	out.printf("record %d of %s, device %q, group %q: %s in %s\n", r.Seq, timeText(r.At), schema.Device, schema.Group,
		web.Count(uint64(len(rec.Readings)), "reading"), web.Count(uint64(len(r.Payload)), "byte"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range rec.Readings {
		rd := &rec.Readings[i]
		tag := &schema.Tags[rd.Tag]
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\n", timeText(rd.Time), tag.Name, valueText(rd.Value, 0), tag.Details().Unit, rd.Quality, rd.Reason)
	}
	return errors.Join(out.err, t.Flush())
}

// isTerminal reports whether a person looks at the file.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
