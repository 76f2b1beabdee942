package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// readReport is the first thing Prometheus's reader complains of. Segment and offset are those of the
// corruption where the error carries one, else where reading stopped; null without an error or a place.
type readReport struct {
	Error   *string `json:"error"`
	Inner   *string `json:"inner"` // Without what the callers wrapped around it.
	Segment *int    `json:"segment"`
	Offset  *int64  `json:"offset"`
	Dir     *string `json:"dir"`
	Records int     `json:"records"` // Read before it.
	// With --records: of each of them its segment, its end there, its size and its CRC-32C.
	Read [][4]int64 `json:"read,omitempty"`
	list bool
}

// readOptions are the flags of read.
type readOptions struct {
	concat, records, live bool
}

// place is where in which directory an error came up.
type place struct {
	dir     string
	segment int
	offset  int64
}

func runRead(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("read", flag.ContinueOnError)
	concat := fs.Bool("concat", false, "one reader over the last checkpoint and all segments after it, as wlog.Checkpoint")
	records := fs.Bool("records", false, "list what is read, without the directory of each")
	live := fs.Bool("live", false, "as remote write reads the segments of a wal or wbl")
	batch := fs.Bool("batch", false, "directories come on stdin, a line each, and answers go out as they come")
	dirs, err := parseDirs(fs, args)
	if err != nil {
		return err
	}
	if *batch && len(dirs) == 0 {
		return readBatch(stdin, readOptions{*concat, *records, *live}, out)
	}
	dir, err := onlyDir(fs, dirs)
	if err != nil {
		return err
	}
	rep, err := read(dir, readOptions{*concat, *records, *live})
	if err != nil {
		return err
	}
	return printJSON(out, rep)
}

// readBatch answers each directory with a line; a panic outside the decoder, which has a guard, is an answer too.
func readBatch(in io.Reader, o readOptions, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		rep, err := readGuarded(lines.Text(), o)
		if err != nil {
			return err
		}
		if err := printJSON(out, rep); err != nil {
			return err
		}
		if f, ok := out.(interface{ Flush() error }); ok {
			if err := f.Flush(); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

func readGuarded(dir string, o readOptions) (rep *readReport, err error) {
	defer func() {
		if p := recover(); p != nil {
			text := fmt.Sprintf("panic: %v", p)
			rep, err = &readReport{Error: &text, Inner: &text}, nil
		}
	}()
	return read(dir, o)
}

func read(dir string, o readOptions) (*readReport, error) {
	if st, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%w: %s is not a directory", errUsage, dir)
	}
	rep := &readReport{list: o.records}
	walDir, wblDir := dir, ""
	if st, err := os.Stat(filepath.Join(dir, "wal")); err == nil && st.IsDir() {
		walDir = filepath.Join(dir, "wal")
		if st, err := os.Stat(filepath.Join(dir, wlog.WblDirName)); err == nil && st.IsDir() {
			wblDir = filepath.Join(dir, wlog.WblDirName)
		}
	} else if filepath.Base(filepath.Clean(dir)) == wlog.WblDirName {
		walDir, wblDir = "", dir
	}

	var at *place
	var err error
	switch {
	case o.live:
		at, err = rep.live(dir)
	case o.concat && walDir == "":
		return nil, fmt.Errorf("%w: no checkpoint is made of a wbl", errUsage)
	case o.concat:
		at, err = rep.concatenated(walDir)
	default:
		if walDir != "" {
			at, err = rep.replay(walDir)
		}
		if err == nil && wblDir != "" {
			at, err = rep.replayWBL(wblDir)
		}
	}
	if err == nil {
		return rep, nil
	}
	text, inner := err.Error(), err
	for next := errors.Unwrap(inner); next != nil; next = errors.Unwrap(inner) {
		inner = next
	}
	innerText := inner.Error()
	if cerr, ok := errors.AsType[*wlog.CorruptionErr](err); ok {
		// The reader's own texts, such as "read remaining zeros: EOF", stay whole.
		innerText = cerr.Err.Error()
	}
	rep.Error, rep.Inner = &text, &innerText
	if at != nil {
		rep.Segment, rep.Offset, rep.Dir = &at.segment, &at.offset, &at.dir
	}
	return rep, nil
}

// replay reads in the order of Head.Init (tsdb/head.go), after the directory listing of wlog.NewSize that
// tsdb.Open begins with.
func (rep *readReport) replay(walDir string) (*place, error) {
	if _, _, err := wlog.Segments(walDir); err != nil {
		return nil, fmt.Errorf("get segment range: %w", err)
	}
	cp, startFrom, err := wlog.LastCheckpoint(walDir)
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		return nil, fmt.Errorf("find last checkpoint: %w", err)
	}
	_, endAt, e := wlog.Segments(walDir)
	if e != nil {
		return nil, fmt.Errorf("finding WAL segments: %w", e)
	}
	if err == nil {
		sr, err := wlog.NewSegmentsReader(cp)
		if err != nil {
			return nil, fmt.Errorf("open checkpoint: %w", err)
		}
		at, err := rep.all(wlog.NewReader(sr), cp, decodeWAL, true)
		sr.Close()
		if err != nil {
			return at, fmt.Errorf("backfill checkpoint: %w", err)
		}
		startFrom++
	}
	for i := startFrom; i <= endAt; i++ {
		s, err := wlog.OpenReadSegment(wlog.SegmentName(walDir, i))
		if err != nil {
			return nil, fmt.Errorf("open WAL segment: %d: %w", i, err)
		}
		sr := wlog.NewSegmentBufReader(s)
		at, err := rep.all(wlog.NewReader(sr), walDir, decodeWAL, true)
		sr.Close()
		if err != nil {
			return at, err
		}
	}
	return nil, nil
}

// live reads each segment as wlog.Watcher (wlog/watcher.go) does.
func (rep *readReport) live(dir string) (*place, error) {
	files, err := segmentFiles(dir)
	if err != nil {
		return nil, err
	}
	dec := record.NewDecoder(labels.NewSymbolTable(), discard)
	for _, file := range files {
		s, err := wlog.OpenReadSegment(file.path)
		if err != nil {
			return nil, err
		}
		r := wlog.NewLiveReader(discard, wlog.NewLiveReaderMetrics(nil), s)
		err = rep.tail(r, &dec, file.index)
		s.Close()
		if err != nil {
			return &place{dir, file.index, r.Offset()}, err
		}
	}
	return nil, nil
}

func (rep *readReport) tail(r *wlog.LiveReader, dec *record.Decoder, index int) error {
	for r.Next() {
		rec := r.Record()
		if err := (*lineWriter)(nil).guard(func() error { return decodeWAL(dec, rec) }); err != nil {
			return err
		}
		rep.took(index, r.Offset(), rec)
	}
	if err := r.Err(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// took counts a record that has been read, and lists it.
func (rep *readReport) took(segment int, end int64, rec []byte) {
	rep.Records++
	if rep.list {
		sum := crc32.Checksum(rec, castagnoli)
		rep.Read = append(rep.Read, [4]int64{int64(segment), end, int64(len(rec)), int64(sum)})
	}
}

func (rep *readReport) replayWBL(wblDir string) (*place, error) {
	first, last, err := wlog.Segments(wblDir)
	if err != nil {
		return nil, fmt.Errorf("get segment range: %w", err)
	}
	if first < 0 {
		return nil, nil
	}
	for i := first; i <= last; i++ {
		s, err := wlog.OpenReadSegment(wlog.SegmentName(wblDir, i))
		if err != nil {
			return nil, fmt.Errorf("open WBL segment: %d: %w", i, err)
		}
		sr := wlog.NewSegmentBufReader(s)
		at, err := rep.all(wlog.NewReader(sr), wblDir, decodeWBL, true)
		sr.Close()
		if err != nil {
			return at, err
		}
	}
	return nil, nil
}

// concatenated reads as wlog.Checkpoint (wlog/checkpoint.go) would if it took in every segment there is.
func (rep *readReport) concatenated(walDir string) (*place, error) {
	from, last, err := wlog.Segments(walDir)
	if err != nil {
		return nil, fmt.Errorf("get segment range: %w", err)
	}
	var ranges []wlog.SegmentRange
	cp, idx, err := wlog.LastCheckpoint(walDir)
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		return nil, fmt.Errorf("find last checkpoint: %w", err)
	}
	if err == nil {
		if from > idx+1 {
			return nil, fmt.Errorf("unexpected gap to last checkpoint. expected:%v, requested:%v", idx+1, from)
		}
		from = idx + 1
		ranges = append(ranges, wlog.SegmentRange{Dir: cp, Last: math.MaxInt32})
	}
	ranges = append(ranges, wlog.SegmentRange{Dir: walDir, First: from, Last: last})
	sr, err := wlog.NewSegmentsRangeReader(ranges...)
	if err != nil {
		return nil, fmt.Errorf("create segment reader: %w", err)
	}
	defer sr.Close()
	if _, _, err := wlog.ReadMinValidTime(walDir); err != nil {
		if cerr, ok := errors.AsType[*wlog.CorruptionErr](err); ok {
			return &place{cerr.Dir, cerr.Segment, cerr.Offset}, fmt.Errorf("read previous min valid time: %w", err)
		}
		return nil, fmt.Errorf("read previous min valid time: %w", err)
	}
	return rep.all(wlog.NewReader(sr), walDir, decodeCheckpoint, false)
}

// all reads to the end or the first error. Replay gives decoding errors a place (loadWAL in
// tsdb/head_wal.go), checkpointing does not.
func (rep *readReport) all(
	r *wlog.Reader, dir string, decode func(*record.Decoder, []byte) error, replay bool,
) (*place, error) {
	dec := record.NewDecoder(labels.NewSymbolTable(), discard)
	for r.Next() {
		rec := r.Record()
		err := (*lineWriter)(nil).guard(func() error { return decode(&dec, rec) })
		if err != nil {
			at := &place{dir, r.Segment(), r.Offset()}
			if replay {
				err = &wlog.CorruptionErr{Err: err, Segment: at.segment, Offset: at.offset}
			}
			return at, err
		}
		rep.took(r.Segment(), r.Offset(), rec)
	}
	err := r.Err()
	if err == nil {
		return nil, nil
	}
	at := &place{dir, r.Segment(), r.Offset()}
	if cerr, ok := errors.AsType[*wlog.CorruptionErr](err); ok {
		at = &place{cerr.Dir, cerr.Segment, cerr.Offset}
	}
	if replay {
		return at, fmt.Errorf("read records: %w", err)
	}
	return at, fmt.Errorf("read segments: %w", err)
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func decodeWAL(dec *record.Decoder, rec []byte) (err error) {
	switch dec.Type(rec) {
	case record.Series:
		_, err = dec.Series(rec, nil)
		return wrap("decode series", err)
	case record.Samples, record.SamplesV2:
		_, err = dec.Samples(rec, nil)
		return wrap("decode samples", err)
	case record.Tombstones:
		_, err = dec.Tombstones(rec, nil)
		return wrap("decode tombstones", err)
	case record.Exemplars:
		_, err = dec.Exemplars(rec, nil)
		return wrap("decode exemplars", err)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		_, err = dec.HistogramSamples(rec, nil)
		return wrap("decode histograms", err)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		_, err = dec.FloatHistogramSamples(rec, nil)
		return wrap("decode float histograms", err)
	case record.Metadata:
		_, err = dec.Metadata(rec, nil)
		return wrap("decode metadata", err)
	}
	return nil // Replay ignores all others, known ones too.
}

func decodeWBL(dec *record.Decoder, rec []byte) (err error) {
	switch dec.Type(rec) {
	case record.MmapMarkers:
		_, err = dec.MmapMarkers(rec, nil)
		return wrap("decode mmap markers", err)
	case record.Series, record.Tombstones, record.Exemplars, record.Metadata:
		return nil
	}
	return decodeWAL(dec, rec)
}

// decodeCheckpoint differs from decodeWAL in the wording alone.
func decodeCheckpoint(dec *record.Decoder, rec []byte) (err error) {
	switch dec.Type(rec) {
	case record.Tombstones:
		_, err = dec.Tombstones(rec, nil)
		return wrap("decode deletes", err)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		_, err = dec.HistogramSamples(rec, nil)
		return wrap("decode histogram samples", err)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		_, err = dec.FloatHistogramSamples(rec, nil)
		return wrap("decode float histogram samples", err)
	}
	return decodeWAL(dec, rec)
}
