package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// maxVerifyErrors is how many errors are listed; all are counted.
const maxVerifyErrors = 100

type verifyError struct {
	SeriesID uint64  `json:"series_id"`
	ChunkRef *uint64 `json:"chunk_ref"` // null: the series itself.
	Error    string  `json:"error"`
}

// verifyReport is what a block gives to a reader of all of it.
type verifyReport struct {
	OpenError        *string       `json:"open_error"`
	Series           int           `json:"series"`
	Chunks           int           `json:"chunks"` // That the index names.
	Samples          int           `json:"samples"`
	FloatSamples     int           `json:"float_samples"`
	HistogramSamples int           `json:"histogram_samples"`
	MinTime          *int64        `json:"min_time"` // Of the samples.
	MaxTime          *int64        `json:"max_time"`
	ErrorsCount      int           `json:"errors_count"`
	Errors           []verifyError `json:"errors"`
	PostingsError    *string       `json:"postings_error"`
	Symbols          int           `json:"symbols"`
	SymbolsError     *string       `json:"symbols_error"`
	Tombstones       [][3]int64    `json:"tombstones"` // Series id, first and last time.
	Seconds          float64       `json:"seconds"`    // To open, walk and decode it; the best of all rounds.

	dump io.Writer
}

type dumpedChunk struct {
	Ref      uint64   `json:"ref"`
	Min      int64    `json:"min"` // As the index says.
	Max      int64    `json:"max"`
	Encoding *uint8   `json:"encoding"` // null: the chunk cannot be read.
	CRCOk    bool     `json:"crc_ok"`
	Samples  []string `json:"samples"` // See formatSample.
	Error    *string  `json:"error"`
}

type dumpedSeries struct {
	ID     uint64        `json:"id"`
	Labels [][2]any      `json:"labels"`
	Chunks []dumpedChunk `json:"chunks"`
	Error  *string       `json:"error"` // Labels and chunks are left out then.
}

// runVerify reads all series and all chunks of a block, after an error the next one.
func runVerify(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	dump := flags.Bool("dump", false, "print the series and their samples, a line each, and the postings")
	rounds := flags.Int("rounds", 1, "how often it is read")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	if *rounds < 1 {
		return fmt.Errorf("%w: no rounds", errUsage)
	}
	var rep *verifyReport
	best := time.Duration(-1)
	for range *rounds {
		rep = &verifyReport{Errors: []verifyError{}, Tombstones: [][3]int64{}}
		begun := time.Now()
		block := rep.open(dir)
		if block != nil {
			rep.walk(block)
		}
		if took := time.Since(begun); best < 0 || took < best {
			best = took
		}
		if block == nil {
			continue
		}
		rep.countSymbols(block)
		if err := rep.listTombstones(block); err != nil {
			return err
		}
		if err := block.Close(); err != nil {
			return err
		}
	}
	if *dump {
		if err := dumpBlock(dir, out); err != nil {
			return err
		}
	}
	rep.Seconds = best.Seconds()
	return printJSON(out, rep)
}

// dumpBlock prints what a walk meets, and then the postings.
func dumpBlock(dir string, out io.Writer) error {
	again := &verifyReport{dump: out}
	block := again.open(dir)
	if block == nil {
		return nil
	}
	again.walk(block)
	if err := block.Close(); err != nil {
		return err
	}
	return dumpPostings(filepath.Join(dir, "index"), out)
}

// guarded makes an error of a panic.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

func (rep *verifyReport) open(dir string) (block *tsdb.Block) {
	rep.OpenError = text(guarded(func() (err error) {
		block, err = tsdb.OpenBlock(discard, dir, chunkenc.NewPool(), nil)
		return err
	}))
	return block
}

func (rep *verifyReport) fail(series uint64, chunk *uint64, err error) {
	rep.ErrorsCount++
	if len(rep.Errors) < maxVerifyErrors {
		rep.Errors = append(rep.Errors, verifyError{series, chunk, err.Error()})
	}
}

// walk reads the series that the list of all series names, with their chunks.
func (rep *verifyReport) walk(block *tsdb.Block) {
	rep.PostingsError = text(guarded(func() error {
		ir, err := block.Index()
		if err != nil {
			return err
		}
		defer ir.Close()
		cr, err := block.Chunks()
		if err != nil {
			return err
		}
		defer cr.Close()
		name, value := index.AllPostingsKey()
		all, err := ir.Postings(context.Background(), name, value)
		if err != nil {
			return err
		}
		v := &verifier{rep: rep, index: ir, chunks: cr}
		for all.Next() {
			if err := v.series(all.At()); err != nil {
				return err
			}
		}
		return all.Err()
	}))
}

type verifier struct {
	rep     *verifyReport
	index   tsdb.IndexReader
	chunks  tsdb.ChunkReader
	builder labels.ScratchBuilder
	metas   []chunks.Meta
	it      chunkenc.Iterator
}

func (v *verifier) series(id storage.SeriesRef) error {
	rep := v.rep
	rep.Series++
	v.metas = v.metas[:0]
	err := guarded(func() error { return v.index.Series(id, &v.builder, &v.metas) })
	if err != nil {
		rep.fail(uint64(id), nil, err)
	}
	var line *dumpedSeries
	if rep.dump != nil {
		line = &dumpedSeries{ID: uint64(id), Labels: [][2]any{}, Chunks: []dumpedChunk{}, Error: text(err)}
		if err == nil {
			v.builder.Labels().Range(func(l labels.Label) {
				line.Labels = append(line.Labels, [2]any{jsonText(l.Name), jsonText(l.Value)})
			})
		}
	}
	for i, meta := range v.metas {
		if err != nil {
			break
		}
		rep.Chunks++
		ref := uint64(meta.Ref)
		if i > 0 && meta.MinTime <= v.metas[i-1].MaxTime {
			// What index.Writer does not take, so a compaction fails.
			rep.fail(uint64(id), &ref, fmt.Errorf("not as indexed: it begins at %d, the chunk before it ends at %d",
				meta.MinTime, v.metas[i-1].MaxTime))
		}
		var dumped *dumpedChunk
		if line != nil {
			line.Chunks = append(line.Chunks, dumpedChunk{Ref: ref, Min: meta.MinTime, Max: meta.MaxTime, Samples: []string{}})
			dumped = &line.Chunks[i]
		}
		failed := guarded(func() error { return v.chunk(meta, dumped) })
		if failed != nil {
			v.it = nil
			rep.fail(uint64(id), &ref, failed)
			if dumped != nil {
				dumped.Error = text(failed)
			}
		}
	}
	if line == nil {
		return nil
	}
	return printJSON(rep.dump, line)
}

// chunk decodes a chunk, and compares it with what the index says of it.
func (v *verifier) chunk(meta chunks.Meta, dumped *dumpedChunk) error {
	chunk, _, err := v.chunks.ChunkOrIterable(meta)
	if err != nil {
		if dumped != nil {
			// The CRC is compared before the encoding is looked at.
			dumped.CRCOk = strings.HasPrefix(err.Error(), "invalid chunk encoding")
		}
		return err
	}
	if dumped != nil {
		encoding := uint8(chunk.Encoding())
		dumped.Encoding, dumped.CRCOk = &encoding, true
	}
	rep, count, first, last, ordered := v.rep, 0, int64(0), int64(0), true
	it := chunk.Iterator(v.it)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		t := it.AtT()
		if count == 0 {
			first = t
		} else if t <= last {
			ordered = false
		}
		last = t
		count++
		rep.Samples++
		if kind == chunkenc.ValFloat {
			rep.FloatSamples++
		} else {
			rep.HistogramSamples++
		}
		if rep.MinTime == nil || t < *rep.MinTime {
			rep.MinTime = &[]int64{t}[0]
		}
		if rep.MaxTime == nil {
			rep.MaxTime = &[]int64{t}[0]
		} else if t > *rep.MaxTime {
			*rep.MaxTime = t
		}
		if dumped != nil {
			dumped.Samples = append(dumped.Samples, formatSample(it, kind))
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	v.it = it
	switch {
	case count == 0:
		return fmt.Errorf("not as indexed: it has no samples")
	case count != chunk.NumSamples():
		return fmt.Errorf("not as indexed: it has %d samples, and says %d", count, chunk.NumSamples())
	case first != meta.MinTime:
		return fmt.Errorf("not as indexed: it begins at %d, indexed is %d", first, meta.MinTime)
	case last != meta.MaxTime:
		return fmt.Errorf("not as indexed: it ends at %d, indexed is %d", last, meta.MaxTime)
	case !ordered:
		return fmt.Errorf("not as indexed: its times do not increase")
	}
	return nil
}

func (rep *verifyReport) countSymbols(block *tsdb.Block) {
	rep.SymbolsError = text(guarded(func() error {
		ir, err := block.Index()
		if err != nil {
			return err
		}
		defer ir.Close()
		symbols := ir.Symbols()
		for symbols.Next() {
			rep.Symbols++
		}
		return symbols.Err()
	}))
}

func (rep *verifyReport) listTombstones(block *tsdb.Block) error {
	tr, err := block.Tombstones()
	if err != nil {
		return err
	}
	defer tr.Close()
	err = tr.Iter(func(ref storage.SeriesRef, intervals tombstones.Intervals) error {
		for _, i := range intervals {
			rep.Tombstones = append(rep.Tombstones, [3]int64{int64(ref), i.Mint, i.Maxt})
		}
		return nil
	})
	slices.SortFunc(rep.Tombstones, func(a, b [3]int64) int { return slices.Compare(a[:], b[:]) })
	return err
}

// dumpPostings prints every list of the postings table with the series it names; a list that cannot be read is null.
func dumpPostings(path string, out io.Writer) error {
	lists := [][3]any{}
	err := guarded(func() error {
		r, err := index.NewFileReader(path, index.DecodePostingsRaw)
		if err != nil {
			return err
		}
		defer r.Close()
		ctx := context.Background()
		list := func(name, value string) {
			var ids []uint64
			err := guarded(func() error {
				p, err := r.Postings(ctx, name, value)
				if err != nil {
					return err
				}
				ids = []uint64{}
				for p.Next() {
					ids = append(ids, uint64(p.At()))
				}
				return p.Err()
			})
			if err != nil {
				ids = nil
			}
			lists = append(lists, [3]any{jsonText(name), jsonText(value), ids})
		}
		list(index.AllPostingsKey())
		names, err := r.LabelNames(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			values, err := r.SortedLabelValues(ctx, name, nil)
			if err != nil {
				return err
			}
			for _, value := range values {
				list(name, value)
			}
		}
		return nil
	})
	if err != nil {
		return printJSON(out, map[string]any{"postings": lists, "error": err.Error()})
	}
	return printJSON(out, map[string]any{"postings": lists})
}

// jsonText is text, or the bytes of what is none.
func jsonText(s string) any {
	if utf8.ValidString(s) {
		return strings.Clone(s)
	}
	return json.RawMessage(`{"hex":"` + hex.EncodeToString([]byte(s)) + `"}`)
}
