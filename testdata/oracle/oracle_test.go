package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// TestMain lets the test binary be the child that open starts.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var compressions = []string{"none", "snappy", "zstd", "mixed"}

func oracle(t *testing.T, args ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, &out); err != nil {
		t.Fatalf("oracle %v: %v", args, err)
	}
	return out.Bytes()
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %.200s", err, b)
	}
	return v
}

type line struct {
	Segment int
	End     int64
	Type    string
	Size    int
	CRC     string
	Entries []map[string]any
	Error   string
}

func dump(t *testing.T, args ...string) (lines []line) {
	t.Helper()
	for _, b := range bytes.Split(bytes.TrimSpace(oracle(t, append([]string{"dump"}, args...)...)), []byte("\n")) {
		lines = append(lines, decode[line](t, b))
	}
	return lines
}

func writeProfile(t *testing.T, dir, profile, compression string, more ...string) writeReport {
	t.Helper()
	records := "600"
	if profile == "large" {
		records = "40"
	}
	args := []string{"write", "--seed", "5", "--profile", profile, "--compression", compression, "--records", records, dir}
	return decode[writeReport](t, oracle(t, append(args, more...)...))
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	contents := map[string]string{}
	names, err := listFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		contents[name] = string(b)
	}
	return contents
}

func TestRoundTrip(t *testing.T) {
	for _, profile := range profileNames() {
		var crcs []string
		for _, compression := range compressions {
			t.Run(profile+"/"+compression, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "log")
				rep := writeProfile(t, dir, profile, compression)
				types, sizes := map[string]int{}, []int{}
				var got []string
				for _, l := range dump(t, dir) {
					if l.Error != "" {
						t.Fatalf("segment %d at %d: %s", l.Segment, l.End, l.Error)
					}
					types[l.Type]++
					sizes = append(sizes, l.Size)
					got = append(got, l.CRC+l.Type)
				}
				if !maps.Equal(types, rep.Types) || len(sizes) != rep.Records {
					t.Errorf("dumped %v, wrote %v", types, rep.Types)
				}
				if crcs == nil {
					crcs = got
				} else if !slices.Equal(crcs, got) {
					t.Error("the records depend on the compression")
				}
				if to := profiles[profile].size[1]; slices.Max(sizes) > to+to/4+4000 {
					t.Errorf("a record of %d bytes", slices.Max(sizes))
				}
				for _, args := range [][]string{{"read", dir}, {"read", "--concat", dir}} {
					r := decode[readReport](t, oracle(t, args...))
					if r.Error != nil || r.Records != rep.Records {
						t.Errorf("%v: %+v", args, r)
					}
				}
				again := filepath.Join(t.TempDir(), "log")
				writeProfile(t, again, profile, compression)
				if !maps.Equal(files(t, dir), files(t, again)) {
					t.Error("the same seed wrote other bytes")
				}
			})
		}
	}
}

func TestEveryTypeOfAProfileComesUp(t *testing.T) {
	for _, profile := range []string{"wal", "wbl", "small", "checkpoint"} {
		dir := filepath.Join(t.TempDir(), "log")
		rep := writeProfile(t, dir, profile, "snappy", "--records", "2000")
		var want []string
		for _, typ := range profiles[profile].types {
			if typ != "empty" { // Prometheus has no other word for it than unknown.
				want = append(want, typ)
			}
		}
		if got := slices.Sorted(maps.Keys(rep.Types)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: %v", profile, got)
		}
	}
}

func TestTypesCanBeChosen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	rep := writeProfile(t, dir, "wal", "none", "--types", "series,samples")
	if got := slices.Sorted(maps.Keys(rep.Types)); !slices.Equal(got, []string{"samples", "series"}) {
		t.Error(got)
	}
	// Compared with padding, an unclean end is shorter, and what follows the last record is missing.
	padded := filepath.Join(t.TempDir(), "log")
	clean := writeProfile(t, padded, "wal", "none", "--types", "series,samples", "--unclean=false")
	if clean.Bytes%32768 != 0 || rep.Bytes >= clean.Bytes {
		t.Errorf("%d bytes padded, %d not", clean.Bytes, rep.Bytes)
	}
}

func logRecords(t *testing.T, dir string, recs ...[]byte) {
	t.Helper()
	wl, err := wlog.New(nil, nil, dir, compression.None)
	if err != nil {
		t.Fatal(err)
	}
	if err := wl.Log(recs...); err != nil {
		t.Fatal(err)
	}
	if err := wl.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDumpOfDamage(t *testing.T) {
	dir := t.TempDir()
	var enc record.Encoder
	buf := encoding.Encbuf{}
	buf.PutByte(byte(record.HistogramSamples))
	buf.PutBE64(1)
	buf.PutBE64(0)
	buf.B = append(buf.B, 0, 0, 0, 0)          // Ref, time, hint, schema.
	buf.B = append(buf.B, make([]byte, 18)...) // Zero threshold, both counts, sum.
	buf.PutUvarint64(math.MaxInt64)            // Positive spans.
	logRecords(
		t, dir,
		enc.Series([]record.RefSeries{{Ref: math.MaxUint64, Labels: labels.FromStrings("a", "\xff", "b", "<ü>")}}, nil),
		[]byte{byte(record.Samples), 0},
		buf.B,
		enc.Samples([]record.RefSample{{Ref: 2, T: -1, V: math.Copysign(0, -1)}}, nil),
	)
	name := wlog.SegmentName(dir, 0)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(b, 1, 0, 1, 9, 9, 9, 9, 'x'), 0o666); err != nil {
		t.Fatal(err)
	}

	lines := dump(t, dir)
	if len(lines) != 5 {
		t.Fatalf("%+v", lines)
	}
	want := map[string]any{
		"ref":    "18446744073709551615",
		"labels": []any{[]any{"a", map[string]any{"hex": "ff"}}, []any{"b", "<ü>"}},
	}
	if !reflect.DeepEqual(lines[0].Entries, []map[string]any{want}) {
		t.Errorf("%v", lines[0].Entries)
	}
	for i, text := range map[int]string{1: "invalid size", 2: "panic: ", 4: "unexpected checksum"} {
		if !strings.Contains(lines[i].Error, text) || len(lines[i].Entries) != 0 {
			t.Errorf("%d: %+v", i, lines[i])
		}
	}
	sample := map[string]any{"ref": "2", "t": "-1", "st": "0", "v": "8000000000000000"}
	if !reflect.DeepEqual(lines[3].Entries, []map[string]any{sample}) {
		t.Errorf("%v", lines[3].Entries)
	}

	// Replay stops at the first of them, and so does a checkpoint, which gives no place.
	r := decode[readReport](t, oracle(t, "read", dir))
	if r.Error == nil || *r.Error != "corruption in segment 00000000 at "+strconv.FormatInt(*r.Offset, 10)+
		": decode samples: decode error after 0 samples: invalid size" || *r.Offset != lines[1].End || r.Records != 1 {
		t.Errorf("%s", *r.Error)
	}
	r = decode[readReport](t, oracle(t, "read", "--concat", dir))
	if r.Error == nil || *r.Error != "decode samples: decode error after 0 samples: invalid size" || *r.Offset != lines[1].End {
		t.Errorf("%s", *r.Error)
	}
}

func TestReadOfADataDirectory(t *testing.T) {
	dir := t.TempDir()
	writeProfile(t, filepath.Join(dir, "wal", "checkpoint.00000001"), "checkpoint", "snappy")
	writeProfile(t, filepath.Join(dir, "wal"), "small", "snappy", "--segment-bytes", "32768")
	writeProfile(t, filepath.Join(dir, "wbl"), "wbl", "zstd")
	n := len(dump(t, filepath.Join(dir, "wal", "checkpoint.00000001"))) + len(dump(t, filepath.Join(dir, "wbl")))
	for _, l := range dump(t, filepath.Join(dir, "wal")) {
		if l.Segment > 1 {
			n++
		}
	}
	if r := decode[readReport](t, oracle(t, "read", dir)); r.Error != nil || r.Records != n {
		t.Errorf("%+v, want %d records", r, n)
	}

	name := wlog.SegmentName(filepath.Join(dir, "wal", "checkpoint.00000001"), 0)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[40_000] ^= 4
	if err := os.WriteFile(name, b, 0o666); err != nil {
		t.Fatal(err)
	}
	r := decode[readReport](t, oracle(t, "read", dir))
	if r.Error == nil || !strings.HasPrefix(*r.Error, "backfill checkpoint: read records: corruption in segment "+name+" at ") {
		t.Errorf("%v", r.Error)
	}
	r = decode[readReport](t, oracle(t, "read", "--concat", filepath.Join(dir, "wal")))
	if r.Error == nil || !strings.HasPrefix(*r.Error, "read segments: corruption in segment "+name+" at ") {
		t.Errorf("%v", r.Error)
	}

	if err := os.Rename(wlog.SegmentName(filepath.Join(dir, "wal"), 0), wlog.SegmentName(filepath.Join(dir, "wal"), 99)); err != nil {
		t.Fatal(err)
	}
	r = decode[readReport](t, oracle(t, "read", dir))
	if r.Error == nil || *r.Error != "get segment range: segments are not sequential" || r.Segment != nil {
		t.Errorf("%+v", r)
	}
}

// In a batch each directory gets the answer that it gets alone, whatever stood before it.
func TestReadBatch(t *testing.T) {
	root := t.TempDir()
	dirs := []string{filepath.Join(root, "healthy"), filepath.Join(root, "damaged"), filepath.Join(root, "panics"), filepath.Join(root, "again")}
	for _, dir := range dirs {
		writeProfile(t, dir, "small", "snappy")
	}
	name := wlog.SegmentName(dirs[1], 0)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[40_000] ^= 4
	if err := os.WriteFile(name, b, 0o666); err != nil {
		t.Fatal(err)
	}
	buf := encoding.Encbuf{}
	buf.PutByte(byte(record.Series))
	buf.PutBE64(1)
	buf.PutUvarint(1)
	buf.PutUvarint64(1 << 63) // The length of a label's name.
	logRecords(t, dirs[2], buf.Get())

	for _, args := range [][]string{{"read"}, {"read", "--concat"}} {
		var want []byte
		for _, dir := range dirs {
			want = append(want, oracle(t, append(args, dir)...)...)
		}
		stdin = strings.NewReader(strings.Join(dirs, "\n") + "\n")
		if got := oracle(t, append(args, "--batch")...); !bytes.Equal(got, want) {
			t.Errorf("%v: %s, want %s", args, got, want)
		}
		if n := bytes.Count(want, []byte("panic: ")); n == 0 {
			t.Errorf("%v: nothing panics in %s", args, want)
		}
	}
	stdin = os.Stdin
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	rep := writeProfile(t, filepath.Join(dir, "wal"), "small", "mixed")
	before := files(t, dir)
	r := decode[openReport](t, oracle(t, "open", "--st-storage", "--checkpoint", "--again", dir))
	if r.OpenError != nil || r.QueryError != nil || r.CheckpointError != nil || r.CloseError != nil || r.Crash != nil {
		t.Fatalf("%+v", r)
	}
	if r.Checkpoint == nil || r.NumSeries == 0 || r.NumSeries > rep.Series || r.NumHistograms == 0 || len(r.Log) == 0 {
		t.Errorf("checkpoint %v, %d series, %d histograms", r.Checkpoint, r.NumSeries, r.NumHistograms)
	}
	if len(r.FilesBefore) != len(before) || r.FilesAfter["wal/"+*r.Checkpoint+"/00000000"] == 0 {
		t.Errorf("%v, then %v", r.FilesBefore, r.FilesAfter)
	}
	if r.Again == nil || !reflect.DeepEqual(r.Series, r.Again.Series) {
		t.Error("the checkpoint changed what can be queried")
	}
}

// A checkpoint without the feature st-storage panics on a record of type 12 in which all histograms have
// custom buckets: histogramSamplesV1 (record/record.go) then resets the buffer that holds the records before.
func TestCrashIsReported(t *testing.T) {
	dir := t.TempDir()
	enc := record.Encoder{EnableSTStorage: true}
	h := &histogram.Histogram{Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1}}
	hist, _ := enc.HistogramSamples([]record.RefHistogramSample{{Ref: 1, T: 1000, H: h}}, nil)
	series := enc.Series([]record.RefSeries{{Ref: 1, Labels: labels.FromStrings("__name__", strings.Repeat("x", 500))}}, nil)
	for range 4 {
		logRecords(t, filepath.Join(dir, "wal"), series, hist)
	}
	r := decode[openReport](t, oracle(t, "open", "--summary", "--checkpoint", dir))
	if r.Crash == nil || !strings.HasPrefix(*r.Crash, "panic: runtime error: slice bounds out of range") {
		t.Errorf("%+v", r)
	}
	r = decode[openReport](t, oracle(t, "open", "--summary", "--checkpoint", "--st-storage", dir))
	if r.Crash != nil || r.CheckpointError != nil || r.NumHistograms != 1 {
		t.Errorf("%+v", r)
	}
}

func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	opts := tsdb.DefaultOptions()
	opts.EnableMemorySnapshotOnShutdown = true
	db, err := tsdb.Open(dir, discard, nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	app := db.Appender(context.Background())
	if _, err := app.Append(0, labels.FromStrings("__name__", "up"), 1000, 1); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Delete(context.Background(), 0, 1, labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	snapshot, _, _, err := tsdb.LastChunkSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	lines := dump(t, "--snapshot", snapshot)
	if len(lines) == 0 || lines[0].Type != "series" || lines[0].Error != "" || lines[0].Entries[0]["ref"] != "1" ||
		lines[0].Entries[0]["chunk"].(map[string]any)["maxt"] != "1000" {
		t.Errorf("%+v", lines)
	}
	for _, l := range lines {
		if l.Error != "" || l.Type == "unknown" {
			t.Errorf("%+v", l)
		}
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{}, {"nothing"}, {"dump"}, {"dump", dir, dir}, {"dump", "--nothing", dir}, {"write", "--profile", "x", dir},
		{"write", "--types", "series,x", dir}, {"write", "--compression", "lz4", dir}, {"write", "--segment-bytes", "1000", dir},
	} {
		if err := run(args, &bytes.Buffer{}); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if err := run([]string{"read", filepath.Join(dir, "none")}, &bytes.Buffer{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
