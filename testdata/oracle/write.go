package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

type writeOptions struct {
	seed         uint64
	compression  string
	records      int
	segmentBytes int
	types        []string
	profile      profile
	unclean      bool
}

type writeReport struct {
	Dir      string         `json:"dir"`
	Records  int            `json:"records"`
	Types    map[string]int `json:"types"`
	Segments int            `json:"segments"`
	Bytes    int64          `json:"bytes"`
	Series   int            `json:"series"`
	LastRef  string         `json:"last_ref"`
	MinTime  string         `json:"min_time"`
	MaxTime  string         `json:"max_time"`
}

func runWrite(args []string, out io.Writer) error {
	var o writeOptions
	var types, profileName string
	fs := flag.NewFlagSet("write", flag.ContinueOnError)
	fs.Uint64Var(&o.seed, "seed", 1, "seed: the same flags write the same bytes")
	fs.StringVar(&o.compression, "compression", compression.Snappy, "none, snappy, zstd or mixed")
	fs.IntVar(&o.records, "records", 1000, "how many records")
	fs.IntVar(&o.segmentBytes, "segment-bytes", 1<<20, "size of a segment, a multiple of 32768")
	fs.StringVar(&types, "types", "", "record types to write, comma separated; also unknown and empty")
	fs.StringVar(&profileName, "profile", "wal", strings.Join(profileNames(), ", "))
	fs.BoolVar(&o.unclean, "unclean", true, "leave the last segment as a kill would: its last page not padded")
	dir, err := parseDir(fs, args)
	if err != nil {
		return err
	}
	var ok bool
	if o.profile, ok = profiles[profileName]; !ok {
		return fmt.Errorf("%w: no such profile: %q", errUsage, profileName)
	}
	if !slices.Contains([]string{compression.None, compression.Snappy, compression.Zstd, "mixed"}, o.compression) {
		return fmt.Errorf("%w: no such compression: %q", errUsage, o.compression)
	}
	if o.segmentBytes <= 0 || o.segmentBytes%(32<<10) != 0 {
		return fmt.Errorf("%w: segment-bytes must be a multiple of 32768", errUsage)
	}
	o.types = o.profile.types
	if types != "" {
		o.types = strings.Split(types, ",")
		for _, t := range o.types {
			if !slices.Contains(allTypes, t) {
				return fmt.Errorf("%w: no such record type: %q; known: %s", errUsage, t, strings.Join(allTypes, ","))
			}
		}
	}
	rep, err := write(dir, o)
	if err != nil {
		return err
	}
	return printJSON(out, rep)
}

func write(dir string, o writeOptions) (*writeReport, error) {
	if first, _, err := wlog.Segments(dir); err == nil && first >= 0 {
		return nil, fmt.Errorf("%s has segments already", dir)
	}
	g := newGenerator(o.seed, o.profile, o.types)
	lw := &logWriter{dir: dir, o: o, rng: rand.New(rand.NewPCG(o.seed, 1))}
	if err := lw.open(o.compression); err != nil {
		return nil, err
	}
	rep := &writeReport{Dir: dir, Types: map[string]int{}}
	var dec record.Decoder
	for range o.records {
		rec := g.next()
		if err := lw.log(rec); err != nil {
			return nil, err
		}
		rep.Records++
		rep.Types[dec.Type(rec).String()]++
	}
	if err := lw.close(o.unclean); err != nil {
		return nil, err
	}
	files, err := segmentFiles(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		st, err := os.Stat(f.path)
		if err != nil {
			return nil, err
		}
		rep.Segments++
		rep.Bytes += st.Size()
	}
	rep.Series = g.series
	rep.LastRef = fmt.Sprint(g.lastRef)
	rep.MinTime, rep.MaxTime = fmt.Sprint(baseTime), fmt.Sprint(g.now)
	return rep, nil
}

// logWriter writes through a wlog.WL, restarting it now and then if compressions are to be mixed.
type logWriter struct {
	dir    string
	o      writeOptions
	wl     *wlog.WL
	rng    *rand.Rand // Not the generator's: the same seed makes the same records whatever the compression.
	left   int        // Records until the next restart.
	turn   int
	logged bool
}

var mixedTurns = []compression.Type{compression.Snappy, compression.Zstd, compression.None}

func (l *logWriter) open(c string) (err error) {
	if c == "mixed" {
		c = mixedTurns[l.turn%len(mixedTurns)]
		l.turn++
	}
	l.wl, err = wlog.NewSize(discard, nil, l.dir, l.o.segmentBytes, c)
	return err
}

func (l *logWriter) log(rec []byte) error {
	if l.o.compression == "mixed" {
		if l.left == 0 {
			// About four turns or more, so that each compression comes up in short logs too.
			l.left = 1 + l.rng.IntN(max(1, l.o.records/4))
			if l.logged {
				if err := l.close(l.o.unclean && l.rng.IntN(2) == 0); err != nil {
					return err
				}
				if err := l.open("mixed"); err != nil {
					return err
				}
			}
		}
		l.left--
	}
	l.logged = true
	return l.wl.Log(rec)
}

// close ends the log. Unclean takes back the padding that WL.Close writes: without it the file is as a
// kill leaves it, since every call of Log flushes.
func (l *logWriter) close(unclean bool) error {
	_, last, err := wlog.Segments(l.dir)
	if err != nil {
		return err
	}
	name := wlog.SegmentName(l.dir, last)
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if err := l.wl.Close(); err != nil {
		return err
	}
	if !unclean {
		return nil
	}
	after, err := os.Stat(name)
	if err != nil {
		return err
	}
	if after.Size() < st.Size() {
		return errors.New("segment shrank")
	}
	return os.Truncate(name, st.Size())
}
