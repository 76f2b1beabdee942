package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/prometheus/tsdb"
)

// runBlock writes a block of the older half of what the head holds, as a compaction does.
func runBlock(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("block", flag.ContinueOnError)
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	db, err := tsdb.Open(dir, slog.New(&logCollector{}), nil, serverOptions(dir, openOptions{}), nil)
	if err != nil {
		return err
	}
	defer db.Close()
	db.DisableCompactions()
	head := db.Head()
	middle := (head.MinTime() + head.MaxTime()) / 2
	if err := db.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), middle)); err != nil {
		return err
	}
	blocks := db.Blocks()
	if len(blocks) == 0 {
		return fmt.Errorf("no block came about")
	}
	return printJSON(out, blocks[0].Meta().ULID.String())
}
