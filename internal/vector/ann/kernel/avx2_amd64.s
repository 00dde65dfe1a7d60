#include "go_asm.h"
#include "textflag.h"

// BEGIN: SI query, DI codes, R8 norms or 0, R9 rows, R10 scores, R11 how many were written,
// R12 blocks, R13 groups, DX the number of the first row, Y14 threshold, Y15 beta.
#define BEGIN \
	MOVQ a+0(FP), BX \
	MOVQ Scan_Query(BX), SI \
	MOVQ Scan_Codes(BX), DI \
	MOVQ Scan_Norms(BX), R8 \
	MOVQ Scan_Rows(BX), R9 \
	MOVQ Scan_Scores(BX), R10 \
	MOVQ Scan_Groups(BX), R13 \
	MOVQ Scan_Blocks(BX), R12 \
	MOVL Scan_First(BX), DX \
	VBROADCASTSS Scan_Beta(BX), Y15 \
	VBROADCASTSS Scan_Threshold(BX), Y14 \
	XORQ R11, R11 \
	TESTQ R12, R12 \
	JZ done

// QUERY puts four signed bytes at an address into all words of a register.
#define QUERY(at, to, tox) \
	VPMOVSXBW at, tox \
	VPBROADCASTQ tox, to

// MULTIPLY adds the products of words with 16 codes, two sums a row.
#define MULTIPLY(words, sum) \
	VPMADDWD Y8, words, words \
	VPADDD words, sum, sum

// EMIT writes the rows of a block whose sums, two a row, are in Y0 to Y3.
#define EMIT \
	VPHADDD Y1, Y0, Y0 \
	VPHADDD Y3, Y2, Y2 \
	VPERMQ $0xd8, Y0, Y0 \
	VPERMQ $0xd8, Y2, Y2 \
	VCVTDQ2PS Y0, Y0 \
	VCVTDQ2PS Y2, Y2 \
	TESTQ R8, R8 \
	JZ compared \
	VFNMADD231PS (R8), Y15, Y0 \
	VFNMADD231PS 32(R8), Y15, Y2 \
	ADDQ $64, R8 \
compared: \
	VCMPPS $14, Y14, Y0, Y4 \
	VCMPPS $14, Y14, Y2, Y5 \
	VPOR Y4, Y5, Y6 \
	VMOVMSKPS Y6, AX \
	TESTL AX, AX \
	JZ next \
	VMOVMSKPS Y4, AX \
	VMOVMSKPS Y5, BX \
	SHLL $8, BX \
	ORL BX, AX \
	VMOVUPS Y0, scores-64(SP) \
	VMOVUPS Y2, scores-32(SP) \
lane: \
	BSFL AX, BX \
	MOVL scores-64(SP)(BX*4), CX \
	MOVL CX, (R10)(R11*4) \
	ADDL DX, BX \
	MOVL BX, (R9)(R11*4) \
	INCQ R11 \
	LEAL -1(AX), BX \
	ANDL BX, AX \
	JNZ lane \
next: \
	ADDL $16, DX \
	DECQ R12 \
	JNZ block

// func scanAVX2(a *Scan) int
TEXT ·scanAVX2(SB), NOSPLIT, $64-16
	BEGIN

block:
	MOVQ SI, R15
	MOVQ R13, R14
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3

group:
	MOVL (R15), AX
	VMOVD AX, X8
	QUERY(X8, Y8, X8)
	VPMOVZXBW (DI), Y4
	VPMOVZXBW 16(DI), Y5
	VPMOVZXBW 32(DI), Y6
	VPMOVZXBW 48(DI), Y7
	MULTIPLY(Y4, Y0)
	MULTIPLY(Y5, Y1)
	MULTIPLY(Y6, Y2)
	MULTIPLY(Y7, Y3)
	ADDQ $4, R15
	ADDQ $64, DI
	DECQ R14
	JNZ group
	EMIT

done:
	VZEROUPPER
	MOVQ R11, ret+8(FP)
	RET

// HALF multiplies 32 bytes of codes of 4 bits with Y8 (lower halves) and Y9 (upper ones), as
// bytes: pairs of 15 × 128 are far from what a word holds. There is one sum a row.
#define HALF(at, sum) \
	VMOVDQU at, Y4 \
	VPAND Y12, Y4, Y5 \
	VPSRLW $4, Y4, Y4 \
	VPAND Y12, Y4, Y4 \
	VPMADDUBSW Y8, Y5, Y5 \
	VPMADDUBSW Y9, Y4, Y4 \
	VPADDW Y4, Y5, Y5 \
	VPMADDWD Y13, Y5, Y5 \
	VPADDD Y5, sum, sum

// func halfAVX2(a *Scan) int
TEXT ·halfAVX2(SB), NOSPLIT, $64-16
	BEGIN
	MOVL $0x0f0f0f0f, AX
	VMOVD AX, X12
	VPBROADCASTD X12, Y12
	MOVL $0x00010001, AX
	VMOVD AX, X13
	VPBROADCASTD X13, Y13

block:
	MOVQ SI, R15
	MOVQ R13, R14
	VPXOR Y0, Y0, Y0
	VPXOR Y2, Y2, Y2

group:
	VPBROADCASTD (R15), Y8
	VPBROADCASTD 4(R15), Y9
	HALF((DI), Y0)
	HALF(32(DI), Y2)
	ADDQ $8, R15
	ADDQ $64, DI
	DECQ R14
	JNZ group

	// One sum a row, in order: apart into the form that EMIT adds up.
	VPXOR Y5, Y5, Y5
	VPUNPCKHDQ Y5, Y0, Y1
	VPUNPCKLDQ Y5, Y0, Y0
	VPUNPCKHDQ Y5, Y2, Y3
	VPUNPCKLDQ Y5, Y2, Y2
	VPERM2I128 $0x31, Y1, Y0, Y6
	VPERM2I128 $0x20, Y1, Y0, Y0
	VMOVDQA Y6, Y1
	VPERM2I128 $0x31, Y3, Y2, Y6
	VPERM2I128 $0x20, Y3, Y2, Y2
	VMOVDQA Y6, Y3
	EMIT

done:
	VZEROUPPER
	MOVQ R11, ret+8(FP)
	RET

// func pickAVX2(a *Pick)
TEXT ·pickAVX2(SB), NOSPLIT, $0-8
	MOVQ a+0(FP), BX
	MOVQ Pick_Query(BX), SI
	MOVQ Pick_Codes(BX), DI
	MOVQ Pick_Rows(BX), R9
	MOVQ Pick_Out(BX), R11
	MOVQ Pick_Count(BX), R10
	MOVQ Pick_Lines(BX), R12
	MOVQ Pick_Stride(BX), R8
	XORQ CX, CX
	TESTQ R10, R10
	JZ done

row:
	LEAQ 4(CX), AX
	CMPQ AX, R10
	JGE near
	MOVL (R9)(AX*4), AX
	IMULQ R8, AX
	PREFETCHT0 (DI)(AX*1)
	PREFETCHT0 64(DI)(AX*1)

near:
	MOVL (R9)(CX*4), AX
	IMULQ R8, AX
	ADDQ DI, AX
	MOVQ SI, BX
	MOVQ R12, R15
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1

line:
	VPMOVZXBW (AX), Y2
	VPMOVZXBW 16(AX), Y3
	VPMOVZXBW 32(AX), Y4
	VPMOVZXBW 48(AX), Y5
	VPMOVSXBW (BX), Y6
	VPMOVSXBW 16(BX), Y7
	VPMOVSXBW 32(BX), Y8
	VPMOVSXBW 48(BX), Y9
	VPMADDWD Y6, Y2, Y2
	VPMADDWD Y7, Y3, Y3
	VPMADDWD Y8, Y4, Y4
	VPMADDWD Y9, Y5, Y5
	VPADDD Y2, Y0, Y0
	VPADDD Y3, Y1, Y1
	VPADDD Y4, Y0, Y0
	VPADDD Y5, Y1, Y1
	ADDQ $64, AX
	ADDQ $64, BX
	DECQ R15
	JNZ line
	VPADDD Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDD X1, X0, X0
	VPSHUFD $0x4e, X0, X1
	VPADDD X1, X0, X0
	VPSHUFD $0xb1, X0, X1
	VPADDD X1, X0, X0
	VMOVD X0, (R11)(CX*4)
	INCQ CX
	CMPQ CX, R10
	JLT row

done:
	VZEROUPPER
	RET

#define RANKBEGIN \
	MOVQ a+0(FP), BX \
	MOVQ Rank_Query(BX), SI \
	MOVQ Rank_Base(BX), DI \
	MOVQ Rank_Rows(BX), R9 \
	MOVQ Rank_Out(BX), R11 \
	MOVQ Rank_Count(BX), R10 \
	MOVQ Rank_Stride(BX), R12 \
	MOVQ R12, R8 \
	SHLQ $2, R8 \
	SHRQ $4, R12 \
	XORQ CX, CX \
	TESTQ R10, R10 \
	JZ done \
row: \
	LEAQ 4(CX), AX \
	CMPQ AX, R10 \
	JGE near \
	MOVL (R9)(AX*4), AX \
	IMULQ R8, AX \
	ADDQ DI, AX \
	MOVQ R12, R15 \
ahead: \
	PREFETCHT0 (AX) \
	ADDQ $64, AX \
	DECQ R15 \
	JNZ ahead \
near: \
	MOVL (R9)(CX*4), AX \
	IMULQ R8, AX \
	ADDQ DI, AX \
	MOVQ SI, BX \
	MOVQ R12, R15 \
	VPXOR Y0, Y0, Y0 \
	VPXOR Y1, Y1, Y1 \
line: \
	VMOVUPS (AX), Y2 \
	VMOVUPS 32(AX), Y3

#define RANKEND \
	ADDQ $64, AX \
	ADDQ $64, BX \
	DECQ R15 \
	JNZ line \
	VADDPS Y1, Y0, Y0 \
	VEXTRACTF128 $1, Y0, X1 \
	VADDPS X1, X0, X0 \
	VPSHUFD $0x4e, X0, X1 \
	VADDPS X1, X0, X0 \
	VPSHUFD $0xb1, X0, X1 \
	VADDPS X1, X0, X0 \
	VMOVSS X0, (R11)(CX*4) \
	INCQ CX \
	CMPQ CX, R10 \
	JLT row \
done: \
	VZEROUPPER \
	RET

// func dotAVX2(a *Rank)
TEXT ·dotAVX2(SB), NOSPLIT, $0-8
	RANKBEGIN
	VFMADD231PS (BX), Y2, Y0
	VFMADD231PS 32(BX), Y3, Y1
	RANKEND

// func l2AVX2(a *Rank)
TEXT ·l2AVX2(SB), NOSPLIT, $0-8
	RANKBEGIN
	VSUBPS (BX), Y2, Y2
	VSUBPS 32(BX), Y3, Y3
	VFMADD231PS Y2, Y2, Y0
	VFMADD231PS Y3, Y3, Y1
	RANKEND

// func l1AVX2(a *Rank)
TEXT ·l1AVX2(SB), NOSPLIT, $0-8
	MOVL $0x7fffffff, AX
	VMOVD AX, X9
	VPBROADCASTD X9, Y9
	RANKBEGIN
	VSUBPS (BX), Y2, Y2
	VSUBPS 32(BX), Y3, Y3
	VPAND Y9, Y2, Y2
	VPAND Y9, Y3, Y3
	VADDPS Y2, Y0, Y0
	VADDPS Y3, Y1, Y1
	RANKEND
