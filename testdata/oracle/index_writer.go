package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// indexInput is one thing that an index was made of. Strings are hexadecimal: not all of them are UTF-8.
type indexInput struct {
	Symbol *string     `json:"symbol,omitempty"`
	Labels [][2]string `json:"labels,omitempty"`
	Chunks []chunkMeta `json:"chunks,omitempty"`
}

type chunkMeta struct {
	Ref     uint64 `json:"ref"`
	MinTime int64  `json:"min_time"`
	MaxTime int64  `json:"max_time"`
}

// runIndex writes a random index, and prints what it is made of, one JSON document a line: all symbols, then all series.
func runIndex(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("index", flag.ContinueOnError)
	seed := flags.Int64("seed", 0, "of the index")
	count := flags.Int("series", 400, "at most how many series")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	rng := rand.New(rand.NewSource(*seed))
	series := randomIndexSeries(rng, rng.Intn(*count+1))

	// A table of symbols has more than the series need where a block was made of others.
	strs := map[string]struct{}{"": {}}
	for range rng.Intn(3) {
		strs[randomString(rng)] = struct{}{}
	}
	for _, lset := range series {
		lset.Range(func(l labels.Label) {
			strs[l.Name], strs[l.Value] = struct{}{}, struct{}{}
		})
	}
	w, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	for _, s := range slices.Sorted(maps.Keys(strs)) {
		if err := w.AddSymbol(s); err != nil {
			return err
		}
		text := hex.EncodeToString([]byte(s))
		if err := encoder.Encode(indexInput{Symbol: &text}); err != nil {
			return err
		}
	}
	next := uint64(0)
	for i, lset := range series {
		in := indexInput{Chunks: randomChunkMetas(rng, &next)}
		metas := make([]chunks.Meta, 0, len(in.Chunks))
		for _, c := range in.Chunks {
			metas = append(metas, chunks.Meta{Ref: chunks.ChunkRef(c.Ref), MinTime: c.MinTime, MaxTime: c.MaxTime})
		}
		lset.Range(func(l labels.Label) {
			in.Labels = append(in.Labels, [2]string{hex.EncodeToString([]byte(l.Name)), hex.EncodeToString([]byte(l.Value))})
		})
		if err := w.AddSeries(storage.SeriesRef(i+1), lset, metas...); err != nil {
			return err
		}
		if err := encoder.Encode(in); err != nil {
			return err
		}
	}
	return w.Close()
}

// randomIndexSeries are in order. Some names have one value, some one for each series, and some not every series has.
func randomIndexSeries(rng *rand.Rand, count int) []labels.Labels {
	type name struct {
		text   string
		values []string // None: another one each time.
		share  int      // Of a hundred series.
	}
	names := []name{{text: "__name__", share: 100}}
	for range 1 + rng.Intn(10) {
		names = append(names, name{text: randomString(rng), share: 1 + rng.Intn(100)})
	}
	for i := range names {
		for range []int{0, 1, 3, 10, 100}[rng.Intn(5)] {
			names[i].values = append(names[i].values, randomString(rng))
		}
	}
	var series []labels.Labels
	for range count {
		values := map[string]string{}
		for _, n := range names {
			if rng.Intn(100) < n.share {
				if len(n.values) == 0 {
					values[n.text] = fmt.Sprintf("%s %d", randomString(rng), rng.Intn(1_000_000))
				} else {
					values[n.text] = n.values[rng.Intn(len(n.values))]
				}
			}
		}
		// Prometheus has no label without a value, and no series without a label.
		maps.DeleteFunc(values, func(_, value string) bool { return value == "" })
		if len(values) > 0 {
			series = append(series, labels.FromMap(values))
		}
	}
	slices.SortFunc(series, labels.Compare)
	return slices.CompactFunc(series, labels.Equal)
}

// randomString is not empty.
func randomString(rng *rand.Rand) string {
	words := []string{"a", "b", "job", "instance", "host-", "0", "9", "_", "é", "日本", "\x00", "\xff", "\U0001F4C8", "Z"}
	n := 1 + rng.Intn(4)
	if rng.Intn(150) == 0 {
		n = 1 + rng.Intn(10_000)
	}
	var text strings.Builder
	for range n {
		text.WriteString(words[rng.Intn(len(words))])
	}
	return text.String()
}

// randomChunkMetas are in order, and their refs go on from those before; now and then all is as large as it can be.
func randomChunkMetas(rng *rand.Rand, next *uint64) []chunkMeta {
	var metas []chunkMeta
	t := rng.Int63n(2_000_000_000_000) - 500_000_000_000
	if rng.Intn(50) == 0 {
		t = math.MinInt64
	}
	count := rng.Intn(4)
	if rng.Intn(20) == 0 {
		count = rng.Intn(300)
	}
	for range count {
		c := chunkMeta{Ref: *next, MinTime: t, MaxTime: t + rng.Int63n(2)*rng.Int63n(10_000_000)}
		last := rng.Intn(200) == 0
		if last {
			c.MaxTime = math.MaxInt64
		}
		metas = append(metas, c)
		if last {
			break
		}
		t = c.MaxTime + 1 + rng.Int63n(2)*rng.Int63n(100_000)
		switch rng.Intn(60) {
		case 0: // The next file.
			*next = max(*next, min(*next>>32+1, math.MaxUint32)<<32)
		case 1:
			*next += (math.MaxUint64 - *next) / 3
		case 2: // The same one again.
		default:
			*next += min(uint64(rng.Intn(3_000)), math.MaxUint64-*next)
		}
	}
	return metas
}

// blockFile is one thing that the other files of a block were made of.
type blockFile struct {
	Chunk     *writtenChunk     `json:"chunk,omitempty"`
	Tombstone *writtenTombstone `json:"tombstone,omitempty"`
	Meta      *tsdb.BlockMeta   `json:"meta,omitempty"`
}

type writtenChunk struct {
	Ref      uint64 `json:"ref"` // As the writer has set it.
	Encoding uint8  `json:"encoding"`
	Data     string `json:"data"` // Hexadecimal.
}

type writtenTombstone struct {
	Ref     uint64 `json:"ref"`
	MinTime int64  `json:"min_time"`
	MaxTime int64  `json:"max_time"`
}

// stones are tombstones in an order of their own: those of Prometheus are in that of a map.
type stones []tombstones.Stone

func (s stones) Get(storage.SeriesRef) (tombstones.Intervals, error) { return nil, nil }
func (s stones) Total() uint64                                       { return uint64(len(s)) }
func (s stones) Close() error                                        { return nil }
func (s stones) Iter(each func(storage.SeriesRef, tombstones.Intervals) error) error {
	for _, stone := range s {
		if err := each(stone.Ref, stone.Intervals); err != nil {
			return err
		}
	}
	return nil
}

// runBlockFiles writes the files of a block other than its index, each of random things that have nothing to do with the
// others, and prints what they are made of, one JSON document a line.
func runBlockFiles(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("blockfiles", flag.ContinueOnError)
	seed := flags.Int64("seed", 0, "of the files")
	segment := flags.Int64("segment-bytes", 4096, "of a file of chunks")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewSource(*seed))
	encoder := json.NewEncoder(out)

	w, err := chunks.NewWriter(filepath.Join(dir, "chunks"), chunks.WithSegmentSize(*segment))
	if err != nil {
		return err
	}
	for range 1 + rng.Intn(60) {
		encoding := chunkenc.Encoding(1 + rng.Intn(6))
		data := make([]byte, rng.Intn([]int{3, 130, 1000, 40_000}[rng.Intn(4)]))
		rng.Read(data)
		chunk, err := chunkenc.FromData(encoding, data)
		if err != nil {
			return err
		}
		metas := []chunks.Meta{{Chunk: chunk}}
		if err := w.WriteChunks(metas...); err != nil {
			return err
		}
		written := writtenChunk{Ref: uint64(metas[0].Ref), Encoding: uint8(encoding), Data: hex.EncodeToString(data)}
		if err := encoder.Encode(blockFile{Chunk: &written}); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}

	var all stones
	ref := storage.SeriesRef(0)
	for range rng.Intn(20) {
		ref += storage.SeriesRef(1 + rng.Int63n(1<<uint(1+rng.Intn(40))))
		stone := tombstones.Stone{Ref: ref}
		for range 1 + rng.Intn(3) {
			from := rng.Int63n(2_000_000_000_000) - 500_000_000_000
			interval := tombstones.Interval{Mint: from, Maxt: from + rng.Int63n(1<<40)}
			if rng.Intn(10) == 0 {
				interval = tombstones.Interval{Mint: math.MinInt64, Maxt: math.MaxInt64}
			}
			stone.Intervals = append(stone.Intervals, interval)
			written := writtenTombstone{Ref: uint64(ref), MinTime: interval.Mint, MaxTime: interval.Maxt}
			if err := encoder.Encode(blockFile{Tombstone: &written}); err != nil {
				return err
			}
		}
		all = append(all, stone)
	}
	if _, err := tombstones.WriteFile(slog.New(&logCollector{}), dir, all); err != nil {
		return err
	}

	meta := tsdb.BlockMeta{Version: 1, MinTime: rng.Int63() - rng.Int63(), MaxTime: rng.Int63() - rng.Int63()}
	rng.Read(meta.ULID[:])
	meta.Compaction.Level = 1
	meta.Compaction.Sources = append(meta.Compaction.Sources, meta.ULID)
	for _, number := range []*uint64{
		&meta.Stats.NumSamples, &meta.Stats.NumFloatSamples, &meta.Stats.NumHistogramSamples,
		&meta.Stats.NumSeries, &meta.Stats.NumChunks, &meta.Stats.NumTombstones,
	} {
		*number = uint64(rng.Intn(2)) * rng.Uint64()
	}
	// As writeMetaFile does (tsdb/block.go).
	text, err := json.MarshalIndent(meta, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), text, 0o666); err != nil {
		return err
	}
	return encoder.Encode(blockFile{Meta: &meta})
}
