package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand"
	"runtime/debug"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

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
