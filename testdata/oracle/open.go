package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// childEnv marks the process that really opens the directory: replay runs in goroutines of its own, whose
// panics would take the report with them.
const childEnv = "WALFIX_ORACLE_OPEN"

type openOptions struct {
	oooWindow  int64
	checkpoint bool
	again      bool
	summary    bool
	stStorage  bool
	head       bool
	appends    bool
	now        bool
	fresh      int
	compact    bool
	snapshot   bool
	timeout    time.Duration
}

type openSeries struct {
	Labels     [][2]string `json:"labels"`
	Samples    [][2]any    `json:"samples"`
	Histograms [][2]any    `json:"histograms"`
}

type openReport struct {
	OpenError       *string          `json:"open_error"`
	CloseError      *string          `json:"close_error"`
	QueryError      *string          `json:"query_error"`
	CheckpointError *string          `json:"checkpoint_error"`
	NowError        *string          `json:"now_error,omitempty"`
	FreshError      *string          `json:"fresh_error,omitempty"`
	CompactError    *string          `json:"compact_error,omitempty"`
	Compacted       *int             `json:"compacted,omitempty"`  // Samples that are served after --compact.
	Checkpoint      *string          `json:"checkpoint,omitempty"` // The last one after --checkpoint.
	Log             []map[string]any `json:"log"`
	FilesBefore     map[string]int64 `json:"files_before"`
	FilesAfter      map[string]int64 `json:"files_after"`
	NumSeries       int              `json:"num_series"`
	NumSamples      int              `json:"num_samples"` // Floats and histograms.
	NumHistograms   int              `json:"num_histograms"`
	Appended        *uint64          `json:"appended,omitempty"` // The ref of the new series of --append.
	Series          []openSeries     `json:"series,omitempty"`
	Again           *openReport      `json:"again,omitempty"`
	Crash           *string          `json:"crash,omitempty"` // The panic, or that time ran out.
}

func runOpen(args []string, out io.Writer) error {
	var o openOptions
	flags := flag.NewFlagSet("open", flag.ContinueOnError)
	flags.Int64Var(&o.oooWindow, "oooWindow", 0, "out-of-order time window in ms; 30m if there is a wbl")
	flags.BoolVar(&o.checkpoint, "checkpoint", false, "make a checkpoint of all segments, dropping nothing")
	flags.BoolVar(&o.again, "again", false, "close and open once more")
	flags.BoolVar(&o.stStorage, "st-storage", false, "with the feature st-storage, which writes record types 11 to 13")
	flags.BoolVar(&o.summary, "summary", false, "leave the series out")
	flags.BoolVar(&o.head, "head", false, "leave out blocks, and staleness markers")
	flags.BoolVar(&o.appends, "append", false, "append a sample of a new series before anything is read")
	flags.BoolVar(&o.now, "now", false, "append a sample of now, as a scrape does, after all has been read")
	flags.IntVar(&o.fresh, "fresh", 0, "append a sample of each of so many new series after all has been read")
	flags.BoolVar(&o.compact, "compact", false, "open three times more: the second start makes the checkpoint, the third compacts all of the head into a block, and so does the fourth")
	flags.BoolVar(&o.snapshot, "snapshot", false, "with the feature memory-snapshot-on-shutdown")
	flags.DurationVar(&o.timeout, "timeout", 2*time.Minute, "when to call it hung")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	if st, err := os.Stat(dir); err != nil {
		return err
	} else if !st.IsDir() {
		return fmt.Errorf("%w: %s is not a directory", errUsage, dir)
	}
	if os.Getenv(childEnv) != "" {
		first := o
		if o.compact {
			first.checkpoint, first.compact = false, false
		}
		rep := open(dir, first)
		if o.compact {
			second := o
			second.appends, second.fresh, second.compact = false, 0, false
			rep.Again = open(dir, second)
			o.checkpoint, o.appends, o.fresh = false, false, 0
			third := open(dir, o)
			o.fresh, o.now = first.fresh, false
			rep.Again.Again, third.Again = third, open(dir, o)
		} else if o.again {
			o.checkpoint, o.appends, o.fresh = false, false, 0
			rep.Again = open(dir, o)
		}
		return printJSON(out, rep)
	}
	return supervise(dir, args, o, out)
}

// supervise has a child do the work and reports what it says or how it died.
func supervise(dir string, args []string, o openOptions, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	before, err := listFiles(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, append([]string{"open"}, args...)...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if err == nil {
		_, err := out.Write(stdout.Bytes())
		return err
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	crash := err.Error()
	if ctx.Err() != nil {
		crash = "hang: " + ctx.Err().Error()
	} else if i := strings.Index(stderr.String(), "panic: "); i >= 0 {
		crash, _, _ = strings.Cut(stderr.String()[i:], "\n")
	} else if i := strings.Index(stderr.String(), "fatal error: "); i >= 0 {
		crash, _, _ = strings.Cut(stderr.String()[i:], "\n")
	} else if s := strings.TrimSpace(stderr.String()); s != "" {
		crash = s
	}
	after, err := listFiles(dir)
	if err != nil {
		return err
	}
	return printJSON(out, &openReport{Crash: &crash, Log: []map[string]any{}, FilesBefore: before, FilesAfter: after})
}

func text(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	return &s
}

func open(dir string, o openOptions) *openReport {
	rep := &openReport{Log: []map[string]any{}}
	rep.FilesBefore, _ = listFiles(dir)
	defer func() { rep.FilesAfter, _ = listFiles(dir) }()
	logs := &logCollector{}
	defer func() { rep.Log = append(rep.Log, logs.lines...) }()

	db, err := tsdb.Open(dir, slog.New(logs), nil, serverOptions(dir, o), nil)
	if err != nil {
		rep.OpenError = text(err)
		return rep
	}
	db.DisableCompactions()
	if o.appends {
		if err := rep.append(db); err != nil {
			rep.QueryError = text(err)
			return rep
		}
	}
	rep.QueryError = text(rep.query(db, !o.summary, o.head))
	if o.now {
		app := db.Appender(context.Background())
		_, err := app.Append(0, labels.FromStrings("__name__", "oracle_now"), time.Now().UnixMilli(), 1)
		rep.NowError = text(errors.Join(err, app.Rollback()))
	}
	if o.fresh > 0 {
		rep.FreshError = text(appendFresh(db, o.fresh))
	}
	if o.checkpoint {
		rep.CheckpointError = text(makeCheckpoint(db, filepath.Join(dir, "wal")))
		if cp, _, err := wlog.LastCheckpoint(filepath.Join(dir, "wal")); err == nil {
			name := filepath.Base(cp)
			rep.Checkpoint = &name
		}
	}
	if o.compact {
		rep.CompactError = text(rep.compact(db))
	}
	rep.CloseError = text(db.Close())
	return rep
}

// appendFresh appends a sample of each of some new series, all as late as the newest one is.
func appendFresh(db *tsdb.DB, count int) error {
	app := db.Appender(context.Background())
	newest := max(db.Head().MaxTime(), 0)
	for _, block := range db.Blocks() {
		newest = max(newest, block.Meta().MaxTime)
	}
	for i := range count {
		name := labels.FromStrings("__name__", "oracle_fresh", "n", fmt.Sprint(i))
		if _, err := app.Append(0, name, newest, 1); err != nil {
			return errors.Join(err, app.Rollback())
		}
	}
	return app.Commit()
}

// compact writes a block of all that the head holds, and cuts the WAL, as a compaction does of the older part of it.
func (rep *openReport) compact(db *tsdb.DB) error {
	if head := db.Head(); head.NumSeries() > 0 && head.MinTime() <= head.MaxTime() {
		if err := db.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), head.MaxTime())); err != nil {
			return err
		}
	}
	if err := db.CompactOOOHead(context.Background()); err != nil {
		return err
	}
	var after openReport
	err := after.query(db, false, false)
	rep.Compacted = &after.NumSamples
	return err
}

// serverOptions are the defaults of the server's flags (cmd/prometheus/main.go).
func serverOptions(dir string, o openOptions) *tsdb.Options {
	opts := tsdb.DefaultOptions()
	opts.WALCompression = compression.Snappy
	opts.RetentionDuration = (15 * 24 * time.Hour).Milliseconds()
	opts.MinBlockDuration = (2 * time.Hour).Milliseconds()
	opts.MaxBlockDuration = (36 * time.Hour).Milliseconds() // A tenth of the retention.
	opts.MaxExemplars = 100_000
	opts.OutOfOrderTimeWindow = o.oooWindow
	opts.EnableMemorySnapshotOnShutdown = o.snapshot
	if o.stStorage {
		opts.EnableSTStorage = true
		opts.EnableHistogramSTEncoding = true
		opts.FloatChunkEncoding = chunkenc.EncXOR2
	}
	if o.head {
		opts.BlockQuerierFunc = func(b tsdb.BlockReader, mint, maxt int64) (storage.Querier, error) {
			if _, ok := b.(*tsdb.Block); ok {
				return storage.NoopQuerier(), nil
			}
			return tsdb.NewBlockQuerier(b, mint, maxt)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, wlog.WblDirName)); o.oooWindow == 0 && err == nil && st.IsDir() {
		opts.OutOfOrderTimeWindow = (30 * time.Minute).Milliseconds()
	}
	return opts
}

// append appends a sample of a series that is not there yet, behind all others.
func (rep *openReport) append(db *tsdb.DB) error {
	app := db.Appender(context.Background())
	newest := max(db.Head().MaxTime(), 0)
	ref, err := app.Append(0, labels.FromStrings("__name__", "oracle_appended"), newest+1, 1)
	if err != nil {
		return err
	}
	appended := uint64(ref)
	rep.Appended = &appended
	return app.Commit()
}

// query reads all that can be queried, in blocks, head and out-of-order head.
func (rep *openReport) query(db *tsdb.DB, keep, head bool) error {
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "", ""))
	var it chunkenc.Iterator
	for set.Next() {
		s := openSeries{Samples: [][2]any{}, Histograms: [][2]any{}}
		samples, hists := 0, 0
		it = set.At().Iterator(it)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if vt == chunkenc.ValFloat {
				t, v := it.At()
				if head && value.IsStaleNaN(v) {
					continue
				}
				if samples++; keep {
					s.Samples = append(s.Samples, [2]any{t, string(appendBits(nil, v))})
				}
				continue
			}
			var t int64
			var h fmt.Stringer
			var schema int32
			var sum float64
			if vt == chunkenc.ValHistogram {
				ts, ih := it.AtHistogram(nil)
				t, h, schema, sum = ts, ih, ih.Schema, ih.Sum
			} else {
				ts, fh := it.AtFloatHistogram(nil)
				t, h, schema, sum = ts, fh, fh.Schema, fh.Sum
			}
			if head && value.IsStaleNaN(sum) {
				continue
			}
			if hists++; keep {
				// Without the counter reset hint: that depends on where chunks were cut.
				s.Histograms = append(s.Histograms, [2]any{t, fmt.Sprintf("%s schema:%d %s", valueType(vt), schema, h)})
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("%s: %w", set.At().Labels(), err)
		}
		if head && samples+hists == 0 {
			continue
		}
		rep.NumSeries++
		rep.NumSamples += samples + hists
		rep.NumHistograms += hists
		if keep {
			set.At().Labels().Range(func(l labels.Label) { s.Labels = append(s.Labels, [2]string{l.Name, l.Value}) })
			rep.Series = append(rep.Series, s)
		}
	}
	return set.Err()
}

func valueType(vt chunkenc.ValueType) string {
	if vt == chunkenc.ValHistogram {
		return "histogram"
	}
	return "float_histogram"
}

// makeCheckpoint makes the head checkpoint its log until all segments that were there are taken in. The
// times are so low that nothing is truncated in memory and nothing dropped; every call adds a segment, of
// which truncateWAL (tsdb/head.go) takes the lower two thirds. A checkpoint whose number is above those of the
// segments, as after a repair that began to count anew, is read all the same.
func makeCheckpoint(db *tsdb.DB, walDir string) error {
	_, last, err := wlog.Segments(walDir)
	if err != nil {
		return err
	}
	_, before, err := wlog.LastCheckpoint(walDir)
	if errors.Is(err, record.ErrNotFound) {
		before = -1
	}
	for i := range 200 {
		if err := db.Head().Truncate(math.MinInt64 + int64(i) + 1); err != nil {
			return err
		}
		_, idx, err := wlog.LastCheckpoint(walDir)
		if err != nil && !errors.Is(err, record.ErrNotFound) {
			return err
		}
		if err == nil && idx >= last && idx != before {
			return nil
		}
	}
	return errors.New("no checkpoint came about: the head is empty")
}

func listFiles(dir string) (map[string]int64, error) {
	files := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)] = info.Size()
		return nil
	})
	return files, err
}

// logCollector is a slog.Handler that keeps level, message and attributes; times and durations would make
// no two reports alike.
type logCollector struct {
	mtx   sync.Mutex
	lines []map[string]any
}

func (*logCollector) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (c *logCollector) Handle(_ context.Context, r slog.Record) error {
	line := map[string]any{"level": strings.ToLower(r.Level.String()), "msg": r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if !strings.Contains(strings.ToLower(a.Key), "duration") {
			line[a.Key] = a.Value.Resolve().String()
		}
		return true
	})
	c.mtx.Lock()
	defer c.mtx.Unlock()
	c.lines = append(c.lines, line)
	return nil
}

// WithAttrs and WithGroup drop what they are given: only the log lines' own attributes matter here.
func (c *logCollector) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c *logCollector) WithGroup(string) slog.Handler { return c }
