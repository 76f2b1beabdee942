package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// baseTime is the first timestamp, in ms: fixed, since the same seed must write the same bytes.
const baseTime = int64(1_750_000_000_000)

// Beside Prometheus's record types: "unknown" is a record of type 200, "empty" one of no bytes.
var allTypes = []string{
	"series", "samples", "tombstones", "exemplars", "mmapmarkers", "metadata",
	"histogram_samples", "float_histogram_samples",
	"custom_buckets_histogram_samples", "custom_buckets_float_histogram_samples",
	"samples_v2", "histogram_samples_v2", "float_histogram_samples_v2", "min_valid_time", "unknown", "empty",
}

type profile struct {
	types      []string
	targets    int
	series     [2]int // Series of a target, from and to.
	size       [2]int // Bytes of a record, from and to, before compression.
	uniform    bool   // Sizes are spread evenly; otherwise evenly over their magnitudes.
	longLabels int    // Longest label value.
	ooo        bool   // Timestamps go back and forth.
}

func without(drop ...string) []string {
	return slices.DeleteFunc(slices.Clone(allTypes), func(t string) bool { return slices.Contains(drop, t) })
}

var profiles = map[string]profile{
	"wal": {
		types: without("mmapmarkers", "min_valid_time"), targets: 8, series: [2]int{40, 300},
		size: [2]int{30, 16_000}, longLabels: 3000,
	},
	"wbl": {
		types: without("series", "tombstones", "exemplars", "metadata", "min_valid_time"), targets: 5,
		series: [2]int{20, 60}, size: [2]int{30, 4000}, longLabels: 100, ooo: true,
	},
	"small": {
		types: without("mmapmarkers", "min_valid_time"), targets: 5, series: [2]int{14, 30},
		size: [2]int{10, 200}, uniform: true, longLabels: 60,
	},
	"large": {
		types: without("mmapmarkers", "min_valid_time"), targets: 3, series: [2]int{800, 2500},
		size: [2]int{20_000, 200_000}, uniform: true, longLabels: 3000,
	},
	"checkpoint": {
		types: without("mmapmarkers", "exemplars", "empty", "unknown"), targets: 6, series: [2]int{200, 1500},
		size: [2]int{200, 100_000}, longLabels: 3000,
	},
}

func profileNames() []string {
	return []string{"wal", "wbl", "small", "large", "checkpoint"}
}

type seriesKind int

const (
	counter seriesKind = iota
	gauge
	wholeNumber
	nativeHistogram
	floatNativeHistogram
	customHistogram
	customFloatHistogram
)

func (k seriesKind) isFloat() bool { return k <= wholeNumber }

type series struct {
	ref    chunks.HeadSeriesRef
	kind   seriesKind
	labels labels.Labels
	value  float64
	st     int64
	lastT  int64
	stale  bool
	schema int32
	pos    []histogram.Span
	neg    []histogram.Span
	counts []int64 // Absolute, positive buckets first.
	zero   int64
	sum    float64
	custom []float64
}

type target struct {
	instance, job string
	known         bool
	series        []*series
	lastT         int64
	interval      int64
}

// generator makes records in the order in which a server that scrapes some targets writes them.
type generator struct {
	rng     *rand.Rand
	p       profile
	types   map[string]bool
	targets []*target
	queue   [][]byte
	now     int64
	lastRef chunks.HeadSeriesRef
	series  int
	enc     record.Encoder
	encV2   record.Encoder
}

func newGenerator(seed uint64, p profile, types []string) *generator {
	g := &generator{
		rng:   rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)),
		p:     p,
		types: map[string]bool{},
		now:   baseTime,
		encV2: record.Encoder{EnableSTStorage: true},
	}
	for _, t := range types {
		g.types[t] = true
	}
	for i := range p.targets {
		g.targets = append(g.targets, &target{
			instance: fmt.Sprintf("10.0.%d.%d:%d", g.rng.IntN(4), i+1, 9090+g.rng.IntN(20)),
			job:      pick(g.rng, jobs),
			lastT:    baseTime + int64(g.rng.IntN(1000)),
			interval: int64(1000 * (1 + g.rng.IntN(15))),
		})
	}
	if g.types["min_valid_time"] {
		// wlog.Checkpoint writes it as the very first record.
		g.queue = append(g.queue, g.enc.MinValidTime(baseTime, nil))
	}
	return g
}

func (g *generator) next() []byte {
	if g.types["empty"] && g.rng.IntN(200) == 0 {
		return nil
	}
	if g.types["unknown"] && g.rng.IntN(200) == 0 {
		rec := []byte{200}
		for range g.size() - 1 {
			rec = append(rec, byte(g.rng.IntN(256)))
		}
		return rec
	}
	for tries := 0; len(g.queue) == 0; tries++ {
		if tries > 1000 {
			// Nothing but rare types was asked for.
			if g.types["unknown"] {
				return []byte{200}
			}
			return nil
		}
		g.scrape()
	}
	rec := g.queue[0]
	g.queue = g.queue[1:]
	return rec
}

// size is how long the next record should become.
func (g *generator) size() int {
	from, to := g.p.size[0], g.p.size[1]
	if g.p.uniform {
		return from + g.rng.IntN(to-from+1)
	}
	return int(float64(from) * math.Pow(float64(to)/float64(from), g.rng.Float64()))
}

func (g *generator) push(rec []byte) { g.queue = append(g.queue, rec) }

// scrape queues the records of one scrape in the order of headAppenderBase.log (tsdb/head_append.go).
func (g *generator) scrape() {
	t := g.targets[g.rng.IntN(len(g.targets))]
	g.advance(t)
	var fresh []*series
	if !t.known {
		t.known = true
		fresh = g.addSeries(t, g.p.series[0]+g.rng.IntN(g.p.series[1]-g.p.series[0]+1))
	} else if g.rng.IntN(20) == 0 {
		fresh = g.addSeries(t, 1+g.rng.IntN(5))
	}
	if g.types["series"] {
		g.seriesRecords(fresh)
	}
	if g.types["metadata"] && (len(fresh) > 0 || g.rng.IntN(25) == 0) {
		g.metadataRecord(t)
	}
	v2 := g.types["samples_v2"] && (!g.types["samples"] || g.rng.IntN(3) == 0)
	if v2 || g.types["samples"] {
		g.samplesRecord(t, v2)
	}
	if g.types["exemplars"] && g.rng.IntN(2) == 0 {
		g.exemplarsRecord(t)
	}
	if g.rng.IntN(2) == 0 {
		g.histogramRecords(t)
	}
	if g.types["mmapmarkers"] && g.rng.IntN(2) == 0 {
		g.markersRecord(t)
	}
	if g.types["tombstones"] && g.rng.IntN(10) == 0 {
		g.tombstonesRecord(t)
	}
}

func (g *generator) advance(t *target) {
	t.lastT += t.interval
	if g.rng.IntN(4) == 0 {
		t.lastT += int64(g.rng.IntN(40)) // Jitter of a busy server.
	}
	g.now = max(g.now, t.lastT)
}

// timestamp is the target's time, or in an out-of-order log some time before.
func (g *generator) timestamp(t *target) int64 {
	if g.p.ooo {
		return t.lastT - int64(g.rng.IntN(1_800_000))
	}
	return t.lastT
}

// choose takes about n of the target's series of which keep says yes, by ascending ref; when there are
// fewer, several rounds with later timestamps, as a batch of remote writes has.
func (g *generator) choose(t *target, n int, keep func(seriesKind) bool, use func(s *series, ts int64)) {
	var all []*series
	for _, s := range t.series {
		if keep(s.kind) {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return
	}
	n = max(n, 1)
	ts := g.timestamp(t)
	for n > 0 {
		from := 0
		if n < len(all) {
			from = g.rng.IntN(len(all) - n + 1)
		}
		for _, s := range all[from:min(from+n, len(all))] {
			use(s, ts)
		}
		n -= len(all)
		if n > 0 {
			g.advance(t)
			ts = g.timestamp(t)
		}
	}
}

func (g *generator) seriesRecords(fresh []*series) {
	for len(fresh) > 0 {
		want, n, size := g.size(), 0, 0
		var batch []record.RefSeries
		for n < len(fresh) && (n == 0 || size < want) {
			batch = append(batch, record.RefSeries{Ref: fresh[n].ref, Labels: fresh[n].labels})
			size += 9
			fresh[n].labels.Range(func(l labels.Label) { size += len(l.Name) + len(l.Value) + 2 })
			n++
		}
		fresh = fresh[n:]
		g.push(g.enc.Series(batch, nil))
	}
}

func (g *generator) samplesRecord(t *target, v2 bool) {
	var samples []record.RefSample
	g.choose(t, (g.size()-17)/11, seriesKind.isFloat, func(s *series, ts int64) {
		samples = append(samples, record.RefSample{Ref: s.ref, ST: g.start(s, ts), T: ts, V: g.value(s)})
	})
	if len(samples) == 0 {
		return
	}
	if v2 {
		g.push(g.encV2.Samples(samples, nil))
	} else {
		g.push(g.enc.Samples(samples, nil))
	}
}

// start is the start timestamp of a series: none, kept, or moved by a restart of the target.
func (g *generator) start(s *series, ts int64) int64 {
	switch {
	case s.kind == gauge:
		return 0
	case s.st == 0 || g.rng.IntN(100) == 0:
		s.st = ts - int64(g.rng.IntN(100_000))
	}
	return s.st
}

func (g *generator) value(s *series) float64 {
	switch g.rng.IntN(400) {
	case 0:
		return math.Float64frombits(value.StaleNaN)
	case 1:
		return math.Float64frombits(value.NormalNaN)
	case 2:
		return math.Inf(1 - 2*g.rng.IntN(2))
	case 3:
		return math.Copysign(0, -1)
	}
	switch s.kind {
	case counter:
		s.value += float64(g.rng.IntN(50))
		if g.rng.IntN(500) == 0 {
			s.value = 0
		}
	case gauge:
		s.value = math.Floor(g.rng.NormFloat64()*1e4) / 128
	default:
		s.value = float64(g.rng.IntN(3)) * 1.0625
	}
	return s.value
}

func (g *generator) exemplarsRecord(t *target) {
	var exemplars []record.RefExemplar
	n := max(1, g.size()/70)
	if !g.p.uniform {
		n = min(n, 20) // One exemplar a series and scrape, and few series have any.
	}
	g.choose(t, n, func(k seriesKind) bool { return k == counter }, func(s *series, ts int64) {
		exemplars = append(exemplars, record.RefExemplar{
			Ref: s.ref, T: ts - int64(g.rng.IntN(500)), V: float64(g.rng.IntN(1000)) / 256,
			Labels: labels.FromStrings("trace_id", fmt.Sprintf("%016x%016x", g.rng.Uint64(), g.rng.Uint64())),
		})
	})
	if len(exemplars) > 0 {
		g.push(g.enc.Exemplars(exemplars, nil))
	}
}

func (g *generator) metadataRecord(t *target) {
	want := g.size()
	var metadata []record.RefMetadata
	any := func(seriesKind) bool { return true }
	size := 1
	for size < want {
		before := size
		g.choose(t, 1+min(len(t.series), want/80), any, func(s *series, _ int64) {
			m := record.RefMetadata{
				Ref: s.ref, Type: uint8(g.rng.IntN(8)), Unit: pick(g.rng, units), Help: pick(g.rng, helps),
			}
			if size < want {
				metadata = append(metadata, m)
				size += 16 + len(m.Unit) + len(m.Help)
			}
		})
		if size == before {
			break
		}
	}
	if len(metadata) > 0 {
		g.push(g.enc.Metadata(metadata, nil))
	}
}

func (g *generator) markersRecord(t *target) {
	var markers []record.RefMmapMarker
	any := func(seriesKind) bool { return true }
	g.choose(t, min(20, g.size()/16), any, func(s *series, _ int64) {
		markers = append(markers, record.RefMmapMarker{
			Ref: s.ref, MmapRef: chunks.ChunkDiskMapperRef(uint64(1+g.rng.IntN(9))<<32 | uint64(8+g.rng.IntN(1<<26))),
		})
	})
	if len(markers) > 0 {
		g.push(g.enc.MmapMarkers(markers, nil))
	}
}

func (g *generator) tombstonesRecord(t *target) {
	var stones []tombstones.Stone
	any := func(seriesKind) bool { return true }
	n := g.size() / 21
	if !g.p.uniform {
		n = min(n, 40)
	}
	if len(t.series) > 20 && g.rng.IntN(8) == 0 {
		// The deletion of a stale series is logged as a tombstone over all time; its ref never
		// comes back.
		i := g.rng.IntN(len(t.series))
		stones = append(stones, tombstones.Stone{
			Ref:       storage.SeriesRef(t.series[i].ref),
			Intervals: tombstones.Intervals{{Mint: math.MinInt64, Maxt: math.MaxInt64}},
		})
		t.series = slices.Delete(t.series, i, i+1)
	} else {
		g.choose(t, n, any, func(s *series, ts int64) {
			mint := baseTime + g.rng.Int64N(ts-baseTime+1)
			stones = append(stones, tombstones.Stone{
				Ref:       storage.SeriesRef(s.ref),
				Intervals: tombstones.Intervals{{Mint: mint, Maxt: mint + g.rng.Int64N(60_000)}},
			})
		})
	}
	g.push(g.enc.Tombstones(stones, nil))
}

func (g *generator) histogramRecords(t *target) {
	of := func(kinds ...seriesKind) func(seriesKind) bool {
		return func(k seriesKind) bool { return slices.Contains(kinds, k) }
	}
	ints := func(kinds ...seriesKind) (hs []record.RefHistogramSample) {
		g.choose(t, g.size()/80, of(kinds...), func(s *series, ts int64) {
			hs = append(hs, record.RefHistogramSample{Ref: s.ref, ST: g.start(s, ts), T: ts, H: g.histogram(s)})
		})
		return hs
	}
	floats := func(kinds ...seriesKind) (hs []record.RefFloatHistogramSample) {
		g.choose(t, g.size()/170, of(kinds...), func(s *series, ts int64) {
			hs = append(hs, record.RefFloatHistogramSample{
				Ref: s.ref, ST: g.start(s, ts), T: ts, FH: g.histogram(s).ToFloat(nil),
			})
		})
		return hs
	}
	if (g.types["histogram_samples_v2"] || g.types["float_histogram_samples_v2"]) && g.rng.IntN(3) == 0 {
		// One record takes both schemas here.
		if g.types["histogram_samples_v2"] {
			rec, _ := g.encV2.HistogramSamples(ints(nativeHistogram, customHistogram), nil)
			g.push(rec)
		}
		if g.types["float_histogram_samples_v2"] {
			rec, _ := g.encV2.FloatHistogramSamples(floats(floatNativeHistogram, customFloatHistogram), nil)
			g.push(rec)
		}
		return
	}
	if g.types["histogram_samples"] {
		rec, _ := g.enc.HistogramSamples(ints(nativeHistogram), nil)
		g.push(rec)
	}
	if g.types["custom_buckets_histogram_samples"] {
		g.push(g.enc.CustomBucketsHistogramSamples(ints(customHistogram), nil))
	}
	if g.types["float_histogram_samples"] {
		rec, _ := g.enc.FloatHistogramSamples(floats(floatNativeHistogram), nil)
		g.push(rec)
	}
	if g.types["custom_buckets_float_histogram_samples"] {
		g.push(g.enc.CustomBucketsFloatHistogramSamples(floats(customFloatHistogram), nil))
	}
}

// histogram observes some more values and gives the histogram as it then is.
func (g *generator) histogram(s *series) *histogram.Histogram {
	if g.rng.IntN(200) == 0 {
		return &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	}
	for range g.rng.IntN(6) {
		s.counts[g.rng.IntN(len(s.counts))] += int64(1 + g.rng.IntN(20))
		s.sum += float64(g.rng.IntN(100)) / 8
	}
	h := &histogram.Histogram{
		Schema: s.schema, Sum: s.sum, PositiveSpans: s.pos, NegativeSpans: s.neg, CustomValues: s.custom,
	}
	if s.custom == nil {
		s.zero += int64(g.rng.IntN(2))
		h.ZeroThreshold, h.ZeroCount = 0.001, uint64(s.zero)
		if g.rng.IntN(50) == 0 {
			h.CounterResetHint = histogram.CounterReset
		}
	}
	h.Count = h.ZeroCount
	npos := 0
	for _, span := range s.pos {
		npos += int(span.Length)
	}
	last := int64(0)
	for i, c := range s.counts {
		if i == npos {
			last = 0
		}
		if i < npos {
			h.PositiveBuckets = append(h.PositiveBuckets, c-last)
		} else {
			h.NegativeBuckets = append(h.NegativeBuckets, c-last)
		}
		last = c
		h.Count += uint64(c)
	}
	return h
}

func (g *generator) spans() (spans []histogram.Span, buckets int) {
	for i := range 1 + g.rng.IntN(4) {
		s := histogram.Span{Offset: int32(g.rng.IntN(9) - 4), Length: uint32(1 + g.rng.IntN(6))}
		if i > 0 {
			s.Offset = int32(1 + g.rng.IntN(5))
		}
		spans = append(spans, s)
		buckets += int(s.Length)
	}
	return spans, buckets
}

func (g *generator) addSeries(t *target, n int) (fresh []*series) {
	for i := range n {
		g.lastRef++
		g.series++
		s := &series{ref: g.lastRef, kind: seriesKind(g.rng.IntN(3))}
		switch {
		case n >= 14 && i < 8:
			s.kind = nativeHistogram + seriesKind(i%4) // Every target has two of each.
		case g.rng.IntN(25) == 0:
			s.kind = nativeHistogram + seriesKind(g.rng.IntN(4))
		}
		g.shape(s)
		s.labels = g.labels(t, s)
		t.series = append(t.series, s)
		fresh = append(fresh, s)
	}
	return fresh
}

func (g *generator) shape(s *series) {
	switch s.kind {
	case nativeHistogram, floatNativeHistogram:
		var npos, nneg int
		s.schema = int32(g.rng.IntN(13) - 4)
		s.pos, npos = g.spans()
		if g.rng.IntN(3) == 0 {
			s.neg, nneg = g.spans()
		}
		s.counts = make([]int64, npos+nneg)
	case customHistogram, customFloatHistogram:
		s.schema = histogram.CustomBucketsSchema
		n := 2 + g.rng.IntN(10)
		for i := range n {
			s.custom = append(s.custom, 0.005*math.Pow(2.5, float64(i)))
		}
		s.pos = []histogram.Span{{Offset: 0, Length: uint32(n + 1)}}
		s.counts = make([]int64, n+1)
	}
}

func (g *generator) labels(t *target, s *series) labels.Labels {
	pairs := []string{"instance", t.instance, "job", t.job}
	name := pick(g.rng, gaugeNames)
	switch {
	case !s.kind.isFloat():
		name = pick(g.rng, histogramNames)
		pairs = append(pairs, "handler", pick(g.rng, handlers))
	case s.kind == counter:
		name = pick(g.rng, counterNames)
		if strings.HasSuffix(name, "_bucket") {
			pairs = append(pairs, "le", pick(g.rng, bounds))
		}
		pairs = append(pairs, "handler", pick(g.rng, handlers), "code", pick(g.rng, codes))
	}
	// What tells series of the same name apart; the ref makes every label set unique.
	pairs = append(pairs, "__name__", name, pick(g.rng, idNames), fmt.Sprint(uint64(s.ref)))
	if g.p.longLabels > 200 && g.rng.IntN(40) == 0 {
		n := 200 + g.rng.IntN(g.p.longLabels-200)
		pairs = append(pairs, "user_agent", strings.Repeat("Mozilla/5.0 (X11; Linux) ", n/25+1)[:n])
	}
	if g.rng.IntN(60) == 0 {
		pairs = append(pairs, "région", "île-de-france €") // Names may be UTF-8 since 3.0.
	}
	return labels.FromStrings(pairs...)
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }

var (
	jobs         = []string{"prometheus", "node", "api-server", "kubelet", "postgres_exporter"}
	counterNames = []string{
		"http_requests_total", "node_cpu_seconds_total", "http_request_duration_seconds_bucket",
		"http_request_duration_seconds_count", "http_request_duration_seconds_sum", "process_cpu_seconds_total",
		"go_gc_duration_seconds_count", "container_network_receive_bytes_total",
	}
	gaugeNames = []string{
		"up", "go_goroutines", "node_memory_MemFree_bytes", "process_resident_memory_bytes", "scrape_duration_seconds",
		"scrape_samples_scraped", "node_load1", "kube_pod_status_phase",
	}
	histogramNames = []string{
		"rpc_duration_seconds", "prometheus_http_request_duration_seconds", "apiserver_request_sli_duration_seconds",
	}
	handlers = []string{"/", "/metrics", "/api/v1/query", "/api/v1/query_range", "/-/ready", "/api/v1/labels"}
	codes    = []string{"200", "204", "302", "400", "404", "500", "503"}
	bounds   = []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"}
	idNames  = []string{"id", "pod", "device", "cpu"}
	units    = []string{"", "", "seconds", "bytes", "ratio"}
	helps    = []string{
		"", "Total number of HTTP requests.", "Seconds the CPUs spent in each mode.",
		"Number of goroutines that currently exist.",
		"Resident memory size in bytes, as the operating system accounts for it: \"RSS\" \\ shared pages included.",
		"Durée d'une requête en secondes – 日本語.",
	}
)
