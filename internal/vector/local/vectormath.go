package local

import "math"

// scale brings a vector to length 1; one of zeros stays.
func scale(v []float32) {
	var s float64
	for _, x := range v {
		s += float64(x) * float64(x)
	}
	f := float32(1 / math.Sqrt(s))
	if f == 0 || f-f != 0 { // as package ann has it
		return
	}
	for i := range v {
		v[i] *= f
	}
}
