package main

import (
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"
)

func newDecoder() record.Decoder {
	return record.NewDecoder(labels.NewSymbolTable(), promslog.NewNopLogger())
}
