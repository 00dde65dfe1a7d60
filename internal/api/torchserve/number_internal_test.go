package torchserve

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestWholeNumbers: the short way of whole numbers writes what the other does.
func TestWholeNumbers(t *testing.T) {
	t.Parallel()
	all := []float64{0, math.Copysign(0, -1), 1, -1, 1e7, -1e7, 1e7 - 1, 1 - 1e7, 1e-3, 0.5, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64, 1 << 63, -1 << 63}
	for range 1000 {
		all = append(all, float64(rand.Int64N(3e7)-15e6), rand.NormFloat64()*1e3)
	}
	for _, v := range all {
		if got, want := string(appendNumber64(nil, v)), number64(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}
