package xgboost

import (
	"math"
	"math/big"
)

// The library calls expf and logf of the C library, whose results are not always
// the nearest floats. To give the same bits these two follow the same algorithms,
// published by Arm as "Optimized Routines" (MIT), which glibc and musl use: an
// argument reduced by a small table, then a polynomial in double precision. A test
// compares them with the C library over all floats.

// expBits is the binary logarithm of the table's size.
const expBits = 5

// expTable has the bits of 2^(i/32), less i in the exponent's low bits.
type expTable [1 << expBits]uint64

// newExpTable computes the table to more digits than a double has.
func newExpTable() *expTable {
	const precision = 200
	root := new(big.Float).SetPrec(precision).SetInt64(2)
	for range expBits {
		root.Sqrt(root)
	}
	t := &expTable{}
	power := new(big.Float).SetPrec(precision).SetInt64(1)
	for i := range t {
		v, _ := power.Float64()
		t[i] = math.Float64bits(v) - uint64(i)<<(52-expBits)
		power.Mul(power, root)
	}
	return t
}

func (t *expTable) expf(x float32) float32 {
	const (
		shift = 0x1.8p+52 // adding it rounds to an integer
		scale = 0x1.71547652b82fep+0 * (1 << expBits)
		c0    = 0x1.c6af84b912394p-5 / (1 << (3 * expBits))
		c1    = 0x1.ebfce50fac4f3p-3 / (1 << (2 * expBits))
		c2    = 0x1.62e42ff0c52d6p-1 / (1 << expBits)
	)
	switch {
	case x != x:
		return x
	case x > 0x1.62e42ep6:
		return float32(math.Inf(1))
	case x < -0x1.9fe368p6:
		return 0
	}
	xd := float64(x)
	k := math.FMA(scale, xd, shift)
	r := math.FMA(scale, xd, -(k - shift))
	bits := math.Float64bits(k)
	s := math.Float64frombits(t[bits%(1<<expBits)] + bits<<(52-expBits))
	y := math.FMA(math.FMA(c0, r, c1), float64(r*r), math.FMA(c2, r, 1))
	return float32(y * s)
}

// logf is called for the intercept alone.
func logf(x float32) float32 {
	const (
		ln2 = 0x1.62e42fefa39efp-1
		a0  = -0x1.00ea348b88334p-2
		a1  = 0x1.5575b0be00b6ap-2
		a2  = -0x1.ffffef20a4123p-2
		off = 0x3f330000 // the bits of the smallest reduced argument
	)
	table := [16][2]float64{ // 1/c and log(c) for a c in each interval
		{0x1.661ec79f8f3bep+0, -0x1.57bf7808caadep-2},
		{0x1.571ed4aaf883dp+0, -0x1.2bef0a7c06ddbp-2},
		{0x1.49539f0f010bp+0, -0x1.01eae7f513a67p-2},
		{0x1.3c995b0b80385p+0, -0x1.b31d8a68224e9p-3},
		{0x1.30d190c8864a5p+0, -0x1.6574f0ac07758p-3},
		{0x1.25e227b0b8eap+0, -0x1.1aa2bc79c81p-3},
		{0x1.1bb4a4a1a343fp+0, -0x1.a4e76ce8c0e5ep-4},
		{0x1.12358f08ae5bap+0, -0x1.1973c5a611cccp-4},
		{0x1.0953f419900a7p+0, -0x1.252f438e10c1ep-5},
		{0x1p+0, 0x0p+0},
		{0x1.e608cfd9a47acp-1, 0x1.aa5aa5df25984p-5},
		{0x1.ca4b31f026aap-1, 0x1.c5e53aa362eb4p-4},
		{0x1.b2036576afce6p-1, 0x1.526e57720db08p-3},
		{0x1.9c2d163a1aa2dp-1, 0x1.bc2860d22477p-3},
		{0x1.886e6037841edp-1, 0x1.1058bc8a07ee1p-2},
		{0x1.767dcf5534862p-1, 0x1.4043057b6ee09p-2},
	}
	switch {
	case x == 1:
		return 0
	case x == 0:
		return float32(math.Inf(-1))
	case x < 0 || x != x:
		return float32(math.NaN())
	case math.IsInf(float64(x), 1):
		return x
	}
	bits := math.Float32bits(x)
	if bits < 0x00800000 { // subnormal
		bits = math.Float32bits(x*0x1p23) - 23<<23
	}
	part := bits - off
	c := table[part>>19&15]
	k := int32(part) >> 23
	z := float64(math.Float32frombits(bits - part&(0x1ff<<23)))
	r := math.FMA(z, c[0], -1)
	y0 := math.FMA(float64(k), ln2, c[1])
	r2 := float64(r * r)
	y := math.FMA(a0, r2, math.FMA(a1, r, a2))
	return float32(math.FMA(y, r2, y0+r))
}
