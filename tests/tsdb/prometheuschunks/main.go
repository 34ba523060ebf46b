// Writes chunks.json: chunks of every encoding as Prometheus encodes them, with the samples that Prometheus
// reads from them. To make it again, in an empty folder with this file:
//
//	go mod init chunks && go get github.com/prometheus/prometheus@v0.314.0 && go run . | gzip -9n > chunks.json.gz
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand"
	"os"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

type hs struct {
	T, ST              int64
	Schema             int32
	Hint               int
	ZT, ZC, Count, Sum string
	Pos, Neg           [][2]string
	Custom             []string
}
type fs struct {
	T, ST int64
	V     string
}
type out struct {
	Name     string
	Encoding int
	Data     string
	Floats   []fs `json:",omitempty"`
	Hists    []hs `json:",omitempty"`
}

var stale = math.Float64frombits(0x7ff0000000000002)

func bits(f float64) string { return fmt.Sprintf("%016x", math.Float64bits(f)) }

func side(spans []histogram.Span, counts []float64) [][2]string {
	r := [][2]string{}
	idx := int64(0)
	k := 0
	for _, s := range spans {
		idx += int64(s.Offset)
		for i := uint32(0); i < s.Length; i++ {
			r = append(r, [2]string{fmt.Sprint(idx), bits(counts[k])})
			k++
			idx++
		}
	}
	return r
}

func dump(name string, c chunkenc.Chunk) out {
	o := out{Name: name, Encoding: int(c.Encoding()), Data: hex.EncodeToString(c.Bytes())}
	it := c.Iterator(nil)
	for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
		if vt == chunkenc.ValFloat {
			t, v := it.At()
			o.Floats = append(o.Floats, fs{t, it.AtST(), bits(v)})
			continue
		}
		t, h := it.AtFloatHistogram(nil)
		x := hs{T: t, ST: it.AtST(), Schema: h.Schema, Hint: int(h.CounterResetHint), ZT: bits(h.ZeroThreshold), ZC: bits(h.ZeroCount),
			Count: bits(h.Count), Sum: bits(h.Sum), Pos: side(h.PositiveSpans, h.PositiveBuckets), Neg: side(h.NegativeSpans, h.NegativeBuckets), Custom: []string{}}
		for _, v := range h.CustomValues {
			x.Custom = append(x.Custom, bits(v))
		}
		o.Hists = append(o.Hists, x)
	}
	if it.Err() != nil {
		panic(it.Err())
	}
	return o
}

func floats(c chunkenc.Chunk, n int, mode int, r *rand.Rand) {
	app, _ := c.Appender()
	t := int64(1700000000000)
	if mode == 3 {
		t = -5000
	}
	v := 1.0
	st := int64(0)
	for i := 0; i < n; i++ {
		switch mode {
		case 0:
			t += 15000
			v += float64(r.Intn(3))
		case 1:
			t += 15000 + int64(r.Intn(40)) - 20
			v = r.NormFloat64() * 1e6
			if r.Intn(6) == 0 {
				v = stale
			}
			if r.Intn(4) == 0 && i > 3 {
				st = t - int64(r.Intn(100000))
			}
		case 2:
			t += int64(1) << uint(r.Intn(30))
			v = math.Float64frombits(r.Uint64())
			st = t - 7
		case 3:
			t += 1
			v = []float64{stale, 0, math.NaN(), math.Inf(1), -0.0, 5e-324}[r.Intn(6)]
			if i == 0 {
				st = 77
			}
		}
		app.Append(st, t, v)
	}
}

func ih(i int, r *rand.Rand, mode int) *histogram.Histogram {
	h := &histogram.Histogram{Schema: 3, ZeroThreshold: math.Ldexp(1, -128), ZeroCount: uint64(i * 2), Sum: float64(i) * 18.4,
		PositiveSpans:   []histogram.Span{{Offset: -3, Length: 2}, {Offset: 4, Length: 3}},
		PositiveBuckets: []int64{int64(i + 1), int64(i % 3), -1, 0, int64(i*i) % 5},
		NegativeSpans:   []histogram.Span{{Offset: 0, Length: 1}, {Offset: 0, Length: 1}}, NegativeBuckets: []int64{int64(i), int64(i)}}
	if mode == 1 {
		h.CounterResetHint = histogram.GaugeType
		h.Schema = -4
		h.ZeroThreshold = 0.3
	}
	if mode == 2 {
		h = &histogram.Histogram{Schema: -53, Sum: 3.25 * float64(i), CustomValues: []float64{-1.5, 0, 0.005, 0.1, 1, 100000.5},
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}, {Offset: 1, Length: 2}}, PositiveBuckets: []int64{int64(i * 100), 1, 1, 2, int64(i) << 40}}
	}
	if mode == 3 {
		h.Schema = 8
		h.ZeroThreshold = 0
		h.ZeroCount = 0
		h.NegativeSpans, h.NegativeBuckets = nil, nil
	}
	var total uint64 = h.ZeroCount
	cur := int64(0)
	for _, d := range h.PositiveBuckets {
		cur += d
		total += uint64(cur)
	}
	cur = 0
	for _, d := range h.NegativeBuckets {
		cur += d
		total += uint64(cur)
	}
	h.Count = total
	return h
}

func hists(c chunkenc.Chunk, isFloat bool, n, mode int, r *rand.Rand) []out {
	var res []out
	app, _ := c.Appender()
	t := int64(1700000000000)
	st := int64(0)
	name := fmt.Sprintf("histograms enc %d mode %d", c.Encoding(), mode)
	for i := 0; i < n; i++ {
		t += 15000
		if mode == 3 {
			t += int64(r.Intn(100))
			st = t - 100
			if i < 2 {
				st = 0
			}
		}
		if mode == 1 {
			st = 1699999999999
		}
		h := ih(i, r, mode)
		if mode == 0 && i == n-1 {
			h = &histogram.Histogram{Sum: stale}
		}
		var nc chunkenc.Chunk
		var recoded bool
		var err error
		if isFloat {
			fh := h.ToFloat(nil)
			if mode != 2 && !math.IsNaN(fh.Sum) {
				for k := range fh.PositiveBuckets {
					fh.PositiveBuckets[k] *= 1.37
					fh.Count += 0.37
				}
			}
			nc, recoded, app, err = app.AppendFloatHistogram(nil, st, t, fh, false)
		} else {
			nc, recoded, app, err = app.AppendHistogram(nil, st, t, h, false)
		}
		if err != nil {
			panic(err)
		}
		if nc != nil {
			if !recoded {
				res = append(res, dump(name, c))
			}
			c = nc
		}
	}
	return append(res, dump(name, c))
}

func main() {
	r := rand.New(rand.NewSource(20261123))
	var all []out
	for mode := 0; mode < 4; mode++ {
		for _, n := range []int{1, 2, 3, 140} {
			a, b := chunkenc.NewXORChunk(), chunkenc.NewXOR2Chunk()
			floats(a, n, mode, r)
			floats(b, n, mode, r)
			all = append(all, dump(fmt.Sprintf("xor mode %d", mode), a), dump(fmt.Sprintf("xor2 mode %d", mode), b))
		}
	}
	for mode := 0; mode < 4; mode++ {
		for _, n := range []int{1, 2, 30, 135} {
			if n == 135 && mode != 3 {
				continue
			}
			all = append(all, hists(chunkenc.NewHistogramChunk(), false, n, mode, r)...)
			all = append(all, hists(chunkenc.NewFloatHistogramChunk(), true, n, mode, r)...)
			all = append(all, hists(chunkenc.NewHistogramSTChunk(), false, n, mode, r)...)
			all = append(all, hists(chunkenc.NewFloatHistogramSTChunk(), true, n, mode, r)...)
		}
	}
	json.NewEncoder(os.Stdout).Encode(all)
}
