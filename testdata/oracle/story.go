package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

const pageSize = 32 << 10

// noon is 2025-06-15 12:00:00 UTC in ms: the time around which the fixtures play.
const noon = int64(1_749_988_800_000)

// tree is a data directory: contents by slash-separated path.
type tree map[string][]byte

func (f tree) clone() tree {
	c := tree{}
	for name, b := range f {
		c[name] = append([]byte(nil), b...)
	}
	return c
}

// write puts the files into dir, which is made anew.
func (f tree) write(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for name, b := range f {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// segmentBytes gives what Prometheus writes for these records: padded, as when the segment is closed or
// the next one begun, or as a kill leaves it.
func segmentBytes(recs [][]byte, compression string, padded bool) ([]byte, error) {
	dir, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	lw := &logWriter{dir: dir, o: writeOptions{segmentBytes: wlog.DefaultSegmentSize}}
	if err := lw.open(compression); err != nil {
		return nil, err
	}
	for _, rec := range recs {
		if err := lw.log(rec); err != nil {
			return nil, err
		}
	}
	if err := lw.close(!padded); err != nil {
		return nil, err
	}
	return os.ReadFile(wlog.SegmentName(dir, 0))
}

type storySeries struct {
	ref     chunks.HeadSeriesRef
	labels  labels.Labels
	value   float64
	counter bool
}

// scraped is a target that is scraped every 15 s.
type scraped struct {
	offset int64 // Of its scrapes within the interval, ms.
	series []*storySeries
}

const scrapeInterval = int64(15_000)

// story makes the records of a server that scrapes a few targets, by its clock.
type story struct {
	rng     *rand.Rand
	enc     record.Encoder
	lastRef chunks.HeadSeriesRef
	now     int64
	targets []*scraped
}

func newStory(start int64) *story {
	return &story{rng: rand.New(rand.NewPCG(20250615, 12)), now: start}
}

func (s *story) add(lset labels.Labels, counter bool) *storySeries {
	s.lastRef++
	return &storySeries{ref: s.lastRef, labels: lset, counter: counter, value: float64(s.rng.IntN(5000))}
}

// target begins to scrape a target; the record is that of its series.
func (s *story) target(lsets []labels.Labels) []byte {
	t := &scraped{offset: int64(len(s.targets)*4211+137) % scrapeInterval}
	for _, lset := range lsets {
		name := lset.Get(labels.MetricName)
		counter := strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_bucket") ||
			strings.HasSuffix(name, "_count") || strings.HasSuffix(name, "_sum")
		t.series = append(t.series, s.add(lset, counter))
	}
	s.targets = append(s.targets, t)
	return s.seriesRecord(t.series)
}

func (s *story) seriesRecord(series []*storySeries) []byte {
	var refs []record.RefSeries
	for _, one := range series {
		refs = append(refs, record.RefSeries{Ref: one.ref, Labels: one.labels})
	}
	return s.enc.Series(refs, nil)
}

// scrapes gives the records of n rounds of scrapes, one a target as headAppender.log (tsdb/head_append.go)
// writes them.
func (s *story) scrapes(n int) (recs [][]byte) {
	for range n {
		s.now += scrapeInterval
		for _, t := range s.targets {
			var samples []record.RefSample
			for _, one := range t.series {
				if !one.counter {
					one.value = math.Floor(s.rng.NormFloat64()*1e4) / 128
				} else if s.rng.IntN(3) > 0 {
					one.value += float64(s.rng.IntN(50))
				}
				samples = append(samples, record.RefSample{Ref: one.ref, T: s.now + t.offset, V: one.value})
			}
			recs = append(recs, s.enc.Samples(samples, nil))
		}
	}
	return recs
}

// stale gives the record of the staleness markers of series that have vanished.
func (s *story) stale(series []*storySeries, t int64) []byte {
	var samples []record.RefSample
	for _, one := range series {
		samples = append(samples, record.RefSample{Ref: one.ref, T: t, V: math.Float64frombits(value.StaleNaN)})
	}
	return s.enc.Samples(samples, nil)
}

// nodeLabels are some series of a node_exporter, 37 with two CPUs.
func nodeLabels(instance string, cpus int) (lsets []labels.Labels) {
	add := func(name string, more ...string) {
		lsets = append(lsets, labels.FromStrings(append([]string{
			labels.MetricName, name, "instance", instance, "job", "node",
		}, more...)...))
	}
	add("up")
	add("scrape_duration_seconds")
	add("scrape_samples_scraped")
	add("node_load1")
	add("node_load5")
	add("node_memory_MemAvailable_bytes")
	add("node_memory_MemFree_bytes")
	add("node_boot_time_seconds")
	for cpu := range cpus {
		for _, mode := range []string{"idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"} {
			add("node_cpu_seconds_total", "cpu", fmt.Sprint(cpu), "mode", mode)
		}
	}
	for _, device := range []string{"eth0", "lo"} {
		add("node_network_receive_bytes_total", "device", device)
		add("node_network_transmit_bytes_total", "device", device)
	}
	for _, mount := range []string{"/", "/boot", "/var/lib/prometheus"} {
		add("node_filesystem_avail_bytes", "device", "/dev/sda1", "fstype", "ext4", "mountpoint", mount)
		add("node_filesystem_size_bytes", "device", "/dev/sda1", "fstype", "ext4", "mountpoint", mount)
		add("node_filesystem_files_free", "device", "/dev/sda1", "fstype", "ext4", "mountpoint", mount)
	}
	return lsets
}

// httpLabels are the series of an application with classic histograms: 9 for each handler, and up.
func httpLabels(instance string, handlers ...string) (lsets []labels.Labels) {
	add := func(name string, more ...string) {
		lsets = append(lsets, labels.FromStrings(append([]string{
			labels.MetricName, name, "instance", instance, "job", "api",
		}, more...)...))
	}
	add("up")
	for _, handler := range handlers {
		for _, le := range []string{"0.005", "0.025", "0.1", "0.5", "2.5", "+Inf"} {
			add("http_request_duration_seconds_bucket", "handler", handler, "le", le)
		}
		add("http_request_duration_seconds_sum", "handler", handler)
		add("http_request_duration_seconds_count", "handler", handler)
		add("http_requests_in_flight", "handler", handler)
	}
	return lsets
}

// fragment is one fragment of a segment: header and data from off to end.
type fragment struct {
	off, end int64
	typ      byte
	flags    byte
}

// fragments reads healthy bytes: it believes every length.
func fragments(b []byte) (all []fragment) {
	for page := 0; page < len(b); page += pageSize {
		p := b[page:min(page+pageSize, len(b))]
		for i := 0; i+7 <= len(p) && p[i]&7 != 0; {
			n := 7 + int(p[i+1])<<8 + int(p[i+2])
			all = append(all, fragment{int64(page + i), int64(page + i + n), p[i] & 7, p[i] &^ 7})
			i += n
		}
	}
	return all
}
