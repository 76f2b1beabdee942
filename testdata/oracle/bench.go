package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// benchReport is how long Prometheus's own reader and decoder take for a log, once for each round.
type benchReport struct {
	Records int       `json:"records"`
	Entries int       `json:"entries"`
	Bytes   int64     `json:"bytes"` // Of all segments.
	Seconds []float64 `json:"seconds"`
}

func runBench(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := fs.Int("rounds", 1, "how often it is read")
	dir, err := parseDir(fs, args)
	if err != nil {
		return err
	}
	rep := &benchReport{}
	for range *rounds {
		begun := time.Now()
		records, entries, err := decodeAll(dir)
		if err != nil {
			return err
		}
		rep.Seconds = append(rep.Seconds, time.Since(begun).Seconds())
		rep.Records, rep.Entries = records, entries
	}
	segments, err := filepath.Glob(filepath.Join(dir, "[0-9]*"))
	if err != nil {
		return err
	}
	for _, segment := range segments {
		st, err := os.Stat(segment)
		if err != nil {
			return err
		}
		rep.Bytes += st.Size()
	}
	return printJSON(out, rep)
}

// decodeAll reads the segments of a directory as a start does, one reader each, and decodes every record into slices that
// are used again, in one goroutine.
func decodeAll(dir string) (records, entries int, err error) {
	first, last, err := wlog.Segments(dir)
	if err != nil {
		return 0, 0, err
	}
	dec := record.NewDecoder(labels.NewSymbolTable(), promslog.NewNopLogger())
	var (
		series     []record.RefSeries
		samples    []record.RefSample
		exemplars  []record.RefExemplar
		metadata   []record.RefMetadata
		histograms []record.RefHistogramSample
		floats     []record.RefFloatHistogramSample
		markers    []record.RefMmapMarker
	)
	for i := first; i <= last; i++ {
		segment, err := wlog.OpenReadSegment(wlog.SegmentName(dir, i))
		if err != nil {
			return 0, 0, err
		}
		buffer := wlog.NewSegmentBufReader(segment)
		r := wlog.NewReader(buffer)
		for r.Next() {
			rec := r.Record()
			records++
			n := 0
			switch dec.Type(rec) {
			case record.Series:
				series, err = dec.Series(rec, series[:0])
				n = len(series)
			case record.Samples, record.SamplesV2:
				samples, err = dec.Samples(rec, samples[:0])
				n = len(samples)
			case record.Exemplars:
				exemplars, err = dec.Exemplars(rec, exemplars[:0])
				n = len(exemplars)
			case record.Metadata:
				metadata, err = dec.Metadata(rec, metadata[:0])
				n = len(metadata)
			case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
				histograms, err = dec.HistogramSamples(rec, histograms[:0])
				n = len(histograms)
			case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
				floats, err = dec.FloatHistogramSamples(rec, floats[:0])
				n = len(floats)
			case record.MmapMarkers:
				markers, err = dec.MmapMarkers(rec, markers[:0])
				n = len(markers)
			}
			if err != nil {
				return 0, 0, errors.Join(err, buffer.Close())
			}
			entries += n
		}
		if err := errors.Join(r.Err(), buffer.Close()); err != nil {
			return 0, 0, err
		}
	}
	return records, entries, nil
}

type loadOptions struct {
	series, scrapes, target, churn int
	compression                    compression.Type
	histograms                     bool
	segmentBytes                   int
}

func runLoad(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	o := loadOptions{}
	fs.IntVar(&o.series, "series", 50_000, "series that are there at once")
	fs.IntVar(&o.scrapes, "scrapes", 500, "scrapes, 15 s apart")
	fs.IntVar(&o.target, "target", 1_000, "series of a target, which are one record")
	fs.IntVar(&o.churn, "churn", 0, "percent of the series that are new ones at each scrape")
	fs.BoolVar(&o.histograms, "histograms", false, "native histograms")
	fs.IntVar(&o.segmentBytes, "segment-bytes", wlog.DefaultSegmentSize, "size of segments")
	packed := fs.String("compression", "none", "none, snappy or zstd")
	dir, err := parseDir(fs, args)
	if err != nil {
		return err
	}
	o.compression = compression.Type(*packed)
	if o.series < 1 || o.target < 1 || o.scrapes < 1 {
		return fmt.Errorf("%w: nothing to be written", errUsage)
	}
	debug.SetGCPercent(400)
	entries, err := load(dir, o)
	if err != nil {
		return err
	}
	return printJSON(out, map[string]int{"entries": entries})
}

// load writes a log as a server does that scrapes its targets one after the other: the series of new ones, then their samples.
func load(dir string, o loadOptions) (entries int, err error) {
	w, err := wlog.NewSize(promslog.NewNopLogger(), nil, dir, o.segmentBytes, o.compression)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	rng := rand.New(rand.NewSource(1))
	var enc record.Encoder
	refs := make([]chunks.HeadSeriesRef, o.series)
	values := make([]float64, o.series)
	next := chunks.HeadSeriesRef(0)
	var buffer []byte
	for scrape := range o.scrapes {
		for from := 0; from < o.series; from += o.target {
			to := min(from+o.target, o.series)
			t := int64(1_750_000_000_000) + int64(scrape)*15_000 + int64(from/o.target)%15_000
			var series []record.RefSeries
			for i := from; i < to; i++ {
				if scrape > 0 && rng.Intn(100) >= o.churn {
					continue
				}
				next++
				refs[i] = next
				series = append(series, record.RefSeries{Ref: next, Labels: labels.FromStrings(
					"__name__", fmt.Sprintf("http_request_duration_seconds_%d", i%100), "instance", fmt.Sprintf("host-%d:9100", from/o.target),
					"job", "node", "path", fmt.Sprintf("/api/v1/%d", i), "uid", fmt.Sprintf("%d", next))})
			}
			var records [][]byte
			if len(series) > 0 {
				records = append(records, enc.Series(series, nil))
			}
			if o.histograms {
				var all []record.RefHistogramSample
				for i := from; i < to; i++ {
					h := &histogram.Histogram{
						Schema: 3, ZeroThreshold: 0.001, ZeroCount: uint64(scrape), Count: uint64(scrape * 20), Sum: float64(scrape) * 18.4,
						PositiveSpans:   []histogram.Span{{Offset: 0, Length: 12}, {Offset: 2, Length: 8}},
						PositiveBuckets: make([]int64, 20),
					}
					for b := range h.PositiveBuckets {
						h.PositiveBuckets[b] = int64(rng.Intn(9)) - 4
					}
					all = append(all, record.RefHistogramSample{Ref: refs[i], T: t, H: h})
				}
				rec, _ := enc.HistogramSamples(all, nil)
				records = append(records, rec)
			} else {
				all := make([]record.RefSample, 0, to-from)
				for i := from; i < to; i++ {
					// Counters that go on, and gauges.
					if i%3 == 0 {
						values[i] = math.Round(rng.NormFloat64()*1000) / 10
					} else if rng.Intn(4) > 0 {
						values[i] += float64(rng.Intn(50))
					}
					all = append(all, record.RefSample{Ref: refs[i], T: t, V: values[i]})
				}
				buffer = enc.Samples(all, buffer[:0])
				records = append(records, buffer)
			}
			entries += len(series) + to - from
			if err := w.Log(records...); err != nil {
				return 0, err
			}
		}
	}
	return entries, nil
}
