package main

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// encodedChunk is a chunk as its appender has written it, or the same with damage.
type encodedChunk struct {
	Encoding uint8    `json:"encoding"`
	Data     string   `json:"data"` // Hexadecimal.
	Damaged  bool     `json:"damaged"`
	Samples  []string `json:"samples"` // What its iterator returns, see formatSample.
	Error    *string  `json:"error"`   // Why the iterator ended.
}

// runChunkenc writes random chunks of all encodings, and damaged copies of them, one JSON document a line.
func runChunkenc(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("chunkenc", flag.ContinueOnError)
	seed := flags.Int64("seed", 0, "of the first chunk")
	count := flags.Int("count", 100, "how many")
	damages := flags.Int("damages", 3, "damaged copies of each")
	if err := flags.Parse(args); err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	for i := range *count {
		rng := rand.New(rand.NewSource(*seed + int64(i)))
		encoding := chunkenc.Encoding(1 + i%6)
		data, err := randomChunk(rng, encoding)
		if err != nil {
			return err
		}
		if err := encoder.Encode(iterate(encoding, data, false)); err != nil {
			return err
		}
		for range *damages {
			damaged := append([]byte(nil), data...)
			// A damaged layout of histograms may ask for more memory than there is.
			first := 0
			if encoding != chunkenc.EncXOR && encoding != chunkenc.EncXOR2 {
				first = min(60, len(damaged)-1)
			}
			switch rng.Intn(3) {
			case 0:
				damaged[first+rng.Intn(len(damaged)-first)] ^= 1 << rng.Intn(8)
			case 1:
				for range 1 + rng.Intn(8) {
					damaged[first+rng.Intn(len(damaged)-first)] = byte(rng.Intn(256))
				}
			default:
				damaged = damaged[:max(3, first+rng.Intn(len(damaged)-first))]
			}
			if err := encoder.Encode(iterate(encoding, damaged, true)); err != nil {
				return err
			}
		}
	}
	return nil
}

// iterate reads a chunk as a query does.
func iterate(encoding chunkenc.Encoding, data []byte, damaged bool) (rep encodedChunk) {
	rep = encodedChunk{Encoding: uint8(encoding), Data: hex.EncodeToString(data), Damaged: damaged, Samples: []string{}}
	defer func() {
		if r := recover(); r != nil {
			text := fmt.Sprint("panic: ", r)
			rep.Error = &text
		}
	}()
	chunk, err := chunkenc.FromData(encoding, data)
	if err != nil {
		text := err.Error()
		rep.Error = &text
		return rep
	}
	it := chunk.Iterator(nil)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		rep.Samples = append(rep.Samples, formatSample(it, kind))
	}
	if err := it.Err(); err != nil {
		text := err.Error()
		rep.Error = &text
	}
	return rep
}

// formatSample gives times in ms and floats as their bits in hexadecimal: "t st value", or
// "t st hint schema zero-threshold zero-count count sum spans spans buckets buckets bounds".
func formatSample(it chunkenc.Iterator, kind chunkenc.ValueType) string {
	bits := func(values ...float64) (all []string) {
		for _, v := range values {
			all = append(all, fmt.Sprintf("%x", math.Float64bits(v)))
		}
		return all
	}
	spans := func(spans []histogram.Span) (all []string) {
		for _, s := range spans {
			all = append(all, fmt.Sprintf("%d:%d", s.Offset, s.Length))
		}
		return all
	}
	switch kind {
	case chunkenc.ValFloat:
		t, v := it.At()
		return fmt.Sprintf("%d %d %x", t, it.AtST(), math.Float64bits(v))
	case chunkenc.ValHistogram:
		t, h := it.AtHistogram(nil)
		return fmt.Sprintf("%d %d %d %d %x %d %d %x %v %v %v %v %v", t, it.AtST(), h.CounterResetHint, h.Schema,
			math.Float64bits(h.ZeroThreshold), h.ZeroCount, h.Count, math.Float64bits(h.Sum),
			spans(h.PositiveSpans), spans(h.NegativeSpans), h.PositiveBuckets, h.NegativeBuckets, bits(h.CustomValues...))
	default:
		t, h := it.AtFloatHistogram(nil)
		return fmt.Sprintf("%d %d %d %d %x %x %x %x %v %v %v %v %v", t, it.AtST(), h.CounterResetHint, h.Schema,
			math.Float64bits(h.ZeroThreshold), math.Float64bits(h.ZeroCount), math.Float64bits(h.Count), math.Float64bits(h.Sum),
			spans(h.PositiveSpans), spans(h.NegativeSpans), bits(h.PositiveBuckets...), bits(h.NegativeBuckets...), bits(h.CustomValues...))
	}
}

// chunkShape says how many samples a chunk gets, and when.
type chunkShape struct {
	samples    int
	t          int64 // Of the sample before the first.
	step       int64
	steadiness int   // 0: any times, 3: always the same step.
	jitter     int64 // Below which a step is longer now and then.
	jump       int   // Bits of the longest step where steadiness is 0.
	latest     int64 // No sample is after it.
}

// randomChunk appends random samples until there are enough, or the appender begins another chunk.
func randomChunk(rng *rand.Rand, encoding chunkenc.Encoding) ([]byte, error) {
	shape := chunkShape{samples: 1 + rng.Intn(200), jitter: 2000, jump: 40, latest: math.MaxInt64}
	if rng.Intn(4) == 0 {
		shape.samples = 1 + rng.Intn(4)
	}
	shape.t = rng.Int63n(2_000_000_000_000) - rng.Int63n(2)*1_000_000_000_000
	shape.step = 1 + rng.Int63n(60_000)
	shape.steadiness = rng.Intn(4)
	chunk, err := shapedChunk(rng, encoding, shape)
	if err != nil {
		return nil, err
	}
	return chunk.Bytes(), nil
}

// shapedChunk is randomChunk with samples at the times of shape.
func shapedChunk(rng *rand.Rand, encoding chunkenc.Encoding, shape chunkShape) (chunkenc.Chunk, error) {
	chunk, err := chunkenc.NewEmptyChunk(encoding)
	if err != nil {
		return nil, err
	}
	app, err := chunk.Appender()
	if err != nil {
		return nil, err
	}
	t := shape.t
	st := int64(0)
	v := rng.NormFloat64() * 1000
	h := randomHistogram(rng)
	for range shape.samples {
		switch {
		case shape.steadiness == 0:
			t += 1 + rng.Int63n(1<<uint(1+rng.Intn(shape.jump)))
		case shape.steadiness < 3 && rng.Intn(5) == 0:
			t += shape.step + rng.Int63n(shape.jitter)
		default:
			t += shape.step
		}
		if t > shape.latest {
			return chunk, nil
		}
		switch rng.Intn(12) {
		case 0:
			st = t - rng.Int63n(100_000)
		case 1:
			st = rng.Int63n(1 << 41)
		}
		if shape.steadiness == 1 {
			st = 0
		}
		stale := rng.Intn(60) == 0
		switch encoding {
		case chunkenc.EncXOR, chunkenc.EncXOR2:
			switch rng.Intn(5) {
			case 0:
				v = math.Float64frombits(rng.Uint64())
			case 1:
				v = math.Floor(v) + 1
			case 2:
				v += rng.NormFloat64()
			}
			if stale {
				app.Append(st, t, math.Float64frombits(value.StaleNaN))
			} else {
				app.Append(st, t, v)
			}
		default:
			grow(rng, h)
			next := h.Copy()
			if stale {
				next = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
			}
			var other chunkenc.Chunk
			var recoded bool
			var a chunkenc.Appender
			if encoding == chunkenc.EncHistogram || encoding == chunkenc.EncHistogramST {
				other, recoded, a, err = app.AppendHistogram(nil, st, t, next, false)
			} else {
				fh := next.ToFloat(nil)
				if rng.Intn(3) == 0 {
					fh.Count += 0.25
				}
				other, recoded, a, err = app.AppendFloatHistogram(nil, st, t, fh, false)
			}
			if err != nil {
				return nil, err
			}
			if other != nil && !recoded {
				return chunk, nil
			}
			if other != nil {
				chunk = other
			}
			app = a
		}
	}
	return chunk, nil
}

func randomHistogram(rng *rand.Rand) *histogram.Histogram {
	h := &histogram.Histogram{Schema: int32(rng.Intn(13) - 4), ZeroThreshold: math.Ldexp(1, -rng.Intn(200)), Count: 1000}
	if rng.Intn(4) == 0 {
		h.ZeroThreshold = rng.Float64()
	}
	spans := func() (spans []histogram.Span, buckets []int64) {
		for range rng.Intn(4) {
			s := histogram.Span{Offset: int32(rng.Intn(20)), Length: uint32(1 + rng.Intn(6))}
			spans = append(spans, s)
			buckets = append(buckets, make([]int64, s.Length)...)
		}
		return spans, buckets
	}
	h.PositiveSpans, h.PositiveBuckets = spans()
	if rng.Intn(4) == 0 {
		h.Schema, h.ZeroThreshold = histogram.CustomBucketsSchema, 0
		bound := 0.0
		for range 100 {
			bound += float64(1+rng.Intn(1000)) / 1000
			if rng.Intn(5) == 0 {
				bound += rng.Float64()
			}
			h.CustomValues = append(h.CustomValues, bound)
		}
		return h
	}
	h.NegativeSpans, h.NegativeBuckets = spans()
	if rng.Intn(5) == 0 {
		h.CounterResetHint = histogram.GaugeType
	}
	return h
}

// grow adds observations, and now and then a bucket.
func grow(rng *rand.Rand, h *histogram.Histogram) {
	observe := func(buckets []int64) {
		if len(buckets) == 0 {
			return
		}
		i, n := rng.Intn(len(buckets)), rng.Int63n(1<<uint(1+rng.Intn(20)))
		buckets[i] += n
		if i+1 < len(buckets) {
			buckets[i+1] -= n
		}
		h.Count += uint64(n)
	}
	for range rng.Intn(4) {
		observe(h.PositiveBuckets)
		observe(h.NegativeBuckets)
	}
	h.ZeroCount += uint64(rng.Intn(3))
	h.Sum += rng.NormFloat64() * 10
	if rng.Intn(20) == 0 && len(h.PositiveSpans) > 0 {
		last := len(h.PositiveSpans) - 1
		h.PositiveSpans[last].Length++
		sum := int64(0)
		for _, b := range h.PositiveBuckets {
			sum += b
		}
		h.PositiveBuckets = append(h.PositiveBuckets, -sum)
	}
}
