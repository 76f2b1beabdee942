package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/util/compression"
)

// damaged is a kind of damage: a healthy directory and what is done to it. To add one, add a line to
// damagedKinds and run scripts/make-fixtures.
type damaged struct {
	name, what string
	make       func(*bench)
}

const (
	seg0 = "wal/00000000"
	seg1 = "wal/00000001"
	seg2 = "wal/00000002"
	cp2  = "wal/checkpoint.00000002/00000000"
)

var damagedKinds = []damaged{
	{"healthy", "Nothing is damaged: the directory most others are made from.", (*bench).plain},
	{"payload_bit_flip", "One bit of the payload of a full record in mid-segment.", func(b *bench) {
		b.plain()
		f := b.full(seg1, 0)
		b.flip(seg1, (f.off+7+f.end)/2, 0x10)
	}},
	{"crc_bit_flip", "One bit of the stored checksum of a full record in mid-segment.", func(b *bench) {
		b.plain()
		b.flip(seg1, b.full(seg1, 0).off+4, 0x40)
	}},
	{"length_bit_flip", "One bit of the length of a full record in mid-segment.", func(b *bench) {
		b.plain()
		b.flip(seg1, b.full(seg1, 0).off+2, 0x20)
	}},
	{"type_full_to_invalid", "One bit of the type of a full record: full becomes 5.", func(b *bench) {
		b.plain()
		b.flip(seg1, b.full(seg1, 0).off, 4)
	}},
	{"type_full_to_middle", "One bit of the type of a full record: full becomes middle.", func(b *bench) {
		b.plain()
		b.flip(seg1, b.full(seg1, 0).off, 2)
	}},
	{"type_full_to_page_term", "One bit of the type of a full record: full becomes page-term, the beginning of padding.", func(b *bench) {
		b.plain()
		b.flip(seg1, b.full(seg1, 0).off, 1)
	}},
	{"compression_flag_off", "The flag of a snappy record is cleared: its compressed bytes are taken for a record.", func(b *bench) {
		b.compression = compression.Snappy
		b.plain()
		b.flip(seg1, b.full(seg1, 0).off, 8)
	}},
	{"length_garbage", "The length of a full record in mid-segment is 65535.", func(b *bench) {
		b.plain()
		b.patch(seg1, b.full(seg1, 0).off+1, []byte{0xff, 0xff})
	}},
	{"overwritten_range", "3000 bytes in mid-page are overwritten with random ones, from one record's payload into another's.", func(b *bench) {
		b.plain()
		b.patch(seg1, b.full(seg1, 0).off+100, b.random(3000))
	}},
	{"orphan_first", "The writer gave a record up after its first fragment, at a page end; full records follow.", func(b *bench) {
		b.part0()
		head, f := b.dangling(b.scrapes(24))
		b.put(seg1, slices.Concat(head, b.segment(b.scrapes(20), true)))
		b.put(seg2, b.segment(b.scrapes(5), false))
		b.healthyAsIs()
		clear(b.before[seg1][f.off:f.end]) // As if the record had never been begun.
		b.damage = append(b.damage, span{seg1, f.off, f.end})
	}},
	{"orphan_last", "A page was never written: zeros. The page behind it begins with the last fragment of a record whose first was there.", func(b *bench) {
		b.part0()
		b.put(seg1, slices.Concat(b.segment(b.scrapes(20), true), b.segment(b.scrapes(60), true)))
		b.put(seg2, b.segment(b.scrapes(5), false))
		b.healthyAsIs()
		b.zero(seg1, pageSize, 2*pageSize)
	}},
	{"dangling_first", "A segment ends with the first fragment of a record and a page of padding: no start notices, every checkpoint " +
		"that takes in the segment behind it fails.", func(b *bench) {
		head, f := b.dangling(b.records0())
		b.put(seg0, slices.Concat(head, make([]byte, pageSize)))
		b.put(seg1, b.segment(b.scrapes(15), true))
		b.put(seg2, b.segment(b.scrapes(5), false))
		b.healthyAsIs()
		clear(b.before[seg0][f.off:f.end]) // As if the record had never been begun.
		b.damage = append(b.damage, span{seg0, f.off, f.end})
	}},
	{"zeroed_page_between_records", "A page of whole records was never written: zeros, which pass for padding.", func(b *bench) {
		b.part0()
		b.put(seg1, slices.Concat(b.segment(b.scrapes(20), true), b.segment(b.scrapes(20), true), b.segment(b.scrapes(10), true)))
		b.put(seg2, b.segment(b.scrapes(5), false))
		b.healthyAsIs()
		b.zero(seg1, pageSize, 2*pageSize)
	}},
	{"zeroed_page_inside_record", "The middle page of a series record over three pages was never written: zeros.", func(b *bench) {
		b.part0()
		recs := b.scrapes(40)
		var fresh []*storySeries
		for i := range 520 {
			fresh = append(fresh, b.add(labels.FromStrings(labels.MetricName, "http_requests_total",
				"instance", "api-1:8080", "job", "api", "user", fmt.Sprint(10_000+i)), true))
		}
		b.put(seg1, b.segment(slices.Concat(recs, [][]byte{b.seriesRecord(fresh)}, b.scrapes(15)), true))
		b.put(seg2, b.segment(b.scrapes(5), false))
		b.healthyAsIs()
		b.zero(seg1, pageSize, 2*pageSize)
	}},
	{"zeroed_page_inside_tombstones", "The middle page of a tombstones record over three pages was never written: zeros. No reader notices: what is left " +
		"of the record decodes, with one wrong tombstone.", func(b *bench) {
		b.part0()
		recs := b.scrapes(40)
		var stones []tombstones.Stone
		for i := range 2100 {
			from := noon - int64(i)*2000
			stones = append(stones, tombstones.Stone{
				Ref: storage.SeriesRef(1000 + i), Intervals: tombstones.Intervals{{Mint: from, Maxt: from + 1000}},
			})
		}
		b.put(seg1, b.segment(slices.Concat(recs, [][]byte{b.enc.Tombstones(stones, nil)}, b.scrapes(15)), true))
		b.put(seg2, b.segment(b.scrapes(5), false))
		b.healthyAsIs()
		b.zero(seg1, pageSize, 2*pageSize)
	}},
	{"torn_header_1", "The last segment ends after 1 byte of a record's header, as after a power cut.", tornTail(1)},
	{"torn_header_2", "The last segment ends after 2 bytes of a record's header, as after a power cut.", tornTail(2)},
	{"torn_header_3", "The last segment ends after 3 bytes of a record's header, as after a power cut.", tornTail(3)},
	{"torn_header_4", "The last segment ends after 4 bytes of a record's header, as after a power cut.", tornTail(4)},
	{"torn_header_5", "The last segment ends after 5 bytes of a record's header, as after a power cut.", tornTail(5)},
	{"torn_header_6", "The last segment ends after 6 bytes of a record's header, as after a power cut.", tornTail(6)},
	{"torn_payload", "The last segment ends in the middle of a record's payload, as after a power cut.", tornTail(150)},
	{"torn_middle_segment", "A segment ends in the middle of a record's payload, and the server wrote another one after it.", func(b *bench) {
		tornTail(150)(b)
		b.put(seg2, b.segment(b.scrapes(5), false))
		b.before[seg2] = b.tree[seg2]
	}},
	{"junk_in_padding", "Bytes in the padding at the end of a segment that are not zero.", func(b *bench) {
		b.plain()
		b.patch(seg0, pageSize-600, b.random(40))
	}},
	{"undecodable_series", "A series record that lacks its last 5 bytes, under a right checksum.", func(b *bench) {
		rec := b.target(httpLabels("api-9:8080", "/late"))
		b.undecodable(rec[:len(rec)-5])
	}},
	{"undecodable_samples", "A samples record that lacks its last 5 bytes, under a right checksum.", func(b *bench) {
		rec := b.enc.Samples([]record.RefSample{{Ref: 1, T: noon + 1, V: 1}, {Ref: 2, T: noon + 1, V: 2}}, nil)
		b.undecodable(rec[:len(rec)-5])
	}},
	{"bad_snappy_block", "A record whose snappy block cannot be decompressed, under a right checksum.", func(b *bench) {
		b.compression = compression.Snappy
		b.plain()
		f := b.full(seg1, 0)
		header := slices.Clone(b.tree[seg1][f.off : f.off+7])
		data := slices.Clone(b.tree[seg1][f.off+7 : f.end])
		copy(data[len(data)/2:], bytes.Repeat([]byte{0xff}, 16)) // Copies from far before the block's beginning.
		binary.BigEndian.PutUint32(header[3:], crc32.Checksum(data, castagnoli))
		b.patch(seg1, f.off, append(header, data...))
	}},
	{"duplicated_page", "A page holds the bytes of the page before it: a write that went astray.", func(b *bench) {
		b.threePages()
		b.patch(seg1, 2*pageSize, slices.Clone(b.tree[seg1][pageSize:2*pageSize]))
	}},
	{"duplicated_series_page", "A page holds the bytes of the segment's first page, series records too: every checksum is right, and each of them " +
		"wipes what was replayed of its series, which is all of the page between.", func(b *bench) {
		first := b.records0()
		b.put(seg0, slices.Concat(b.segment(first, true), b.segment(b.scrapes(20), true), b.segment(b.scrapes(20), true),
			b.segment(b.scrapes(5), true)))
		b.put(seg1, b.segment(b.scrapes(5), false))
		b.healthyAsIs()
		b.patch(seg0, 2*pageSize, slices.Clone(b.tree[seg0][:pageSize]))
	}},
	{"swapped_pages", "Two neighbouring pages have changed places.", func(b *bench) {
		b.threePages()
		p := b.tree[seg1]
		b.patch(seg1, pageSize, slices.Concat(p[2*pageSize:3*pageSize], p[pageSize:2*pageSize]))
	}},
	{"garbage_appended", "1000 random bytes behind the last record of the last segment.", func(b *bench) {
		b.plain()
		b.appendTo(seg2, b.random(1000))
	}},
	{"trailing_zero_pages", "Two pages of zeros behind the last one of the last segment: harmless.", func(b *bench) {
		b.small()
		n := len(b.tree[seg1])
		b.tree[seg1] = append(b.tree[seg1], make([]byte, 3*pageSize-n)...)
	}},
	{"zero_length_segment", "A segment of no bytes between others: harmless, a server leaves one whenever it is killed early.", func(b *bench) {
		b.small()
		b.put(seg2, []byte{})
		b.put("wal/00000003", b.segment(b.scrapes(5), false))
		b.healthyAsIs()
	}},
	{"gap_in_segments", "A segment is missing: no server starts.", func(b *bench) {
		b.plain()
		delete(b.tree, seg1)
		b.damage = append(b.damage, span{seg1, 0, 0})
	}},
	{"checkpoint_samples_damaged", "One bit of a samples record in the checkpoint: the whole WAL is deleted.", func(b *bench) {
		b.checkpointed()
		f := b.full(cp2, 0)
		b.flip(cp2, (f.off+7+f.end)/2, 1)
	}},
	{"checkpoint_series_damaged", "One bit of a series record in the checkpoint: the whole WAL is deleted.", func(b *bench) {
		b.checkpointed()
		b.flip(cp2, fragments(b.tree[cp2])[1].off+500, 1)
	}},
	{"checkpoint_series_damaged_started_twice", "As checkpoint_series_damaged, after a server was started twice and ran for a while: the " +
		"segments behind the checkpoint are gone, new ones count from 0 and are never replayed. References of series that stood " +
		"behind the damage were given to other series.", func(b *bench) {
		b.checkpointed()
		b.flip(cp2, fragments(b.tree[cp2])[1].off+500, 1)
		delete(b.tree, "wal/00000003")
		delete(b.tree, "wal/00000004")
		// What WL.Repair leaves of segment 0 (tsdb/wlog/wlog.go), then what the server went on with.
		b.put(seg0, make([]byte, pageSize))
		b.targets = b.targets[:1]
		b.lastRef = b.targets[0].series[len(b.targets[0].series)-1].ref
		recs := [][]byte{b.target(httpLabels("api-1:8080", "/static", "/query", "/login", "/new"))}
		b.put(seg1, b.segment(append(recs, b.scrapes(15)...), false))
	}},
	{"checkpoint_is_a_file", "A file by the name of a checkpoint: no server starts.", func(b *bench) {
		b.checkpointed()
		b.put("wal/checkpoint.00000001", []byte("kept for the post-mortem\n"))
		b.damage = append(b.damage, span{"wal/checkpoint.00000001", 0, int64(len(b.tree["wal/checkpoint.00000001"]))})
	}},
	{"wbl_damaged", "One bit of a samples record in the out-of-order log.", func(b *bench) {
		b.withWBL()
		f := b.full("wbl/00000000", 0)
		b.flip("wbl/00000000", (f.off+7+f.end)/2, 1)
	}},
	{"chunk_snapshot_damaged", "One bit of a record of the chunk snapshot.", func(b *bench) {
		name := b.withSnapshot()
		all := fragments(b.tree[name])
		f := all[len(all)/2]
		b.flip(name, (f.off+7+f.end)/2, 1)
	}},
	{"unknown_records", "Records of type 200 and of no bytes: harmless, passed over by all readers.", func(b *bench) {
		b.part0()
		recs := b.scrapes(10)
		recs = slices.Insert(recs, 7, append([]byte{200}, b.random(100)...), []byte{}, []byte{200})
		b.put(seg1, b.segment(recs, false))
		b.healthyAsIs()
	}},
}

// tornTail cuts the last segment n bytes into its last record.
func tornTail(n int64) func(*bench) {
	return func(b *bench) {
		b.small()
		all := fragments(b.tree[seg1])
		at := all[len(all)-1].off
		b.tree[seg1] = b.tree[seg1][:at+n]
		b.damage = append(b.damage, span{seg1, at, at + n})
		b.records = append(b.records, span{seg1, at, all[len(all)-1].end})
	}
}

// bench is where a fixture is made. Mistakes in a recipe panic.
type bench struct {
	*story
	tree        tree
	before      tree // Before the damage.
	damage      []span
	records     []span
	compression string
	features    string
	config      string
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (b *bench) segment(recs [][]byte, padded bool) []byte {
	return must(segmentBytes(recs, b.compression, padded))
}

func (b *bench) put(name string, data []byte) { b.tree[name] = data }

// healthyAsIs says that what is there now is the directory before the damage.
func (b *bench) healthyAsIs() { b.before = b.tree.clone() }

func (b *bench) random(n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rng.IntN(256))
	}
	return data
}

// records0 are those of a first segment of one page: two targets and 20 rounds of scrapes.
func (b *bench) records0() [][]byte {
	recs := [][]byte{b.target(nodeLabels("db-1:9100", 2)), b.target(httpLabels("api-1:8080", "/login", "/query", "/static"))}
	return append(recs, b.scrapes(20)...)
}

func (b *bench) part0() { b.put(seg0, b.segment(b.records0(), true)) }

// small is a page, and a last segment of a few records.
func (b *bench) small() {
	b.part0()
	b.put(seg1, b.segment(b.scrapes(8), false))
	b.healthyAsIs()
}

// plain has a page, two pages, and a last segment of a few records.
func (b *bench) plain() {
	b.part0()
	b.put(seg1, b.segment(b.scrapes(60), true))
	b.put(seg2, b.segment(b.scrapes(5), false))
	b.healthyAsIs()
}

func (b *bench) threePages() {
	b.part0()
	b.put(seg1, b.segment(b.scrapes(100), true))
	b.put(seg2, b.segment(b.scrapes(5), false))
	b.healthyAsIs()
}

func (b *bench) checkpointed() {
	b.put(cp2, b.segment(b.records0(), true))
	b.put("wal/00000003", b.segment(b.scrapes(20), true))
	b.put("wal/00000004", b.segment(b.scrapes(5), false))
	b.healthyAsIs()
}

// dangling writes records and some scrapes until one crosses a page end, and gives the page and the first
// fragment that it ends with.
func (b *bench) dangling(recs [][]byte) ([]byte, fragment) {
	for {
		data := b.segment(recs, false)
		for _, f := range fragments(data) {
			if f.typ == recFirst && f.end == pageSize {
				return data[:pageSize], f
			}
		}
		recs = append(recs, b.scrapes(1)...)
	}
}

// undecodable puts a record that is none into the middle of a segment.
func (b *bench) undecodable(rec []byte) {
	b.part0()
	before, after, last := b.scrapes(10), b.scrapes(20), b.scrapes(5)
	at := int64(len(b.segment(before, false)))
	b.put(seg1, b.segment(slices.Concat(before, after), true))
	b.put(seg2, b.segment(last, false))
	b.healthyAsIs()
	b.put(seg1, b.segment(slices.Concat(before, [][]byte{rec}, after), true))
	b.damage = append(b.damage, span{seg1, at, at + 7 + int64(len(rec))})
}

// withWBL has samples that came in late, with the markers of chunks that are not there.
func (b *bench) withWBL() {
	b.config = "storage:\n  tsdb:\n    out_of_order_time_window: 30m\n" + emptyConfig
	b.small()
	var recs [][]byte
	for i := range 80 {
		t := noon - int64(80-i)*1000
		var samples []record.RefSample
		for _, one := range b.targets[i%2].series {
			samples = append(samples, record.RefSample{Ref: one.ref, T: t, V: float64(i)})
		}
		if i == 5 || i == 25 {
			recs = append(recs, b.enc.MmapMarkers([]record.RefMmapMarker{{
				Ref: b.targets[0].series[0].ref, MmapRef: chunks.ChunkDiskMapperRef(1<<32 | uint64(8+i)),
			}}, nil))
		}
		recs = append(recs, b.enc.Samples(samples, nil))
	}
	b.put("wbl/00000000", b.segment(recs[:len(recs)-10], true))
	b.put("wbl/00000001", b.segment(recs[len(recs)-10:], false))
	b.healthyAsIs()
}

// withSnapshot has Prometheus itself make the snapshot, on shutdown; it gives its segment.
func (b *bench) withSnapshot() string {
	b.features = "memory-snapshot-on-shutdown"
	b.small()
	dir := must(os.MkdirTemp("", "oracle"))
	defer os.RemoveAll(dir)
	if err := b.tree.write(dir); err != nil {
		panic(err)
	}
	opts := serverOptions(dir, openOptions{})
	opts.EnableMemorySnapshotOnShutdown = true
	opts.WALCompression = compression.None
	db := must(tsdb.Open(dir, discard, nil, opts, nil))
	db.DisableCompactions()
	if err := db.Close(); err != nil {
		panic(err)
	}
	b.tree = must(readFiles(dir))
	b.healthyAsIs()
	for name := range b.tree {
		if strings.HasPrefix(name, "chunk_snapshot.") {
			return name
		}
	}
	panic("no snapshot")
}

// full gives a full record about the middle of a page of a segment.
func (b *bench) full(name string, page int64) fragment {
	for _, f := range fragments(b.tree[name]) {
		if f.typ == recFull && f.off > page*pageSize+pageSize/2 {
			return f
		}
	}
	panic("no full record in " + name)
}

// patch overwrites bytes in place.
func (b *bench) patch(name string, off int64, with []byte) {
	data := slices.Clone(b.tree[name])
	copy(data[off:], with)
	b.tree[name] = data
	end := off + int64(len(with))
	b.damage = append(b.damage, span{name, off, end})
	b.records = append(b.records, hit(b.before[name], name, off, end)...)
}

func (b *bench) flip(name string, off int64, bits byte) {
	b.patch(name, off, []byte{b.tree[name][off] ^ bits})
}

func (b *bench) zero(name string, from, to int64) { b.patch(name, from, make([]byte, to-from)) }

func (b *bench) appendTo(name string, data []byte) {
	n := int64(len(b.tree[name]))
	b.tree[name] = append(slices.Clone(b.tree[name]), data...)
	b.damage = append(b.damage, span{name, n, n + int64(len(data))})
}

func runDamaged(args []string, out io.Writer) error {
	o := judgeOptions{starts: 2, timeout: time.Minute}
	var only string
	flags := flag.NewFlagSet("damaged", flag.ContinueOnError)
	flags.StringVar(&o.servers, "servers", "", "directory of servers: <version>/prometheus")
	flags.StringVar(&only, "only", "", "make this one alone")
	dir, err := parseDir(flags, args)
	if err != nil {
		return err
	}
	if only == "" {
		if err := removeOthers(dir); err != nil {
			return err
		}
	}
	made := 0
	for _, k := range damagedKinds {
		if only != "" && only != k.name {
			continue
		}
		if err := k.write(filepath.Join(dir, k.name), o); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		made++
	}
	if made == 0 {
		return fmt.Errorf("%w: no such kind: %q", errUsage, only)
	}
	return printJSON(out, map[string]any{"dir": dir, "made": made})
}

func (k damaged) write(dir string, o judgeOptions) (err error) {
	b := &bench{story: newStory(noon), tree: tree{}, compression: compression.None}
	k.make(b)
	if err := b.tree.write(dir); err != nil {
		return err
	}
	x := &fixture{What: k.what, Features: b.features, Config: b.config, Damage: []span{}, Records: []span{}}
	x.Damage = append(x.Damage, b.damage...)
	x.Records = append(x.Records, b.records...)
	if x.HealthySamples, err = healthySamples(b.before); err != nil {
		return err
	}
	return x.record(b.tree, dir, dir+".json", o)
}

// removeOthers removes the fixtures of kinds that are no more.
func removeOthers(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".json")
		if slices.ContainsFunc(damagedKinds, func(k damaged) bool { return k.name == name }) {
			continue
		}
		if err := os.RemoveAll(strings.TrimSuffix(p, ".json")); err != nil {
			return err
		}
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return nil
}
