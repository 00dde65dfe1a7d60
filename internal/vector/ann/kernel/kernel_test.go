package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"tategu/internal/vector/ann/kernel"
)

func aligned[T any](n int) []T {
	var t T
	b := make([]byte, n*int(unsafe.Sizeof(t))+64)
	o := int(-uintptr(unsafe.Pointer(&b[0])) & 63)
	return unsafe.Slice((*T)(unsafe.Pointer(&b[o])), n)
}

// others are the sets in assembly that this processor runs.
func others(t *testing.T) []kernel.Set {
	t.Helper()
	sets := kernel.Available()[1:]
	if len(sets) == 0 {
		t.Skip("this processor has no set but the plain one")
	}
	for _, s := range sets {
		t.Log("set", s.Name)
	}
	return sets
}

func TestScanAsPlain(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, set := range others(t) {
		for range 800 {
			half := rng.IntN(2) == 0
			groups, blocks := 1+rng.IntN(60), 1+rng.IntN(11)
			shift := 64 * rng.IntN(3) // blocks begin at lines, not pages
			query := make([]int8, 8*groups+5)[5:]
			codes := aligned[byte](64*groups*blocks + shift)[shift:]
			for i := range query {
				query[i] = int8(rng.IntN(256) - 128)
			}
			for i := range codes {
				codes[i] = byte(rng.IntN(256))
			}
			if rng.IntN(20) == 0 { // the extremes
				for i := range query {
					query[i] = -128
				}
				for i := range codes {
					codes[i] = 255
				}
			}
			var norms []float32
			if rng.IntN(2) == 0 {
				norms = make([]float32, 16*blocks)
				for i := range norms {
					norms[i] = rng.Float32() * 1000
				}
			}
			a := kernel.Scan{
				Query: &query[0], Codes: &codes[0], Groups: groups, Blocks: blocks, Beta: rng.Float32() * 20,
				Threshold: float32(rng.NormFloat64()) * 20000, First: rng.Uint32N(1 << 30),
			}
			if rng.IntN(4) == 0 {
				a.Threshold = -1e38
			}
			if norms != nil {
				a.Norms = &norms[0]
			}
			run := func(s kernel.Set) string {
				rows, scores := make([]uint32, 16*(blocks+1)), make([]float32, 16*(blocks+1))
				a := a
				a.Rows, a.Scores = &rows[0], &scores[0]
				n := 0
				if half {
					n = s.Half(&a)
				} else {
					n = s.Scan(&a)
				}
				return fmt.Sprint(rows[:n], scores[:n])
			}
			if want, got := run(kernel.Plain()), run(set); want != got {
				t.Fatalf("%s: half %v, %d groups, %d blocks, norms %v:\n%s\ninstead of\n%s", set.Name, half, groups, blocks, norms != nil, got, want)
			}
		}
	}
}

func TestPickAsPlain(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	for _, set := range others(t) {
		for range 300 {
			lines, n := 1+rng.IntN(14), 1+rng.IntN(50)
			stride := 64 * (lines + rng.IntN(2))
			query, codes := aligned[int8](64*lines), aligned[byte](stride*n)
			for i := range query {
				query[i] = int8(rng.IntN(256) - 128)
			}
			for i := range codes {
				codes[i] = byte(rng.IntN(256))
			}
			rows := make([]uint32, 1+rng.IntN(40))
			for i := range rows {
				rows[i] = rng.Uint32N(uint32(n))
			}
			run := func(s kernel.Set) []int32 {
				out := make([]int32, len(rows)+1)
				out[len(rows)] = 77
				s.Pick(&kernel.Pick{Query: &query[0], Codes: &codes[0], Rows: &rows[0], Out: &out[0], Count: len(rows), Lines: lines, Stride: stride, Next: &codes[0]})
				return out
			}
			if want, got := run(kernel.Plain()), run(set); !slices.Equal(want, got) {
				t.Fatalf("%s: %v instead of %v", set.Name, got, want)
			}
		}
	}
}

func TestRankAsPlain(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	plain := kernel.Plain()
	for _, set := range others(t) {
		for name, f := range map[string][2]func(*kernel.Rank){"dot": {plain.Dot, set.Dot}, "l2": {plain.L2, set.L2}, "l1": {plain.L1, set.L1}} {
			for range 150 {
				stride, n := 16*(1+rng.IntN(50)), 1+rng.IntN(40)
				query, base := aligned[float32](stride), aligned[float32](stride*n)
				for i := range query {
					query[i] = float32(rng.NormFloat64())
				}
				for i := range base {
					base[i] = float32(rng.NormFloat64())
				}
				rows := make([]uint32, 1+rng.IntN(20))
				for i := range rows {
					rows[i] = rng.Uint32N(uint32(n))
				}
				run := func(f func(*kernel.Rank)) []float32 {
					out := make([]float32, len(rows)+1)
					out[len(rows)] = 77
					f(&kernel.Rank{Query: &query[0], Base: &base[0], Rows: &rows[0], Out: &out[0], Count: len(rows), Stride: stride})
					return out
				}
				want, got := run(f[0]), run(f[1])
				for i := range want {
					if math.Abs(float64(want[i]-got[i])) > 1e-4*float64(stride) {
						t.Fatalf("%s %s: %v instead of %v", set.Name, name, got, want)
					}
				}
			}
		}
	}
}
