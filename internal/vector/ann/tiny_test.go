package ann

import "testing"

// TestTinyVectors: the inverse of a length below that of the least normal number overflows.
func TestTinyVectors(t *testing.T) {
	t.Parallel()
	tiny, other := []float32{1e-44, 0}, []float32{1, 1}
	for _, m := range []Measure{{Distance: Cosine}, {Distance: DotProduct, UnitNorm: true}, {Distance: SquaredL2, UnitNorm: true}} {
		if d := m.Between(tiny, other); d-d != 0 {
			t.Errorf("%v of a tiny vector is %v", m, d)
		}
	}
}
