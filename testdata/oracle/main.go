// Command oracle judges logs with Prometheus's own packages: it writes, dumps and reads write-ahead logs
// and opens data directories as the server does. Every answer is JSON on stdout.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

type command struct {
	name  string
	usage string
	run   func(args []string, out io.Writer) error
}

var commands = []command{
	{"write", "write [flags] DIR", runWrite},
	{"directory", "directory [flags] DIR", runDirectory},
	{"dump", "dump [--snapshot] [--joined] DIR", runDump},
	{"read", "read [--concat] DIR | read [--concat] --batch", runRead},
	{"chunks", "chunks [--decode] DIR", runChunks},
	{"chunkenc", "chunkenc [flags]", runChunkenc},
	{"open", "open [flags] DIR", runOpen},
	{"grow", "grow DIR", runGrow},
	{"block", "block DIR", runBlock},
	{"index", "index [--seed N] [--series N] DIR", runIndex},
	{"blockfiles", "blockfiles [--seed N] [--segment-bytes N] DIR", runBlockFiles},
	{"blocks", "blocks [flags] DIR", runBlocks},
	{"verify", "verify [--dump] [--rounds N] BLOCK_DIR", runVerify},
	{"compact", "compact DIR [ULID...]", runCompact},
	{"load", "load [flags] DIR", runLoad},
	{"repeat", "repeat [flags] FROM DIR", runRepeat},
	{"bench", "bench [--rounds N] DIR", runBench},
	{"judge", "judge --servers DIR [flags] DIR", runJudge},
	{"incident", "incident [--servers DIR] DIR", runIncident},
	{"damaged", "damaged [--servers DIR] [--only KIND] DIR", runDamaged},
}

// errUsage marks errors of the caller, which exit with 2; everything else exits with 1.
var errUsage = errors.New("usage")

func main() {
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	err := run(os.Args[1:], out)
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) > 0 {
		for _, c := range commands {
			if c.name == args[0] {
				return c.run(args[1:], out)
			}
		}
	}
	for _, c := range commands {
		fmt.Fprintln(os.Stderr, "oracle", c.usage)
	}
	return fmt.Errorf("%w: no such command", errUsage)
}

// stdin is where a batch comes from.
var stdin io.Reader = os.Stdin

// parseDir parses flags that may stand before or after the one directory.
func parseDir(fs *flag.FlagSet, args []string) (string, error) {
	dirs, err := parseDirs(fs, args)
	if err != nil {
		return "", err
	}
	return onlyDir(fs, dirs)
}

func parseDirs(fs *flag.FlagSet, args []string) (dirs []string, err error) {
	fs.SetOutput(os.Stderr)
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		args = fs.Args()
		if len(args) > 0 {
			dirs, args = append(dirs, args[0]), args[1:]
		}
	}
	return dirs, nil
}

func onlyDir(fs *flag.FlagSet, dirs []string) (string, error) {
	if len(dirs) != 1 {
		return "", fmt.Errorf("%w: %s needs exactly one directory", errUsage, fs.Name())
	}
	return dirs[0], nil
}

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
