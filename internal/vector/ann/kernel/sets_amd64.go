package kernel

import "golang.org/x/sys/cpu"

// Available are the sets that this processor runs, the fastest last.
func Available() []Set {
	sets := []Set{Plain()}
	x := cpu.X86
	if x.HasAVX2 && x.HasFMA {
		sets = append(sets, Set{Name: "avx2", Scan: scanAVX2, Half: halfAVX2, Pick: pickAVX2, Dot: dotAVX2, L2: l2AVX2, L1: l1AVX2})
	}
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI && x.HasPOPCNT {
		sets = append(sets, Set{Name: "avx512-vnni", Scan: scanAVX512, Half: halfAVX512, Pick: pickAVX512, Dot: dotAVX512, L2: l2AVX512, L1: l1AVX512})
	}
	return sets
}

//go:noescape
func scanAVX512(a *Scan) int

//go:noescape
func halfAVX512(a *Scan) int

//go:noescape
func pickAVX512(a *Pick)

//go:noescape
func dotAVX512(a *Rank)

//go:noescape
func l2AVX512(a *Rank)

//go:noescape
func l1AVX512(a *Rank)

//go:noescape
func scanAVX2(a *Scan) int

//go:noescape
func halfAVX2(a *Scan) int

//go:noescape
func pickAVX2(a *Pick)

//go:noescape
func dotAVX2(a *Rank)

//go:noescape
func l2AVX2(a *Rank)

//go:noescape
func l1AVX2(a *Rank)
