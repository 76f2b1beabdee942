package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/prometheus/prometheus/tsdb"
)

type compactReport struct {
	Error *string  `json:"error"`
	ULIDs []string `json:"ulids"` // Of the block that came about; none if there are no samples.
}

// runCompact makes one block of several, as the server does: by its own compactor, in order of their time.
func runCompact(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("compact", flag.ContinueOnError)
	names, err := parseDirs(flags, args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: compact needs a directory", errUsage)
	}
	dir, names := names[0], names[1:]
	if len(names) == 0 {
		if names, err = blockNames(dir); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("no blocks in %s", dir)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(blockBegins(filepath.Join(dir, a)), blockBegins(filepath.Join(dir, b)))
	})
	var dirs []string
	for _, name := range names {
		dirs = append(dirs, filepath.Join(dir, name))
	}
	rep := compactReport{ULIDs: []string{}}
	rep.Error = text(guarded(func() error {
		opts := serverOptions(dir, openOptions{})
		ranges := tsdb.ExponentialBlockRanges(opts.MinBlockDuration, 10, 3)
		for i, v := range ranges {
			if v > opts.MaxBlockDuration {
				ranges = ranges[:i]
				break
			}
		}
		compactor, err := tsdb.NewLeveledCompactor(context.Background(), nil, discard, ranges, nil, nil)
		if err != nil {
			return err
		}
		ids, err := compactor.Compact(dir, dirs, nil)
		for _, id := range ids {
			rep.ULIDs = append(rep.ULIDs, id.String())
		}
		return err
	}))
	return printJSON(out, rep)
}

func blockNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err == nil && e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// blockBegins is the first time of a block; 0 if its meta.json does not say.
func blockBegins(dir string) int64 {
	var meta tsdb.BlockMeta
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil || json.Unmarshal(b, &meta) != nil {
		return 0
	}
	return meta.MinTime
}
