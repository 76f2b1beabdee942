package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// growth is what a server takes in between its start and its end.
type growth struct {
	Tries        int        `json:"tries"`         // How often to open the directory; it is grown as soon as that succeeds.
	Window       int64      `json:"window"`        // For out-of-order samples, ms; 30m if it is 0 and there is a wbl.
	SegmentBytes int        `json:"segment_bytes"` // Of the WAL; the default if 0.
	Snapshots    bool       `json:"snapshots"`     // With the feature memory-snapshot-on-shutdown.
	Steps        []growStep `json:"steps"`
	Kill         bool       `json:"kill"` // Leave the directory as a killed server does.
	Quiet        bool       `json:"quiet"`
}

// growStep is one thing after another: samples of one commit, full head chunks written to chunks_head, a head
// compaction, a deletion.
type growStep struct {
	Append  []growSample `json:"append"`
	MMap    bool         `json:"mmap"`
	Compact bool         `json:"compact"`
	Delete  *growDelete  `json:"delete"`
}

type growSample struct {
	Labels    [][2]string `json:"labels"`
	T         int64       `json:"t"`
	V         float64     `json:"v"`
	Histogram int64       `json:"histogram"` // A native histogram of this size, not a float, if it is not 0.
}

type growDelete struct {
	Name string `json:"name"`
	Mint int64  `json:"mint"`
	Maxt int64  `json:"maxt"`
}

type growReport struct {
	OpenErrors   []string         `json:"open_errors"` // Of the tries that failed.
	Grown        bool             `json:"grown"`
	Before       []openSeries     `json:"before"`   // What was served before the first step.
	Accepted     [][2]any         `json:"accepted"` // For each sample appended, in order: ref (as text) and error, or null.
	CompactError *string          `json:"compact_error"`
	CloseError   *string          `json:"close_error"`
	Series       []openSeries     `json:"series"` // What is served after the last step.
	Log          []map[string]any `json:"log"`
}

// runGrow opens a directory as a server does, and appends what stdin says.
func runGrow(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("grow", flag.ContinueOnError)
	dir, err := parseDir(fs, args)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	var g growth
	if err := json.NewDecoder(stdin).Decode(&g); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	rep := &growReport{OpenErrors: []string{}, Accepted: [][2]any{}}
	logs := &logCollector{}
	for range max(g.Tries, 1) {
		opts := serverOptions(dir, openOptions{oooWindow: g.Window})
		opts.EnableMemorySnapshotOnShutdown = g.Snapshots
		if g.SegmentBytes > 0 {
			opts.WALSegmentSize = g.SegmentBytes
		}
		db, err := tsdb.Open(dir, slog.New(logs), nil, opts, nil)
		if err != nil {
			rep.OpenErrors = append(rep.OpenErrors, err.Error())
			continue
		}
		db.DisableCompactions()
		if err := rep.grow(db, g); err != nil {
			return err
		}
		break
	}
	rep.Log = logs.lines
	return printJSON(out, rep)
}

func (rep *growReport) grow(db *tsdb.DB, g growth) error {
	rep.Grown = true
	ctx := context.Background()
	served := func() ([]openSeries, error) {
		if g.Quiet {
			return nil, nil
		}
		var read openReport
		err := read.query(db, true, false)
		return read.Series, err
	}
	var err error
	if rep.Before, err = served(); err != nil {
		return err
	}
	for _, step := range g.Steps {
		if err := rep.append(ctx, db, step.Append); err != nil {
			return err
		}
		if step.MMap {
			db.ForceHeadMMap()
		}
		if step.Compact {
			// Fails where no checkpoint can be made, after the block is there.
			rep.CompactError = text(errors.Join(db.Compact(ctx), db.CompactOOOHead(ctx)))
		}
		if d := step.Delete; d != nil {
			if err := db.Delete(ctx, d.Mint, d.Maxt, labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, d.Name)); err != nil {
				return err
			}
		}
	}
	if rep.Series, err = served(); err != nil {
		return err
	}
	if !g.Kill {
		rep.CloseError = text(db.Close())
	}
	return nil
}

// append appends samples in one commit; those that are refused are left out.
func (rep *growReport) append(ctx context.Context, db *tsdb.DB, samples []growSample) error {
	if len(samples) == 0 {
		return nil
	}
	app := db.Appender(ctx)
	for _, s := range samples {
		b := labels.NewScratchBuilder(len(s.Labels))
		for _, l := range s.Labels {
			b.Add(l[0], l[1])
		}
		b.Sort()
		var ref storage.SeriesRef
		var err error
		if s.Histogram > 0 {
			ref, err = app.AppendHistogram(0, b.Labels(), s.T, nativeOf(s.Histogram), nil)
		} else {
			ref, err = app.Append(0, b.Labels(), s.T, s.V)
		}
		rep.Accepted = append(rep.Accepted, [2]any{fmt.Sprint(uint64(ref)), text(err)})
	}
	return app.Commit()
}
