package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/model/value"
)

// startVerdict is what a real server did on one start.
type startVerdict struct {
	Outcome string   `json:"outcome"` // starts, exits or hangs.
	Error   *string  `json:"error"`   // The first err= of a warning or an error.
	Fatal   *string  `json:"fatal"`   // The err= with which it gave up.
	Samples *int     `json:"samples"` // What can be queried, staleness markers aside; null if it did not start.
	Deleted []string `json:"deleted"`
	Changed []change `json:"changed"`
	Created []string `json:"created"`
	Log     []string `json:"log"` // Warnings and errors of the storage, without their times.
}

// change is a file with other bytes after the start; sizes before and after.
type change struct {
	File   string `json:"file"`
	Before int    `json:"before"`
	After  int    `json:"after"`
}

type judgeOptions struct {
	servers  string
	features string
	config   string
	starts   int
	timeout  time.Duration
}

const emptyConfig = "scrape_configs: []\n"

func runJudge(args []string, out io.Writer) error {
	o := judgeOptions{config: emptyConfig}
	flags := flag.NewFlagSet("judge", flag.ContinueOnError)
	flags.StringVar(&o.servers, "servers", "", "directory of servers: <version>/prometheus")
	flags.StringVar(&o.features, "features", "", "for --enable-feature")
	flags.IntVar(&o.starts, "starts", 2, "how often to start each server")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "when to call a start hung")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	f, err := readFiles(dir)
	if err != nil {
		return err
	}
	verdicts, err := judge(f, o)
	if err != nil {
		return err
	}
	return printJSON(out, verdicts)
}

// judge starts all servers, each on copies of its own, and gives their verdicts by version.
func judge(f tree, o judgeOptions) (map[string][]startVerdict, error) {
	names, err := serverVersions(o.servers)
	if err != nil {
		return nil, err
	}
	verdicts := map[string][]startVerdict{}
	errs := make([]error, len(names))
	var mtx sync.Mutex
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			v, err := judgeOne(filepath.Join(o.servers, name, "prometheus"), f, o)
			mtx.Lock()
			defer mtx.Unlock()
			verdicts[name], errs[i] = v, err
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("server %s: %w", names[i], err)
		}
	}
	return verdicts, nil
}

// serverVersions lists the servers in a directory; none at all if there is no such directory.
func serverVersions(dir string) (names []string, err error) {
	if dir == "" {
		return nil, nil
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*", "prometheus"))
	for _, p := range paths {
		if st, err := os.Stat(p); err == nil && !st.IsDir() {
			names = append(names, filepath.Base(filepath.Dir(p)))
		}
	}
	return names, err
}

func judgeOne(prometheus string, f tree, o judgeOptions) (verdicts []startVerdict, err error) {
	prometheus, err = filepath.Abs(prometheus)
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "judge")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	data, config := filepath.Join(scratch, "data"), filepath.Join(scratch, "prometheus.yml")
	if err := f.write(data); err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, []byte(o.config), 0o666); err != nil {
		return nil, err
	}
	before := f
	for range o.starts {
		v, err := startServer(prometheus, data, config, o)
		if err != nil {
			return nil, err
		}
		after, err := readFiles(data)
		if err != nil {
			return nil, err
		}
		v.compare(before, after)
		verdicts, before = append(verdicts, *v), after
	}
	return verdicts, nil
}

var (
	logTime    = regexp.MustCompile(`^(?:ts|time)=\S+ `)
	logErr     = regexp.MustCompile(` err=("(?:[^"\\]|\\.)*"|\S+)`)
	logAddress = regexp.MustCompile(`msg="Listening on" .*address=(\S+)`)
	logLevel   = regexp.MustCompile(` level=(?i:warn|error) `)
)

func startServer(prometheus, data, config string, o judgeOptions) (*startVerdict, error) {
	args := []string{
		"--config.file=" + config, "--web.listen-address=127.0.0.1:0", "--storage.tsdb.path=" + data, "--log.level=info",
	}
	if o.features != "" {
		args = append(args, "--enable-feature="+o.features)
	}
	cmd := exec.Command(prometheus, args...)
	cmd.Dir = filepath.Dir(data)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	v := &startVerdict{Outcome: "exits", Log: []string{}}
	var address string
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		serves, told := false, false
		for lines.Scan() {
			line := lines.Text()
			// These two come in any order.
			if m := logAddress.FindStringSubmatch(line); m != nil {
				address = m[1]
			}
			serves = serves || strings.Contains(line, "Server is ready to receive web requests")
			if serves && address != "" && !told {
				told = true
				close(ready)
			}
			v.line(strings.ReplaceAll(line, data+"/", "data/"))
		}
		ended <- cmd.Wait()
	}()
	select {
	case <-ended:
		return v, nil
	case <-ready:
		v.Outcome = "starts"
		if v.Samples, err = countSamples(address); err != nil {
			_ = cmd.Process.Kill()
			return nil, err
		}
	case <-time.After(o.timeout):
		v.Outcome = "hangs"
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
	}
	return v, nil
}

// line takes in a line of the log.
func (v *startVerdict) line(line string) {
	fatal := strings.Contains(line, "opening storage failed")
	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
		v.Log = append(v.Log, line)
		v.Fatal = &line
		return
	}
	if !logLevel.MatchString(line) || !fatal && !strings.Contains(line, "component=tsdb") {
		return
	}
	v.Log = append(v.Log, logTime.ReplaceAllString(line, ""))
	m := logErr.FindStringSubmatch(line)
	if m == nil {
		return
	}
	text := m[1]
	if s, err := strconv.Unquote(text); err == nil {
		text = s
	}
	if v.Error == nil {
		v.Error = &text
	}
	if fatal {
		v.Fatal = &text
	}
}

// countSamples counts what can be queried of the days around the time of the fixtures.
func countSamples(address string) (*int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	query := url.Values{
		"query": {`{__name__=~".+"}[10d]`},
		"time":  {fmt.Sprint(noon/1000 + 5*24*3600)},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/query?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status string
		Error  string
		Data   struct {
			Result []struct{ Values, Histograms []json.RawMessage }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	n := 0
	if answer.Status != "success" {
		return nil, fmt.Errorf("query: HTTP status %s: %s", resp.Status, answer.Error)
	}
	for _, series := range answer.Data.Result {
		n += len(series.Values) + len(series.Histograms)
	}
	return &n, nil
}

// compare lists what a start did to the files; the m-mapped chunks it begins are no matter.
func (v *startVerdict) compare(before, after tree) {
	v.Deleted, v.Changed, v.Created = []string{}, []change{}, []string{}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		b, ok := after[name]
		switch {
		case !ok:
			v.Deleted = append(v.Deleted, name)
		case len(b) == 0 && len(before[name]) > 0:
			// Deleted, and begun anew under the same number.
			v.Deleted, v.Created = append(v.Deleted, name), append(v.Created, name)
		case !bytes.Equal(b, before[name]):
			v.Changed = append(v.Changed, change{name, len(before[name]), len(b)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[name]; !ok {
			v.Created = append(v.Created, name)
		}
	}
	slices.Sort(v.Created)
}

// readFiles reads a data directory, without what a server leaves behind beside its data.
func readFiles(dir string) (tree, error) {
	sizes, err := listFiles(dir)
	if err != nil {
		return nil, err
	}
	f := tree{}
	for name := range sizes {
		if name == "lock" || name == "queries.active" || strings.HasPrefix(name, "chunks_head/") {
			continue
		}
		if f[name], err = os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// digest tells whether a directory is still that of which a verdict was recorded.
func (f tree) digest() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(h, "%s\x00%d\x00", name, len(f[name]))
		h.Write(f[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// fixture is what stands in the file beside a fixture's directory.
type fixture struct {
	What     string `json:"what"`
	Digest   string `json:"digest"` // Of the directory: SHA-256 over paths, sizes and bytes.
	Features string `json:"features,omitempty"`
	Config   string `json:"config,omitempty"`
	Damage   []span `json:"damage"`
	Records  []span `json:"records"`
	// What could be queried before the damage, staleness markers aside.
	HealthySamples   int                       `json:"healthy_samples"`
	OracleRead       *readReport               `json:"oracle_read"`
	OracleReadConcat *readReport               `json:"oracle_read_concat"`
	OracleOpen       *openVerdict              `json:"oracle_open"`
	Prometheus       map[string][]startVerdict `json:"prometheus"`
}

// span is a range of bytes in a file, [offset, end).
type span struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	End    int64  `json:"end"`
}

// openVerdict is what is told of openReport.
type openVerdict struct {
	Error   *string `json:"error"`   // The first err= logged, or with which tsdb.Open failed.
	Started bool    `json:"started"` // On the first opening.
	Samples int     `json:"samples"`
	Again   *struct {
		Started bool `json:"started"`
		Samples int  `json:"samples"`
	} `json:"again"`
	CheckpointError *string `json:"checkpoint_error"` // Of making one right after the first opening.
}

// record asks the oracle, and the servers if there are any, about the directory dir, which holds f, and
// writes what they say to jsonPath. Verdicts of servers that are not there are kept if the directory is the
// same as before.
func (x *fixture) record(f tree, dir, jsonPath string, o judgeOptions) error {
	x.Digest = f.digest()
	var err error
	if x.OracleRead, err = read(dir, readOptions{}); err != nil {
		return err
	}
	if x.OracleReadConcat, err = read(dir, readOptions{concat: true}); err != nil {
		return err
	}
	for _, r := range []*readReport{x.OracleRead, x.OracleReadConcat} {
		r.relative(dir)
	}
	if x.OracleOpen, err = openCopy(f, o.features); err != nil {
		return err
	}
	o.config, o.features = emptyConfig, x.Features
	if x.Config != "" {
		o.config = x.Config
	}
	if x.Prometheus, err = judge(f, o); err != nil {
		return err
	}
	var old fixture
	if b, err := os.ReadFile(jsonPath); err == nil && json.Unmarshal(b, &old) == nil {
		for version, v := range old.Prometheus {
			if _, there := x.Prometheus[version]; there {
				continue
			}
			if old.Digest == x.Digest {
				x.Prometheus[version] = v
			} else {
				fmt.Fprintf(os.Stderr, "oracle: %s HAS CHANGED and the server %s is not there: its verdict is dropped\n",
					filepath.Base(dir), version)
			}
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(x); err != nil {
		return err
	}
	return os.WriteFile(jsonPath, b.Bytes(), 0o666)
}

// relative takes the data directory out of all paths.
func (r *readReport) relative(dir string) {
	for _, s := range []*string{r.Error, r.Inner, r.Dir} {
		if s != nil {
			*s = strings.ReplaceAll(*s, dir+string(filepath.Separator), "data/")
		}
	}
}

func openCopy(f tree, features string) (*openVerdict, error) {
	scratch, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	data := filepath.Join(scratch, "data")
	v := &openVerdict{}
	for _, checkpoint := range []bool{false, true} {
		if err := f.write(data); err != nil {
			return nil, err
		}
		o := openOptions{timeout: 2 * time.Minute, checkpoint: checkpoint, again: !checkpoint}
		args := []string{"--again", data}
		if checkpoint {
			args[0] = "--checkpoint"
		}
		var out bytes.Buffer
		if err := supervise(data, args, o, &out); err != nil {
			return nil, err
		}
		var rep openReport
		if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
			return nil, err
		}
		clean := func(s *string) *string {
			if s == nil {
				return nil
			}
			t := strings.ReplaceAll(*s, data+"/", "data/")
			return &t
		}
		if checkpoint {
			v.CheckpointError = clean(rep.CheckpointError)
			continue
		}
		v.Started, v.Samples = rep.OpenError == nil && rep.Crash == nil, rep.withoutStale()
		for _, line := range rep.Log {
			if e, ok := line["err"].(string); ok && v.Error == nil {
				v.Error = clean(&e)
			}
		}
		if v.Error == nil {
			v.Error = clean(rep.OpenError)
		}
		if rep.Crash != nil {
			v.Error = clean(rep.Crash)
		}
		if a := rep.Again; a != nil {
			v.Again = &struct {
				Started bool `json:"started"`
				Samples int  `json:"samples"`
			}{a.OpenError == nil && a.Crash == nil, a.withoutStale()}
		}
	}
	return v, nil
}

// withoutStale counts as a query does, which passes over staleness markers.
func (r *openReport) withoutStale() (n int) {
	stale := fmt.Sprintf("%016x", value.StaleNaN)
	for _, s := range r.Series {
		for _, sample := range s.Samples {
			if sample[1] != stale {
				n++
			}
		}
		n += len(s.Histograms)
	}
	return n
}
