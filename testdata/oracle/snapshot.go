package main

import (
	"errors"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Record types of a chunk snapshot (tsdb/head_wal.go, chunkSnapshotRecordType*).
const (
	snapshotSeries     = 1
	snapshotTombstones = 2
	snapshotExemplars  = 3
)

func snapshotType(rec []byte) string {
	if len(rec) == 0 {
		return "unknown"
	}
	switch rec[0] {
	case snapshotSeries:
		return "series"
	case snapshotTombstones:
		return "tombstones"
	case snapshotExemplars:
		return "exemplars"
	}
	return "unknown"
}

// snapshotEntries follows decodeSeriesFromChunkSnapshot, decodeTombstonesSnapshotRecord and loadChunkSnapshot
// of tsdb/head_wal.go. Of a series's chunk only its bounds, encoding and length are given.
func (w *lineWriter) snapshotEntries(d *record.Decoder, rec []byte) error {
	if len(rec) == 0 {
		return errors.New("empty snapshot record")
	}
	dec := encoding.Decbuf{B: rec[1:]}
	switch rec[0] {
	case snapshotSeries:
		ref := dec.Be64()
		lset := d.DecodeLabels(&dec)
		_ = dec.Be64int64() // Chunk range, no longer used.
		w.open().raw(`"ref":`).u64(ref).raw(`,"labels":`).labels(lset)
		if dec.Uvarint() != 0 {
			mint, maxt, enc := dec.Be64int64(), dec.Be64int64(), dec.Byte()
			data := dec.UvarintBytes()
			w.raw(`,"chunk":{"mint":`).i64(mint).raw(`,"maxt":`).i64(maxt)
			w.raw(`,"encoding":`).int(int64(enc)).raw(`,"bytes":`).int(int64(len(data))).raw("}")
		}
		w.raw("}")
		return dec.Err()
	case snapshotTombstones:
		// The record nests a tombstones file without its magic number.
		data := dec.UvarintBytes()
		if dec.Err() != nil {
			return dec.Err()
		}
		tr, err := tombstones.Decode(data)
		if err != nil {
			return err
		}
		return tr.Iter(func(ref storage.SeriesRef, ivs tombstones.Intervals) error {
			for _, iv := range ivs {
				w.open().raw(`"ref":`).u64(uint64(ref)).raw(`,"mint":`).i64(iv.Mint)
				w.raw(`,"maxt":`).i64(iv.Maxt).raw("}")
			}
			return nil
		})
	case snapshotExemplars:
		exemplars, err := d.ExemplarsFromBuffer(&dec, nil)
		if err != nil {
			return err
		}
		w.exemplars(exemplars)
	}
	return nil
}
