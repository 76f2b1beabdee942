package main

import (
	"flag"
	"fmt"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/util/compression"
)

// directoryOptions say what a small healthy data directory has. All have segments of about three pages, each
// with a record of series that covers a whole page and more, whose samples follow in it and in the next one.
type directoryOptions struct {
	compression string
	checkpoint  int  // Its number; none if negative. Segments begin behind it.
	inside      int  // Segments of the checkpoint.
	segments    int  // Behind the checkpoint.
	rounds      int  // Scrapes in a segment.
	wbl         bool // Three segments of samples that came in late.
	rich        bool // Histograms, exemplars, tombstones and metadata.
	newest      bool // Records that only the newest servers know: custom buckets, start timestamps.
	chunks      bool // Opened and closed once, so that there are m-mapped chunks.
	snapshot    bool // As chunks, and with a chunk snapshot.
}

func runDirectory(args []string, out io.Writer) error {
	o := directoryOptions{}
	flags := flag.NewFlagSet("directory", flag.ContinueOnError)
	flags.StringVar(&o.compression, "compression", compression.None, "of all logs")
	flags.IntVar(&o.checkpoint, "checkpoint", 2, "number of the checkpoint; -1: none")
	flags.IntVar(&o.inside, "checkpoint-segments", 3, "segments of the checkpoint")
	flags.IntVar(&o.segments, "segments", 5, "segments behind the checkpoint")
	flags.IntVar(&o.rounds, "rounds", 12, "scrapes in each segment")
	flags.BoolVar(&o.wbl, "wbl", false, "with samples that came in late")
	flags.BoolVar(&o.rich, "rich", false, "with histograms, exemplars, tombstones and metadata")
	flags.BoolVar(&o.newest, "newest", false, "with records that only the newest servers know")
	flags.BoolVar(&o.chunks, "chunks", false, "with m-mapped chunks")
	flags.BoolVar(&o.snapshot, "snapshot", false, "with m-mapped chunks and a chunk snapshot")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	f := makeDirectory(o)
	if err := f.write(dir); err != nil {
		return err
	}
	if o.chunks || o.snapshot {
		opts := serverOptions(dir, openOptions{})
		opts.EnableMemorySnapshotOnShutdown = o.snapshot
		db, err := tsdb.Open(dir, discard, nil, opts, nil)
		if err != nil {
			return err
		}
		db.DisableCompactions()
		if err := db.Close(); err != nil {
			return err
		}
	}
	names := []string{}
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	return printJSON(out, map[string]any{"dir": dir, "files": names})
}

func makeDirectory(o directoryOptions) tree {
	d := &directory{bench: &bench{story: newStory(noon), tree: tree{}, compression: o.compression}, o: o}
	if o.checkpoint >= 0 {
		for i := range o.inside {
			d.put(fmt.Sprintf("wal/checkpoint.%08d/%08d", o.checkpoint, i), d.segment(d.records(), i < o.inside-1))
		}
	}
	for i := range o.segments {
		d.put(fmt.Sprintf("wal/%08d", o.checkpoint+1+i), d.segment(d.records(), i < o.segments-1))
	}
	if o.wbl {
		for i := range 3 {
			d.put(fmt.Sprintf("wbl/%08d", i), d.segment(d.late(i), i < 2))
		}
	}
	return d.tree
}

type directory struct {
	*bench
	o         directoryOptions
	batch     int
	users     []*storySeries // Of the last record of many series.
	natives   []*storySeries
	custom    *storySeries
	lateCount int
}

// records are those of a segment.
func (d *directory) records() (recs [][]byte) {
	if d.batch == 0 {
		recs = append(recs, d.target(nodeLabels("db-1:9100", 2)), d.target(httpLabels("api-1:8080", "/login", "/query", "/static")))
		if d.o.rich {
			for i := range 4 {
				d.natives = append(d.natives, d.add(labels.FromStrings(labels.MetricName, "rpc_duration_seconds", "method", fmt.Sprint(i)), true))
			}
			recs = append(recs, d.seriesRecord(d.natives))
		}
		if d.o.newest {
			d.custom = d.add(labels.FromStrings(labels.MetricName, "rpc_size_bytes"), true)
			recs = append(recs, d.seriesRecord([]*storySeries{d.custom}))
		}
	}
	recs = append(recs, d.scrapes(d.o.rounds/2)...)
	recs = append(recs, d.usersSamples(3_000))
	// Labels that hardly compress, so that the record covers a whole page under every compression.
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	d.users = nil
	for i := range 480 {
		id := make([]byte, 190)
		for j := range id {
			id[j] = letters[d.rng.IntN(len(letters))]
		}
		d.users = append(d.users, d.add(labels.FromStrings(labels.MetricName, "logins_total", "batch", fmt.Sprint(d.batch),
			"id", string(id), "n", fmt.Sprint(i)), true))
	}
	recs = append(recs, d.seriesRecord(d.users), d.usersSamples(5_000))
	for range d.o.rounds - d.o.rounds/2 {
		recs = append(recs, d.scrapes(1)...)
		if d.o.rich {
			recs = append(recs, d.richRecords()...)
		}
		if d.o.newest {
			recs = append(recs, d.newestRecords()...)
		}
	}
	d.batch++
	return slices.DeleteFunc(recs, func(rec []byte) bool { return rec == nil })
}

// usersSamples are a scrape of the last many series.
func (d *directory) usersSamples(after int64) []byte {
	if len(d.users) == 0 {
		return nil
	}
	var samples []record.RefSample
	for _, one := range d.users {
		samples = append(samples, record.RefSample{Ref: one.ref, T: d.now + after, V: one.value})
	}
	return d.enc.Samples(samples, nil)
}

func (d *directory) richRecords() (recs [][]byte) {
	var ints []record.RefHistogramSample
	var floats []record.RefFloatHistogramSample
	for i, one := range d.natives {
		one.value += float64(1 + d.rng.IntN(9))
		h := nativeOf(int64(one.value))
		if i%2 == 0 {
			ints = append(ints, record.RefHistogramSample{Ref: one.ref, T: d.now + 7_000, H: h})
		} else {
			floats = append(floats, record.RefFloatHistogramSample{Ref: one.ref, T: d.now + 7_000, FH: h.ToFloat(nil)})
		}
	}
	rec, _ := d.enc.HistogramSamples(ints, nil)
	recs = append(recs, rec)
	rec, _ = d.enc.FloatHistogramSamples(floats, nil)
	first := d.targets[0].series
	one := first[d.rng.IntN(len(first))]
	return append(recs, rec,
		d.enc.Exemplars([]record.RefExemplar{{
			Ref: one.ref, T: d.now, V: one.value, Labels: labels.FromStrings("trace_id", fmt.Sprintf("%016x", d.rng.Uint64())),
		}}, nil),
		d.enc.Metadata([]record.RefMetadata{{Ref: one.ref, Type: 1, Unit: "seconds", Help: "Made up."}}, nil),
		d.enc.Tombstones([]tombstones.Stone{{
			Ref: storage.SeriesRef(one.ref), Intervals: tombstones.Intervals{{Mint: d.now - 100_000, Maxt: d.now - 70_000}},
		}}, nil))
}

func nativeOf(n int64) *histogram.Histogram {
	return &histogram.Histogram{
		Schema: 1, ZeroThreshold: 0.001, ZeroCount: uint64(n), Count: uint64(n * 4), Sum: float64(n) * 2.5,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{n, n},
	}
}

func (d *directory) newestRecords() (recs [][]byte) {
	n := int64(d.custom.value) + 1
	d.custom.value = float64(n)
	rec := d.enc.CustomBucketsHistogramSamples([]record.RefHistogramSample{{Ref: d.custom.ref, T: d.now + 7_000, H: &histogram.Histogram{
		Schema: histogram.CustomBucketsSchema, Count: uint64(3 * n), Sum: float64(n),
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{n, n}, CustomValues: []float64{0.5, 1},
	}}}, nil)
	v2 := record.Encoder{EnableSTStorage: true}
	var samples []record.RefSample
	for _, one := range d.targets[1].series {
		samples = append(samples, record.RefSample{Ref: one.ref, ST: d.now, T: d.now + 9_000, V: one.value})
	}
	return append(recs, rec, v2.Samples(samples, nil))
}

// late are the records of a segment of the WBL: samples between those that came in in time, one record of them over
// more than two pages. The chunks of which markers speak are not there, and will not be: their file has a high number.
func (d *directory) late(segment int) (recs [][]byte) {
	series := slices.Concat(d.targets[0].series, d.targets[1].series)
	batch := func(rounds int) []byte {
		var samples []record.RefSample
		for range rounds {
			d.lateCount++
			for _, one := range series {
				samples = append(samples, record.RefSample{Ref: one.ref, T: noon - 7_200_000 + int64(d.lateCount)*1000, V: float64(d.rng.IntN(1 << 40))})
			}
		}
		return d.enc.Samples(samples, nil)
	}
	for i := range 30 {
		if i == 15 {
			recs = append(recs, batch(110))
			continue
		}
		recs = append(recs, batch(1))
		if i%10 == 3 {
			recs = append(recs, d.enc.MmapMarkers([]record.RefMmapMarker{{
				Ref: series[i].ref, MmapRef: chunks.ChunkDiskMapperRef(1<<48 | uint64(8+100*segment+i)),
			}}, nil))
		}
	}
	return recs
}
