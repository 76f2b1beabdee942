package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// runRepeat writes the log of a server again and again, each time later: what it holds stays as it was scraped. It makes a log
// that is long enough to be timed of one that is not. Of the checkpoint it takes the series, once.
func runRepeat(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("repeat", flag.ContinueOnError)
	megabytes := flags.Int64("megabytes", 200, "of segments, at least")
	compressed := flags.String("compression", "snappy", "none, snappy or zstd")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("usage: repeat [flags] FROM DIR")
	}
	from, to := flags.Arg(0), flags.Arg(1)
	w, err := wlog.New(slog.New(slog.DiscardHandler), nil, to, compression.Type(*compressed))
	if err != nil {
		return err
	}
	checkpoint, _, err := wlog.LastCheckpoint(from)
	if err == nil {
		if err := eachRecord(checkpoint, func(rec []byte) error {
			if record.Type(rec[0]) == record.Series {
				return w.Log(rec)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	shift := &shifter{dec: newDecoder(), first: 1<<63 - 1}
	for shift.written < *megabytes<<20 {
		shift.round++
		if err := eachRecord(from, func(rec []byte) error {
			shifted, err := shift.record(rec)
			if err != nil || shifted == nil {
				return err
			}
			return w.Log(shifted)
		}); err != nil {
			return err
		}
		segments, err := filepath.Glob(filepath.Join(to, "[0-9]*"))
		if err != nil {
			return err
		}
		shift.written = 0
		for _, segment := range segments {
			shift.written += fileSize(segment)
		}
		shift.by += shift.last - shift.first + 15_000
	}
	return w.Close()
}

// shifter moves records to later times.
type shifter struct {
	dec             record.Decoder
	enc             record.Encoder
	round           int
	by, first, last int64
	written         int64
}

func (s *shifter) time(t int64) int64 {
	if s.round == 1 {
		s.first, s.last = min(s.first, t), max(s.last, t)
	}
	return t + s.by
}

func (s *shifter) record(rec []byte) ([]byte, error) {
	switch s.dec.Type(rec) {
	case record.Samples:
		samples, err := s.dec.Samples(rec, nil)
		for i := range samples {
			samples[i].T = s.time(samples[i].T)
		}
		return s.enc.Samples(samples, nil), err
	case record.Exemplars:
		exemplars, err := s.dec.Exemplars(rec, nil)
		for i := range exemplars {
			exemplars[i].T = s.time(exemplars[i].T)
		}
		return s.enc.Exemplars(exemplars, nil), err
	case record.HistogramSamples:
		histograms, err := s.dec.HistogramSamples(rec, nil)
		for i := range histograms {
			histograms[i].T = s.time(histograms[i].T)
		}
		encoded, _ := s.enc.HistogramSamples(histograms, nil)
		return encoded, err
	case record.Series:
		if s.round > 1 {
			return nil, nil
		}
		return rec, nil
	default:
		return nil, nil
	}
}

func eachRecord(dir string, each func([]byte) error) error {
	segments, err := wlog.NewSegmentsReader(dir)
	if err != nil {
		return err
	}
	defer segments.Close()
	r := wlog.NewReader(segments)
	for r.Next() {
		if err := each(append([]byte(nil), r.Record()...)); err != nil {
			return err
		}
	}
	return r.Err()
}

func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}
