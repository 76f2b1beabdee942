package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/util/compression"
)

// The incident: a checkpoint with a tombstones record over pages 6 and 7 and a samples record over pages 7
// and 8, of which page 7 was never written. The reader joins the tombstones' first fragment to the samples'
// last one, which ends where the server says the corruption is.
//
// With one tombstones record over all three pages there would be no error: after the hole the decoder is back
// in step within two entries, since varints end where they end, and takes one wrong tombstone.
const (
	incidentCheckpoint = 41
	incidentHole       = int64(7 * pageSize) // Start of the page that is zeros.
	incidentAt         = int64(275_530)
	incidentError      = "backfill checkpoint: corruption in segment 00000000 at 275530: decode tombstones: invalid size"
	incidentDeleted    = 2200 // Series; a tombstone of these times has 20 bytes.
)

func runIncident(args []string, out io.Writer) error {
	o := judgeOptions{starts: 3, timeout: time.Minute}
	flags := flag.NewFlagSet("incident", flag.ContinueOnError)
	flags.StringVar(&o.servers, "servers", "", "directory of servers: <version>/prometheus")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	healthy, err := incident()
	if err != nil {
		return err
	}
	f := healthy.clone()
	name := fmt.Sprintf("wal/checkpoint.%08d/00000000", incidentCheckpoint)
	clear(f[name][incidentHole : incidentHole+pageSize])
	if err := f.write(dir); err != nil {
		return err
	}
	x := &fixture{
		What: "A checkpoint in which a page was never written: it held the end of a tombstones record and the beginning of a samples " +
			"record, whose fragments before and after it are read as one record. The segments after it are healthy.",
		Damage:  []span{{name, incidentHole, incidentHole + pageSize}},
		Records: hit(healthy[name], name, incidentHole, incidentHole+pageSize),
	}
	if x.HealthySamples, err = healthySamples(healthy); err != nil {
		return err
	}
	if err := x.record(f, dir, dir+".json", o); err != nil {
		return err
	}
	if e := x.OracleRead.Error; e == nil || *e != incidentError {
		return fmt.Errorf("not the incident: %v", deref(e))
	}
	for version, starts := range x.Prometheus {
		if e := starts[0].Error; e == nil || *e != incidentError {
			return fmt.Errorf("not the incident to server %s: %v", version, deref(e))
		}
	}
	if err := os.WriteFile(dir+".md", incidentText(x, f, healthy), 0o666); err != nil {
		return err
	}
	return printJSON(out, map[string]any{"dir": dir, "damage": x.Damage, "records": x.Records})
}

func deref(s *string) string {
	if s == nil {
		return "no error"
	}
	return *s
}

// incident gives the directory before the damage.
func incident() (tree, error) {
	// Ids of users have five digits; as many as make the offset come true have six.
	long := 0
	for range 20 {
		f, at, err := incidentWith(long)
		if err != nil {
			return nil, err
		}
		if at == incidentAt {
			return f, nil
		}
		long += int(incidentAt - at)
		if long < 0 || long > incidentDeleted {
			return nil, fmt.Errorf("the record ends at %d: cannot be moved to %d by %d bytes", at, incidentAt, long)
		}
	}
	return nil, errors.New("the record's end cannot be moved to its place")
}

// incidentWith gives the directory and where in the checkpoint the record behind the hole ends.
func incidentWith(long int) (f tree, at int64, err error) {
	s := newStory(noon - scrapeInterval)
	// Checkpoint: series records as they came in before noon, then what is from noon on.
	cp := [][]byte{
		s.target(nodeLabels("db-1:9100", 2)),
		s.target(nodeLabels("web-1:9100", 2)),
		s.target(httpLabels("api-1:8080", "/login", "/query", "/static")),
	}
	// A release of the API labelled its requests by user: every scrape brought new series.
	var leaked []*storySeries
	var stones []tombstones.Stone
	gone := noon + 2_311
	for i, first := 0, noon-2*3600*1000+7_204; i < incidentDeleted; first += scrapeInterval {
		var fresh []*storySeries
		for n := 1 + s.rng.IntN(11); n > 0 && i < incidentDeleted; n-- {
			user := 10_000 + i
			if i < long {
				user += 100_000
			}
			fresh = append(fresh, s.add(labels.FromStrings(labels.MetricName, "http_requests_total",
				"instance", "api-1:8080", "job", "api", "user", fmt.Sprint(user)), true))
			stones = append(stones, tombstones.Stone{
				Ref:       storage.SeriesRef(fresh[len(fresh)-1].ref),
				Intervals: tombstones.Intervals{{Mint: first, Maxt: gone}},
			})
			i++
		}
		leaked = append(leaked, fresh...)
		cp = append(cp, s.seriesRecord(fresh))
	}
	cp = append(cp, s.scrapes(1)...)
	// From the last scrape of that release.
	var samples []record.RefSample
	for _, one := range leaked {
		samples = append(samples, record.RefSample{Ref: one.ref, T: gone, V: one.value})
	}
	cp = append(cp, s.enc.Samples(samples, nil))
	// The operator deletes these series, and rolls the release back: the next scrape misses them all.
	cp = append(cp, s.enc.Tombstones(stones, nil))
	cp = append(cp, s.stale(leaked, gone+scrapeInterval))
	upTo, err := segmentBytes(cp, compression.None, false)
	if err != nil {
		return nil, 0, err
	}
	at = int64(len(upTo))
	cp = append(cp, s.scrapes(50)...)

	f = tree{}
	if f[fmt.Sprintf("wal/checkpoint.%08d/00000000", incidentCheckpoint)], err = segmentBytes(cp, compression.None, true); err != nil {
		return nil, 0, err
	}
	// The segments after it; every now and then a target grows some series.
	for i, rounds := range []int{91, 98, 75} {
		var recs [][]byte
		if i > 0 {
			instance := fmt.Sprintf("api-%d:8080", i+1)
			recs = append(recs, s.target(httpLabels(instance, "/query")))
		}
		recs = append(recs, s.scrapes(rounds)...)
		b, err := segmentBytes(recs, compression.None, i < 2)
		if err != nil {
			return nil, 0, err
		}
		f[fmt.Sprintf("wal/%08d", incidentCheckpoint+1+i)] = b
	}
	return f, at, nil
}

// healthySamples is how many samples can be queried of a healthy directory, staleness markers aside.
func healthySamples(f tree) (int, error) {
	v, err := openCopy(f, "")
	if err != nil {
		return 0, err
	}
	if v.Error != nil || !v.Started {
		return 0, fmt.Errorf("the healthy directory is not: %v", deref(v.Error))
	}
	return v.Samples, nil
}

// hit gives the records of a healthy segment that a damaged range touches.
func hit(b []byte, name string, off, end int64) []span {
	all := []span{}
	start := int64(0)
	for _, f := range fragments(b) {
		if f.typ == recFull || f.typ == recFirst {
			start = f.off
		}
		if (f.typ == recFull || f.typ == recLast) && start < end && f.end > off {
			all = append(all, span{name, start, f.end})
		}
	}
	return all
}

func countSamplesIn(f tree, prefix string) (n int) {
	var dec record.Decoder
	for name, b := range f {
		if !strings.HasPrefix(name, prefix) || strings.Count(name, "/") != strings.Count(prefix, "/") {
			continue
		}
		for _, rec := range recordsOf(b) {
			if dec.Type(rec) == record.Samples {
				samples, err := dec.Samples(rec, nil)
				if err != nil {
					return -1
				}
				n += len(samples)
			}
		}
	}
	return n
}

// recordsOf reads healthy, uncompressed bytes.
func recordsOf(b []byte) (recs [][]byte) {
	var rec []byte
	for _, f := range fragments(b) {
		rec = append(rec, b[f.off+7:f.end]...)
		if f.typ == recFull || f.typ == recLast {
			recs, rec = append(recs, rec), nil
		}
	}
	return recs
}

func incidentText(x *fixture, f, healthy tree) []byte {
	var w bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&w, format, args...) }
	cp := fmt.Sprintf("wal/checkpoint.%08d/", incidentCheckpoint)
	inCheckpoint, inSegments := countSamplesIn(healthy, cp), countSamplesIn(healthy, "wal/")
	p("# incident\n\n")
	p("Made by `scripts/make-fixtures` (`oracle incident`), this text too. A data directory on which every server says\n\n")
	p("    err=%q\n\n", incidentError)
	p("## What happened\n\n")
	p("A server of the 3.5 kind, WAL uncompressed. A release of the application `api` labelled its requests by user. At\n")
	p("2025-06-15 12:00 UTC the operator deleted these %d series through the API, one tombstones record of %d bytes,\n", incidentDeleted, 1+20*incidentDeleted)
	p("and rolled the release back; the next scrape missed the series, and a samples record of %d staleness markers\n", incidentDeleted)
	p("followed. The checkpoint at 13:00 took all of it over. A power cut at 13:19: of the checkpoint page 7,\n")
	p("[%d, %d), had never been written and is zeros. It held the end of the tombstones record (pages 6 and 7)\n", incidentHole, incidentHole+pageSize)
	p("and the beginning of the samples record (pages 7 and 8). Prometheus's reader takes zeros for padding, keeps the\n")
	p("tombstones' first fragment and joins the samples' last one to it; only the decoder notices, and what is logged is\n")
	p("the end of that last fragment, 8 x 32768 + 13386 = %d, %d bytes after the hole.\n\n", incidentAt, incidentAt-incidentHole-pageSize)
	p("(With one tombstones record over pages 6, 7 and 8 no server would have said anything: a tombstone of our times has\n")
	p("20 bytes, the middle fragment 32761, and the decoder is back in step after one wrong tombstone. That is\n")
	p("`testdata/damaged/zeroed_page_inside_tombstones`.)\n\n")
	p("## What is there\n\n")
	for _, name := range slices.Sorted(maps.Keys(f)) {
		p("    %-34s %7d bytes\n", name, len(f[name]))
	}
	d := x.Damage[0]
	p("\nDamaged: `%s` [%d, %d). Records in it, before the damage:\n\n", d.File, d.Offset, d.End)
	for i, r := range x.Records {
		p("    [%d, %d)  %s\n", r.Offset, r.End, []string{"tombstones", "samples (staleness markers)"}[i])
	}
	p("\nAll else is healthy. The checkpoint held %d samples, %d of them staleness markers (now lost), %d of\n",
		inCheckpoint, incidentDeleted, incidentDeleted)
	p("them deleted by the tombstones (now not deleted); the segments after it hold %d.\n\n", inSegments)
	p("## What Prometheus makes of it\n\n")
	p("Samples that can be queried, staleness markers aside: %d before the damage, %d if nothing but the two records were\n",
		x.HealthySamples, inCheckpoint-incidentDeleted+inSegments)
	p("lost. What is left:\n\n")
	p("| server | start | outcome | samples left | deleted | changed | created |\n|---|---|---|---|---|---|---|\n")
	list := func(names []string) string {
		for i := range names {
			names[i] = "`" + names[i] + "`"
		}
		return strings.Join(names, ", ")
	}
	versions := slices.Sorted(maps.Keys(x.Prometheus))
	for _, version := range versions {
		for i, s := range x.Prometheus[version] {
			samples, changed := "-", []string{}
			if s.Samples != nil {
				samples = fmt.Sprint(*s.Samples)
			}
			for _, c := range s.Changed {
				changed = append(changed, fmt.Sprintf("`%s` %d to %d", c.File, c.Before, c.After))
			}
			p("| %s | %d | %s | %s | %s | %s | %s |\n", version, i+1, s.Outcome, samples, list(slices.Clone(s.Deleted)),
				strings.Join(changed, ", "), list(slices.Clone(s.Created)))
		}
	}
	o := x.OracleOpen
	p("\nPrometheus 3.16's own packages (`oracle open`): first opening %s, second opening %s with %d samples.\n",
		map[bool]string{true: "starts", false: "fails"}[o.Started], map[bool]string{true: "starts", false: "fails"}[o.Again.Started],
		o.Again.Samples)
	p("What is left are the samples before the tombstones in the checkpoint, deleted ones included; segments that the\n")
	p("server starts again count from 0, below the checkpoint's number, and are never replayed.\n")
	for _, version := range versions {
		for i, s := range x.Prometheus[version] {
			p("\nServer %s, start %d:\n\n", version, i+1)
			for _, line := range s.Log {
				p("    %s\n", line)
			}
		}
	}
	return w.Bytes()
}

// Fragment types (tsdb/wlog/wlog.go, recType).
const (
	recFull   = 1
	recFirst  = 2
	recMiddle = 3
	recLast   = 4
)
