package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

type headChunk struct {
	Ref        string  `json:"ref"`
	ChunkRef   string  `json:"chunk_ref"`
	MinTime    string  `json:"min_time"`
	MaxTime    string  `json:"max_time"`
	Encoding   uint8   `json:"encoding"`
	OutOfOrder bool    `json:"out_of_order"`
	Peeked     uint16  `json:"peeked"`            // What IterateAllChunks takes for the number of samples.
	Samples    *int    `json:"samples,omitempty"` // With --decode: what the chunk itself says, if its encoding is known.
	Stale      *int    `json:"stale,omitempty"`   // With --decode: staleness markers among them.
	Times      []int64 `json:"times,omitempty"`   // With --decode: of the others, ms.
}

type headChunksReport struct {
	OpenError    *string     `json:"open_error"`
	Deleted      []string    `json:"deleted"`       // By opening the directory.
	IterateError *string     `json:"iterate_error"` // Chunks are those before it.
	Chunks       []headChunk `json:"chunks"`
}

// runChunks reads a chunks_head as a start does, in a copy: opening it may delete a file.
func runChunks(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("chunks", flag.ContinueOnError)
	decode := flags.Bool("decode", false, "count the samples in the chunks")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "oracle-chunks-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	copied := filepath.Join(tmp, "chunks_head")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		return err
	}
	named := func(err error) *string {
		if err == nil {
			return nil
		}
		s := strings.ReplaceAll(err.Error(), copied, "chunks_head")
		return &s
	}
	rep := &headChunksReport{Deleted: []string{}, Chunks: []headChunk{}}
	before, err := listFiles(copied)
	if err != nil {
		return err
	}
	mapper, err := chunks.NewChunkDiskMapper(nil, copied, chunkenc.NewPool(), chunks.DefaultWriteBufferSize, 0)
	rep.OpenError = named(err)
	after, lerr := listFiles(copied)
	if lerr != nil {
		return lerr
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			rep.Deleted = append(rep.Deleted, name)
		}
	}
	if err != nil {
		return printJSON(out, rep)
	}
	defer mapper.Close()
	rep.IterateError = named(mapper.IterateAllChunks(func(ref chunks.HeadSeriesRef, chunkRef chunks.ChunkDiskMapperRef,
		mint, maxt int64, peeked uint16, encoding chunkenc.Encoding, ooo bool,
	) error {
		rep.Chunks = append(rep.Chunks, headChunk{
			Ref: fmt.Sprint(uint64(ref)), ChunkRef: fmt.Sprint(uint64(chunkRef)), MinTime: fmt.Sprint(mint), MaxTime: fmt.Sprint(maxt),
			Encoding: uint8(encoding), OutOfOrder: ooo, Peeked: peeked,
		})
		return nil
	}))
	for i := range rep.Chunks {
		if !*decode {
			break
		}
		c := &rep.Chunks[i]
		var ref uint64
		fmt.Sscan(c.ChunkRef, &ref)
		chunk, err := mapper.Chunk(chunks.ChunkDiskMapperRef(ref))
		if err != nil {
			continue
		}
		samples, stale := chunk.NumSamples(), 0
		it := chunk.Iterator(nil)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			var sum float64
			switch vt {
			case chunkenc.ValFloat:
				_, sum = it.At()
			case chunkenc.ValHistogram:
				_, h := it.AtHistogram(nil)
				sum = h.Sum
			default:
				_, h := it.AtFloatHistogram(nil)
				sum = h.Sum
			}
			if value.IsStaleNaN(sum) {
				stale++
			} else {
				c.Times = append(c.Times, it.AtT())
			}
		}
		c.Samples, c.Stale = &samples, &stale
	}
	return printJSON(out, rep)
}
