package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var discard = slog.New(slog.DiscardHandler)

func runDump(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("dump", flag.ContinueOnError)
	snapshot := fs.Bool("snapshot", false, "DIR is a chunk snapshot: its records have types of their own")
	joined := fs.Bool("joined", false, "one reader over all segments, as a start reads a checkpoint: up to the first error")
	dir, err := parseDir(fs, args)
	if err != nil {
		return err
	}
	if *joined {
		return dumpJoined(dir, out)
	}
	files, err := segmentFiles(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := dumpSegment(f, *snapshot, out); err != nil {
			return err
		}
	}
	return nil
}

// segmentFile is a segment under the name it really has: a directory may hold names, and gaps, on which
// Prometheus would stop, and what each file says is wanted all the same.
type segmentFile struct {
	path  string
	index int
}

func segmentFiles(dir string) ([]segmentFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []segmentFile
	for _, e := range entries {
		// The rule of listSegments in wlog/wlog.go: whatever Atoi accepts.
		if k, err := strconv.Atoi(e.Name()); err == nil && !e.IsDir() {
			files = append(files, segmentFile{filepath.Join(dir, e.Name()), k})
		}
	}
	slices.SortStableFunc(files, func(a, b segmentFile) int { return a.index - b.index })
	return files, nil
}

func dumpSegment(f segmentFile, snapshot bool, out io.Writer) error {
	s, err := wlog.OpenReadSegment(f.path)
	if err != nil {
		return err
	}
	sr := wlog.NewSegmentBufReader(s)
	defer sr.Close()
	return dumpRecords(wlog.NewReader(sr), func() int { return f.index }, snapshot, false, out)
}

// dumpJoined reads as Head.Init (tsdb/head.go) reads a checkpoint. That it cannot be opened is an error in it, too.
func dumpJoined(dir string, out io.Writer) error {
	sr, err := wlog.NewSegmentsReader(dir)
	if err != nil {
		w := &lineWriter{}
		w.raw(`{"error":`).str(err.Error()).raw("}\n")
		_, err := out.Write(w.b)
		return err
	}
	defer sr.Close()
	r := wlog.NewReader(sr)
	return dumpRecords(r, r.Segment, false, true, out)
}

// dumpRecords writes a line for each record, and for the error that ends them; with stop, one that does not decode is such
// an error.
func dumpRecords(r *wlog.Reader, segment func() int, snapshot, stop bool, out io.Writer) error {
	dec := record.NewDecoder(labels.NewSymbolTable(), discard)
	w := &lineWriter{}
	for r.Next() {
		rec := r.Record()
		w.reset()
		w.raw(`{"segment":`).int(int64(segment())).raw(`,"end":`).int(r.Offset()).raw(`,"type":"`)
		if snapshot {
			w.raw(snapshotType(rec))
		} else {
			w.raw(dec.Type(rec).String())
		}
		w.raw(`","size":`).int(int64(len(rec))).raw(`,"crc":"`)
		w.b = fmt.Appendf(w.b, "%08x", crc32.Checksum(rec, castagnoli))
		w.raw(`","entries":[`)
		start := len(w.b)
		var err error
		if snapshot {
			err = w.guard(func() error { return w.snapshotEntries(&dec, rec) })
		} else {
			err = w.guard(func() error { return w.entries(&dec, rec) })
		}
		if err != nil {
			w.b = w.b[:start]
		}
		w.raw(`]`)
		if err != nil {
			w.raw(`,"error":`).str(err.Error())
		}
		w.raw("}\n")
		if _, err := out.Write(w.b); err != nil {
			return err
		}
		if stop && err != nil {
			return nil
		}
	}
	if err := r.Err(); err != nil {
		w.reset()
		w.raw(`{"segment":`).int(int64(segment())).raw(`,"error":`).str(err.Error())
		w.raw(`,"at":`).int(r.Offset()).raw("}\n")
		if _, err := out.Write(w.b); err != nil {
			return err
		}
	}
	return nil
}

// lineWriter builds one line of JSON: by hand, because reflection over tens of megabytes of samples is slow.
type lineWriter struct {
	b []byte
	n int // Entries written since reset, for the commas.
}

func (w *lineWriter) reset() { w.b, w.n = w.b[:0], 0 }

func (w *lineWriter) raw(s string) *lineWriter {
	w.b = append(w.b, s...)
	return w
}

func (w *lineWriter) int(i int64) *lineWriter {
	w.b = strconv.AppendInt(w.b, i, 10)
	return w
}

// i64 and u64 write 64-bit integers as strings: JSON readers round them otherwise.
func (w *lineWriter) i64(i int64) *lineWriter {
	w.b = append(strconv.AppendInt(append(w.b, '"'), i, 10), '"')
	return w
}

func (w *lineWriter) u64(i uint64) *lineWriter {
	w.b = append(strconv.AppendUint(append(w.b, '"'), i, 10), '"')
	return w
}

// f64 writes the bits: stale markers and other NaNs must stay apart.
func (w *lineWriter) f64(f float64) *lineWriter {
	w.b = append(appendBits(append(w.b, '"'), f), '"')
	return w
}

func appendBits(b []byte, f float64) []byte {
	const digits = "0123456789abcdef"
	bits := math.Float64bits(f)
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[bits>>shift&15])
	}
	return b
}

func (w *lineWriter) str(s string) *lineWriter {
	if !utf8.ValidString(s) {
		w.b = fmt.Appendf(w.b, `{"hex":"%x"}`, s)
		return w
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			q, _ := json.Marshal(s)
			w.b = append(w.b, q...)
			return w
		}
	}
	w.b = append(append(append(w.b, '"'), s...), '"')
	return w
}

func (w *lineWriter) labels(lset labels.Labels) *lineWriter {
	w.raw("[")
	first := true
	lset.Range(func(l labels.Label) {
		if !first {
			w.raw(",")
		}
		first = false
		w.raw("[").str(l.Name).raw(",").str(l.Value).raw("]")
	})
	return w.raw("]")
}

func (w *lineWriter) open() *lineWriter {
	if w.n > 0 {
		w.raw(",")
	}
	w.n++
	return w.raw("{")
}

// guard turns a panic of the decoder into an error: DecodeHistogram in record/record.go allocates as many
// buckets as a damaged record asks for.
func (*lineWriter) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

func (w *lineWriter) entries(dec *record.Decoder, rec []byte) error {
	switch dec.Type(rec) {
	case record.Series:
		series, err := dec.Series(rec, nil)
		if err != nil {
			return err
		}
		for _, s := range series {
			w.open().raw(`"ref":`).u64(uint64(s.Ref)).raw(`,"labels":`).labels(s.Labels).raw("}")
		}
	case record.Samples, record.SamplesV2:
		samples, err := dec.Samples(rec, nil)
		if err != nil {
			return err
		}
		for _, s := range samples {
			w.open().raw(`"ref":`).u64(uint64(s.Ref)).raw(`,"t":`).i64(s.T)
			w.raw(`,"st":`).i64(s.ST).raw(`,"v":`).f64(s.V).raw("}")
		}
	case record.Tombstones:
		stones, err := dec.Tombstones(rec, nil)
		if err != nil {
			return err
		}
		for _, s := range stones {
			for _, iv := range s.Intervals {
				w.open().raw(`"ref":`).u64(uint64(s.Ref)).raw(`,"mint":`).i64(iv.Mint)
				w.raw(`,"maxt":`).i64(iv.Maxt).raw("}")
			}
		}
	case record.Exemplars:
		exemplars, err := dec.Exemplars(rec, nil)
		if err != nil {
			return err
		}
		w.exemplars(exemplars)
	case record.MmapMarkers:
		markers, err := dec.MmapMarkers(rec, nil)
		if err != nil {
			return err
		}
		for _, m := range markers {
			w.open().raw(`"ref":`).u64(uint64(m.Ref)).raw(`,"mmap_ref":`).u64(uint64(m.MmapRef)).raw("}")
		}
	case record.Metadata:
		metadata, err := dec.Metadata(rec, nil)
		if err != nil {
			return err
		}
		for _, m := range metadata {
			w.open().raw(`"ref":`).u64(uint64(m.Ref)).raw(`,"type":`).int(int64(m.Type))
			w.raw(`,"unit":`).str(m.Unit).raw(`,"help":`).str(m.Help).raw("}")
		}
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		hists, err := dec.HistogramSamples(rec, nil)
		if err != nil {
			return err
		}
		for _, h := range hists {
			w.open().raw(`"ref":`).u64(uint64(h.Ref)).raw(`,"t":`).i64(h.T).raw(`,"st":`).i64(h.ST)
			w.histogram(h.H).raw("}")
		}
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		hists, err := dec.FloatHistogramSamples(rec, nil)
		if err != nil {
			return err
		}
		for _, h := range hists {
			w.open().raw(`"ref":`).u64(uint64(h.Ref)).raw(`,"t":`).i64(h.T).raw(`,"st":`).i64(h.ST)
			w.floatHistogram(h.FH).raw("}")
		}
	case record.MinValidTime:
		mint, err := dec.MinValidTime(rec)
		if err != nil {
			return err
		}
		w.open().raw(`"mint":`).i64(mint).raw("}")
	}
	return nil
}

func (w *lineWriter) exemplars(exemplars []record.RefExemplar) {
	for _, e := range exemplars {
		w.open().raw(`"ref":`).u64(uint64(e.Ref)).raw(`,"t":`).i64(e.T)
		w.raw(`,"v":`).f64(e.V).raw(`,"labels":`).labels(e.Labels).raw("}")
	}
}

func (w *lineWriter) histogramHead(hint histogram.CounterResetHint, schema int32, zeroThreshold float64) {
	w.raw(`,"hint":`).int(int64(hint)).raw(`,"schema":`).int(int64(schema))
	w.raw(`,"zero_threshold":`).f64(zeroThreshold)
}

func (w *lineWriter) spans(name string, spans []histogram.Span) {
	w.raw(`,"`).raw(name).raw(`":[`)
	for i, s := range spans {
		if i > 0 {
			w.raw(",")
		}
		w.raw("[").int(int64(s.Offset)).raw(",").int(int64(s.Length)).raw("]")
	}
	w.raw("]")
}

func list[T any](w *lineWriter, name string, values []T, one func(T) *lineWriter) {
	w.raw(`,"`).raw(name).raw(`":[`)
	for i, v := range values {
		if i > 0 {
			w.raw(",")
		}
		one(v)
	}
	w.raw("]")
}

// histogram writes integer buckets as they are stored: deltas.
func (w *lineWriter) histogram(h *histogram.Histogram) *lineWriter {
	w.histogramHead(h.CounterResetHint, h.Schema, h.ZeroThreshold)
	w.raw(`,"zero_count":`).u64(h.ZeroCount).raw(`,"count":`).u64(h.Count).raw(`,"sum":`).f64(h.Sum)
	w.spans("pos_spans", h.PositiveSpans)
	w.spans("neg_spans", h.NegativeSpans)
	list(w, "pos", h.PositiveBuckets, w.i64)
	list(w, "neg", h.NegativeBuckets, w.i64)
	list(w, "custom", h.CustomValues, w.f64)
	return w
}

func (w *lineWriter) floatHistogram(h *histogram.FloatHistogram) *lineWriter {
	w.histogramHead(h.CounterResetHint, h.Schema, h.ZeroThreshold)
	w.raw(`,"zero_count":`).f64(h.ZeroCount).raw(`,"count":`).f64(h.Count).raw(`,"sum":`).f64(h.Sum)
	w.spans("pos_spans", h.PositiveSpans)
	w.spans("neg_spans", h.NegativeSpans)
	list(w, "pos", h.PositiveBuckets, w.f64)
	list(w, "neg", h.NegativeBuckets, w.f64)
	list(w, "custom", h.CustomValues, w.f64)
	return w
}
