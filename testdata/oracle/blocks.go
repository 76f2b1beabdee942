package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/bits"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

type blocksOptions struct {
	seed                                        int64
	blocks, series, chunks, samples, tombstones int
	encodings                                   []chunkenc.Encoding
	hard                                        bool
	spread                                      int64
}

// blocksEpoch is about when the blocks begin.
const blocksEpoch = int64(1_750_000_000_000)

// runBlocks writes blocks with Prometheus's own writers, as a server leaves them.
func runBlocks(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("blocks", flag.ContinueOnError)
	o := blocksOptions{}
	flags.Int64Var(&o.seed, "seed", 0, "of all that is random")
	flags.IntVar(&o.blocks, "blocks", 1, "how many, one after the other in time")
	flags.IntVar(&o.series, "series", 0, "how many; 0: 50, or with --big as many as make 18 h")
	flags.IntVar(&o.chunks, "chunks", 4, "of a series in a block, at most")
	flags.IntVar(&o.samples, "samples", 120, "of a chunk, at most")
	flags.IntVar(&o.tombstones, "tombstones", 0, "deleted intervals in each block")
	flags.BoolVar(&o.hard, "hard", false, "irregular times, long labels, many small chunk files, some long chunks")
	flags.Int64Var(&o.spread, "spread", 2*60*60*1000, "time range of a block, ms")
	encodings := flags.String("encodings", "1,2,3,4,5,6", "of the chunks")
	big := flags.Int64("big", 0, "one block with this many bytes of chunks, for measurements")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	for _, name := range strings.Split(*encodings, ",") {
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil || n < 1 || n > 6 {
			return fmt.Errorf("%w: no such encoding: %s", errUsage, name)
		}
		o.encodings = append(o.encodings, chunkenc.Encoding(n))
	}
	if o.blocks < 1 || o.series < 0 || o.chunks < 1 || o.samples < 1 || o.tombstones < 0 || *big < 0 || o.spread < int64(10*o.chunks) ||
		o.samples > math.MaxUint16>>2 {
		return fmt.Errorf("%w: nothing to be written", errUsage)
	}
	var ids []string
	if *big > 0 {
		ids, err = bigBlock(dir, *big, o)
	} else {
		ids, err = randomBlocks(dir, o)
	}
	if err != nil {
		return err
	}
	return printJSON(out, ids)
}

// blockWriter writes one block, with the files of Prometheus's own writers.
type blockWriter struct {
	dir    string
	meta   tsdb.BlockMeta
	chunks *chunks.Writer
	index  *index.Writer
	series storage.SeriesRef
}

// newBlockWriter begins a block of the series given, which are sorted.
func newBlockWriter(parent string, rng *rand.Rand, mint, maxt, segmentSize int64, series []labels.Labels) (*blockWriter, error) {
	id, err := ulid.New(uint64(maxt), rng)
	if err != nil {
		return nil, err
	}
	w := &blockWriter{dir: filepath.Join(parent, id.String())}
	w.meta = tsdb.BlockMeta{ULID: id, MinTime: mint, MaxTime: maxt, Version: 1}
	w.meta.Compaction.Level = 1
	w.meta.Compaction.Sources = []ulid.ULID{id}
	if w.chunks, err = chunks.NewWriter(filepath.Join(w.dir, "chunks"), chunks.WithSegmentSize(segmentSize)); err != nil {
		return nil, err
	}
	if w.index, err = index.NewWriter(context.Background(), filepath.Join(w.dir, "index")); err != nil {
		return nil, err
	}
	symbols := map[string]struct{}{"": {}}
	for _, lset := range series {
		lset.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = struct{}{}, struct{}{} })
	}
	for _, symbol := range slices.Sorted(maps.Keys(symbols)) {
		if err := w.index.AddSymbol(symbol); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *blockWriter) add(lset labels.Labels, metas []chunks.Meta) error {
	if err := w.chunks.WriteChunks(metas...); err != nil {
		return err
	}
	if err := w.index.AddSeries(w.series, lset, metas...); err != nil {
		return err
	}
	w.series++
	w.meta.Stats.NumSeries++
	w.meta.Stats.NumChunks += uint64(len(metas))
	for _, meta := range metas {
		n := uint64(meta.Chunk.NumSamples())
		w.meta.Stats.NumSamples += n
		switch meta.Chunk.Encoding() {
		case chunkenc.EncXOR, chunkenc.EncXOR2:
			w.meta.Stats.NumFloatSamples += n
		default:
			w.meta.Stats.NumHistogramSamples += n
		}
	}
	return nil
}

// finish ends the files, and writes meta.json and tombstones of random series.
func (w *blockWriter) finish(rng *rand.Rand, deletions int) (string, error) {
	if err := w.chunks.Close(); err != nil {
		return "", err
	}
	if err := w.index.Close(); err != nil {
		return "", err
	}
	deleted := sortedTombstones{tombstones.NewMemTombstones()}
	if deletions > 0 {
		refs, err := seriesRefs(filepath.Join(w.dir, "index"))
		if err != nil {
			return "", err
		}
		for range deletions {
			from := w.meta.MinTime + rng.Int63n(w.meta.MaxTime-w.meta.MinTime)
			to := min(from+rng.Int63n(1+(w.meta.MaxTime-w.meta.MinTime)/4), w.meta.MaxTime-1)
			deleted.AddInterval(refs[rng.Intn(len(refs))], tombstones.Interval{Mint: from, Maxt: to})
		}
		w.meta.Stats.NumTombstones = deleted.Total()
	}
	if _, err := tombstones.WriteFile(discard, w.dir, deleted); err != nil {
		return "", err
	}
	meta, err := json.MarshalIndent(&w.meta, "", "\t")
	if err != nil {
		return "", err
	}
	return w.meta.ULID.String(), os.WriteFile(filepath.Join(w.dir, "meta.json"), meta, 0o666)
}

// sortedTombstones goes through the series in order, where a map has none.
type sortedTombstones struct{ *tombstones.MemTombstones }

func (t sortedTombstones) Iter(f func(storage.SeriesRef, tombstones.Intervals) error) error {
	all := map[storage.SeriesRef]tombstones.Intervals{}
	if err := t.MemTombstones.Iter(func(ref storage.SeriesRef, i tombstones.Intervals) error {
		all[ref] = i
		return nil
	}); err != nil {
		return err
	}
	for _, ref := range slices.Sorted(maps.Keys(all)) {
		if err := f(ref, all[ref]); err != nil {
			return err
		}
	}
	return nil
}

func seriesRefs(path string) ([]storage.SeriesRef, error) {
	r, err := index.NewFileReader(path, index.DecodePostingsRaw)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	name, value := index.AllPostingsKey()
	all, err := r.Postings(context.Background(), name, value)
	if err != nil {
		return nil, err
	}
	return index.ExpandPostings(all)
}

// randomBlocks writes blocks of the same series, of which each lacks some.
func randomBlocks(dir string, o blocksOptions) (ids []string, err error) {
	rng := rand.New(rand.NewSource(o.seed))
	if o.series == 0 {
		o.series = 50
	}
	all := randomSeries(rng, o)
	from := blocksEpoch / o.spread * o.spread
	for block := range o.blocks {
		mint := from + int64(block)*o.spread
		var series []labels.Labels
		for _, lset := range all {
			if rng.Intn(10) > 0 {
				series = append(series, lset)
			}
		}
		if len(series) == 0 {
			series = all[:1]
		}
		segmentSize := int64(16 << 20)
		if o.hard {
			segmentSize = 16<<10 + rng.Int63n(64<<10)
		}
		w, err := newBlockWriter(dir, rng, mint, mint+o.spread, segmentSize, series)
		if err != nil {
			return nil, err
		}
		for _, lset := range series {
			metas, err := randomChunks(rng, o, mint)
			if err != nil {
				return nil, err
			}
			if err := w.add(lset, metas); err != nil {
				return nil, err
			}
		}
		id, err := w.finish(rng, o.tombstones)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// randomChunks are the chunks of a series in a block: each has its part of the time.
func randomChunks(rng *rand.Rand, o blocksOptions, mint int64) (metas []chunks.Meta, err error) {
	count := 1 + rng.Intn(o.chunks)
	width := o.spread / int64(count)
	encoding := o.encodings[rng.Intn(len(o.encodings))]
	for i := range count {
		if rng.Intn(8) == 0 {
			encoding = o.encodings[rng.Intn(len(o.encodings))]
		}
		samples := 1 + rng.Intn(o.samples)
		switch {
		case rng.Intn(4) > 0:
			samples = o.samples
		case o.hard && rng.Intn(4) == 0:
			samples = 1 + rng.Intn(3)
		case o.hard && rng.Intn(8) == 0:
			samples = min(4*o.samples, math.MaxUint16>>2)
		}
		shape := chunkShape{samples: samples, t: mint + int64(i)*width - 1, latest: mint + int64(i+1)*width - 1}
		shape.step = max(1, width*4/5/int64(samples+1))
		shape.steadiness = 1 + rng.Intn(3)
		shape.jitter = max(1, min(shape.step, 2000))
		shape.jump = min(bits.Len64(uint64(width/int64(samples)))+1, bits.Len64(uint64(width))-1)
		if o.hard {
			shape.steadiness = rng.Intn(4)
		}
		if !o.hard || rng.Intn(4) > 0 {
			shape.t += rng.Int63n(width/10 + 1)
		}
		chunk, err := shapedChunk(rng, encoding, shape)
		if err != nil {
			return nil, err
		}
		first, last, err := chunkTimes(chunk)
		if err != nil {
			return nil, err
		}
		if chunk.NumSamples() > 0 {
			metas = append(metas, chunks.Meta{Chunk: chunk, MinTime: first, MaxTime: last})
		}
	}
	if len(metas) == 0 {
		return randomChunks(rng, o, mint)
	}
	return metas, nil
}

func chunkTimes(chunk chunkenc.Chunk) (first, last int64, err error) {
	it := chunk.Iterator(nil)
	for i := 0; it.Next() != chunkenc.ValNone; i++ {
		if last = it.AtT(); i == 0 {
			first = last
		}
	}
	return first, last, it.Err()
}

// randomSeries are sorted labels: of few values and of many, short ones and such that are hard to print.
func randomSeries(rng *rand.Rand, o blocksOptions) []labels.Labels {
	odd := []string{" ", "0", "\n", `"`, "\u200b", "=", "größe", "例え", "😀", "a\\b", "\x01"}
	type dimension struct {
		name   string
		values int
	}
	dimensions := []dimension{{"instance", 3}, {"job", 2}, {"path", 40}, {"uid", 1_000_000}, {"größe", 5}, {"http.status-code", 9}}
	value := func(d dimension) string {
		n := rng.Intn(d.values)
		switch {
		case rng.Intn(25) == 0:
			return odd[rng.Intn(len(odd))]
		case rng.Intn(60) == 0:
			return strings.Repeat("long ", 40+rng.Intn(100)) + fmt.Sprint(n)
		case o.hard && rng.Intn(100) == 0:
			return strings.Repeat("ü", 10_000+rng.Intn(20_000)) + fmt.Sprint(n)
		}
		return fmt.Sprintf("%s-%d", d.name, n)
	}
	unique := map[string]labels.Labels{}
	for len(unique) < o.series {
		b := labels.NewScratchBuilder(len(dimensions))
		b.Add(labels.MetricName, value(dimension{"metric", 1 + o.series/8}))
		for _, d := range dimensions {
			if rng.Intn(3) > 0 {
				b.Add(d.name, value(d))
			}
		}
		b.Sort()
		unique[b.Labels().String()] = b.Labels()
	}
	all := slices.Collect(maps.Values(unique))
	slices.SortFunc(all, labels.Compare)
	return all
}

const (
	bigInterval = 15_000 // ms between scrapes.
	bigSamples  = 120    // Of a chunk.
	bigSlot     = int64(bigInterval * bigSamples)
	bigPool     = 2000 // Chunks that differ in more than their time.
)

// bigBlock writes a block of counters and gauges. Its chunks are taken from a pool, and get the time of their place.
func bigBlock(dir string, size int64, o blocksOptions) ([]string, error) {
	rng := rand.New(rand.NewSource(o.seed))
	pool, average, err := bigChunks(rng)
	if err != nil {
		return nil, err
	}
	total := max(1, size/average)
	slots := int64(36)
	if o.series > 0 {
		slots = max(1, total/int64(o.series))
	} else {
		o.series = int((total + slots - 1) / slots)
	}
	// Whole multiples of 2 h, of which each has four chunks of a series.
	spread := (slots + 3) / 4 * 4 * bigSlot
	mint := blocksEpoch / spread * spread
	series := make([]labels.Labels, o.series)
	for i := range series {
		series[i] = labels.FromStrings("__name__", fmt.Sprintf("http_request_duration_seconds_%d", i%100), "instance",
			fmt.Sprintf("host-%d:9100", i/1000), "job", "node", "path", fmt.Sprintf("/api/v1/%d", i%1000))
	}
	slices.SortFunc(series, labels.Compare)
	w, err := newBlockWriter(dir, rng, mint, mint+spread, chunks.DefaultChunkSegmentSize, series)
	if err != nil {
		return nil, err
	}
	metas := make([]chunks.Meta, slots)
	buffers := make([][]byte, slots)
	for i := range metas {
		metas[i].Chunk = chunkenc.NewXORChunk()
	}
	for _, lset := range series {
		for i := range metas {
			from := &pool[rng.Intn(len(pool))]
			at := mint + int64(i)*bigSlot
			metas[i].MinTime, metas[i].MaxTime = at+from.first, at+from.last
			if buffers[i], err = from.at(metas[i].MinTime, buffers[i]); err != nil {
				return nil, err
			}
			metas[i].Chunk.Reset(buffers[i])
		}
		if err := w.add(lset, metas); err != nil {
			return nil, err
		}
	}
	id, err := w.finish(rng, o.tombstones)
	return []string{id}, err
}

// bigChunk is a chunk, and its times after the beginning of its slot.
type bigChunk struct {
	first, last int64
	data        []byte
}

// at gives the chunk another time, of which the data says only the first.
func (c *bigChunk) at(first int64, buffer []byte) ([]byte, error) {
	_, old := binary.Varint(c.data[2:])
	buffer = append(buffer[:0], c.data[:2]...)
	buffer = binary.AppendVarint(buffer, first)
	if len(buffer) != 2+old {
		return nil, fmt.Errorf("%d has another length than %d bytes", first, old)
	}
	return append(buffer, c.data[2+old:]...), nil
}

// bigChunks are float chunks as of counters and gauges, and their average length in a file.
func bigChunks(rng *rand.Rand) (pool []bigChunk, average int64, err error) {
	for i := range bigPool {
		chunk := chunkenc.NewXORChunk()
		app, err := chunk.Appender()
		if err != nil {
			return nil, 0, err
		}
		offset := 10 + rng.Int63n(bigInterval-20)
		c := bigChunk{}
		v := 0.0
		if i%3 > 0 {
			v = float64(rng.Intn(1 << 20))
		}
		for n := range int64(bigSamples) {
			t := offset + n*bigInterval
			if rng.Intn(3) == 0 {
				t += rng.Int63n(9) - 4
			}
			if n == 0 {
				c.first = t
			}
			c.last = t
			if i%3 == 0 {
				v = math.Round(rng.NormFloat64()*1000) / 10
			} else if rng.Intn(4) > 0 {
				v += float64(rng.Intn(50))
			}
			app.Append(0, blocksEpoch+t, v)
		}
		c.data = slices.Clone(chunk.Bytes())
		average += int64(len(c.data)) + 2 + 1 + 4
		pool = append(pool, c)
	}
	return pool, average / bigPool, nil
}
