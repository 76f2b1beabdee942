package main

// This file is also compiled with the packages of an older version, by scripts/bench-peers: it uses only what that has.

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// Types that 3.5 has no names for.
const (
	samplesV2               record.Type = 11
	histogramSamplesV2      record.Type = 12
	floatHistogramSamplesV2 record.Type = 13
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
	dec := newDecoder()
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
			case record.Samples, samplesV2:
				samples, err = dec.Samples(rec, samples[:0])
				n = len(samples)
			case record.Exemplars:
				exemplars, err = dec.Exemplars(rec, exemplars[:0])
				n = len(exemplars)
			case record.Metadata:
				metadata, err = dec.Metadata(rec, metadata[:0])
				n = len(metadata)
			case record.HistogramSamples, record.CustomBucketsHistogramSamples, histogramSamplesV2:
				histograms, err = dec.HistogramSamples(rec, histograms[:0])
				n = len(histograms)
			case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, floatHistogramSamplesV2:
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
