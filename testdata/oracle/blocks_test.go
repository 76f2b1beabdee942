package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb"
)

func writeBlocks(t *testing.T, dir string, more ...string) []string {
	t.Helper()
	return decode[[]string](t, oracle(t, append([]string{"blocks", "--seed", "3", dir}, more...)...))
}

func TestBlocksAreLoadedAndCompacted(t *testing.T) {
	for _, more := range [][]string{{"--blocks", "3"}, {"--blocks", "3", "--hard"}, {"--big", "2000000"}} {
		dir, again := t.TempDir(), t.TempDir()
		ids := writeBlocks(t, dir, append(more, "--tombstones", "4")...)
		writeBlocks(t, again, append(more, "--tombstones", "4")...)
		if !maps.Equal(files(t, dir), files(t, again)) {
			t.Errorf("%v: the same seed wrote other bytes", more)
		}
		samples := 0
		for _, id := range ids {
			rep := decode[verifyReport](t, oracle(t, "verify", filepath.Join(dir, id)))
			if rep.OpenError != nil || rep.ErrorsCount != 0 || rep.PostingsError != nil || rep.SymbolsError != nil || rep.Samples == 0 {
				t.Errorf("%v: %+v", more, rep)
			}
			meta := decode[tsdb.BlockMeta](t, []byte(files(t, dir)[id+"/meta.json"]))
			got := tsdb.BlockStats{
				NumSamples: uint64(rep.Samples), NumFloatSamples: uint64(rep.FloatSamples), NumTombstones: uint64(len(rep.Tombstones)),
				NumHistogramSamples: uint64(rep.HistogramSamples), NumSeries: uint64(rep.Series), NumChunks: uint64(rep.Chunks),
			}
			if got != meta.Stats {
				t.Errorf("%v: %+v, meta.json says %+v", more, got, meta.Stats)
			}
			if *rep.MinTime < meta.MinTime || *rep.MaxTime >= meta.MaxTime {
				t.Errorf("%v: samples outside the block", more)
			}
			samples += rep.Samples
		}
		opened := decode[openReport](t, oracle(t, "open", "--summary", again))
		if opened.OpenError != nil || opened.QueryError != nil || opened.NumSamples == 0 || opened.NumSamples > samples {
			t.Errorf("%v: %+v", more, opened)
		}
		compacted := decode[compactReport](t, oracle(t, "compact", dir))
		if compacted.Error != nil || len(compacted.ULIDs) != 1 {
			t.Errorf("%v: %v", more, *compacted.Error)
			continue
		}
		rep := decode[verifyReport](t, oracle(t, "verify", filepath.Join(dir, compacted.ULIDs[0])))
		if rep.ErrorsCount != 0 || rep.Samples != opened.NumSamples {
			t.Errorf("%v: %d samples after a compaction, %d queried", more, rep.Samples, opened.NumSamples)
		}
	}
}

func TestVerifyOfDamage(t *testing.T) {
	dir := t.TempDir()
	block := filepath.Join(dir, writeBlocks(t, dir)[0])
	lines := bytes.Split(bytes.TrimSpace(oracle(t, "verify", "--dump", block)), []byte("\n"))
	series := decode[dumpedSeries](t, lines[0])
	postings := decode[struct{ Postings [][3]any }](t, lines[len(lines)-2])
	rep := decode[verifyReport](t, lines[len(lines)-1])
	if len(lines) != rep.Series+2 || len(postings.Postings[0][2].([]any)) != rep.Series {
		t.Fatalf("%d lines of %d series, %v", len(lines), rep.Series, postings.Postings[0])
	}
	c := series.Chunks[0]
	if !c.CRCOk || c.Error != nil || len(c.Samples) == 0 || len(series.Labels) == 0 {
		t.Fatalf("%+v", series)
	}
	path := filepath.Join(block, "chunks", "000001")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[c.Ref+6] ^= 1
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	damaged := decode[verifyReport](t, oracle(t, "verify", block))
	if damaged.ErrorsCount != 1 || damaged.Errors[0].SeriesID != series.ID || *damaged.Errors[0].ChunkRef != c.Ref ||
		!strings.HasPrefix(damaged.Errors[0].Error, "checksum mismatch") || damaged.Samples != rep.Samples-len(c.Samples) {
		t.Errorf("%+v", damaged)
	}
	compacted := decode[compactReport](t, oracle(t, "compact", dir))
	if compacted.Error == nil || !strings.Contains(*compacted.Error, "checksum mismatch") {
		t.Errorf("%+v", compacted)
	}
	// A tombstones file without a version makes OpenBlock panic.
	if err := os.WriteFile(filepath.Join(block, "tombstones"), []byte("\x01\x30\xba\x30\x00\x00\x00\x00"), 0o666); err != nil {
		t.Fatal(err)
	}
	damaged = decode[verifyReport](t, oracle(t, "verify", block))
	if damaged.OpenError == nil || !strings.HasPrefix(*damaged.OpenError, "panic: ") {
		t.Errorf("%+v", damaged)
	}
}
