package kernel

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// Available are the sets that this processor runs, the fastest last.
func Available() []Set {
	sets := []Set{Plain()}
	if cpu.ARM64.HasASIMDDP {
		sets = append(sets, Set{
			Name: "neon-sdot",
			Scan: func(a *Scan) int { return scanNEON(a, bias(a.Query, 4*a.Groups)) },
			Half: func(a *Scan) int { return halfNEON(a, 0) },
			Pick: func(a *Pick) { pickNEON(a, bias(a.Query, 64*a.Lines)) },
			Dot:  dotNEON, L2: l2NEON, L1: l1NEON,
		})
	}
	return sets
}

// bias of products whose codes are taken as signed, 128 less each.
func bias(query *int8, n int) int32 {
	var s int32
	for _, v := range unsafe.Slice(query, n) {
		s += int32(v)
	}
	return 128 * s
}

//go:noescape
func scanNEON(a *Scan, bias int32) int

//go:noescape
func halfNEON(a *Scan, bias int32) int

//go:noescape
func pickNEON(a *Pick, bias int32)

//go:noescape
func dotNEON(a *Rank)

//go:noescape
func l2NEON(a *Rank)

//go:noescape
func l1NEON(a *Rank)
