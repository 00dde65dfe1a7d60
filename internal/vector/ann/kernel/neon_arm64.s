#include "go_asm.h"
#include "textflag.h"

// Go's assembler has no names for these. d, n and m are numbers of registers of 4 values.
#define SDOT(d, n, m) WORD $(0x4E809400 | (m)<<16 | (n)<<5 | (d))
#define SCVTF(d, n) WORD $(0x4E21D800 | (n)<<5 | (d))
#define FMLS(d, n, m) WORD $(0x4EA0CC00 | (m)<<16 | (n)<<5 | (d))
#define FMLA(d, n, m) WORD $(0x4E20CC00 | (m)<<16 | (n)<<5 | (d))
#define FADD(d, n, m) WORD $(0x4E20D400 | (m)<<16 | (n)<<5 | (d))
#define FSUB(d, n, m) WORD $(0x4EA0D400 | (m)<<16 | (n)<<5 | (d))
#define FABD(d, n, m) WORD $(0x6EA0D400 | (m)<<16 | (n)<<5 | (d))
#define FADDP(d, n, m) WORD $(0x6E20D400 | (m)<<16 | (n)<<5 | (d))
#define FMAX(d, n, m) WORD $(0x4E20F400 | (m)<<16 | (n)<<5 | (d))
#define FMAXV(d, n) WORD $(0x6E30F800 | (n)<<5 | (d))

// BEGIN: R1 query, R2 codes, R3 norms or 0, R4 rows, R5 scores, R6 groups, R7 blocks, R8 the
// number of the first row, R9 how many were written, F30 threshold, V31 beta, V29 bias of sums.
#define BEGIN \
	MOVD a+0(FP), R0 \
	MOVW bias+8(FP), R10 \
	VDUP R10, V29.S4 \
	MOVD Scan_Query(R0), R1 \
	MOVD Scan_Codes(R0), R2 \
	MOVD Scan_Norms(R0), R3 \
	MOVD Scan_Rows(R0), R4 \
	MOVD Scan_Scores(R0), R5 \
	MOVD Scan_Groups(R0), R6 \
	MOVD Scan_Blocks(R0), R7 \
	MOVWU Scan_First(R0), R8 \
	MOVWU Scan_Beta(R0), R10 \
	VDUP R10, V31.S4 \
	FMOVS Scan_Threshold(R0), F30 \
	MOVD $0, R9

// EMIT writes the rows of a block whose sums are in V20 to V23.
#define EMIT \
	SCVTF(20, 20) \
	SCVTF(21, 21) \
	SCVTF(22, 22) \
	SCVTF(23, 23) \
	CBZ R3, compared \
	VLD1.P 64(R3), [V0.S4, V1.S4, V2.S4, V3.S4] \
	FMLS(20, 0, 31) \
	FMLS(21, 1, 31) \
	FMLS(22, 2, 31) \
	FMLS(23, 3, 31) \
compared: \
	FMAX(0, 20, 21) \
	FMAX(1, 22, 23) \
	FMAX(0, 0, 1) \
	FMAXV(0, 0) \
	FCMPS F30, F0 \
	BLE next \
	ADD R9<<2, R5, R11 \
	ADD R9<<2, R4, R12 \
	VST1 [V20.S4, V21.S4, V22.S4, V23.S4], (R11) \
	MOVD R11, R13 \
	MOVD $16, R14 \
	MOVD R8, R15 \
lane: \
	FMOVS.P 4(R11), F1 \
	FMOVS F1, (R13) \
	MOVW R15, (R12) \
	ADD $1, R15 \
	FCMPS F30, F1 \
	CSET GT, R16 \
	ADD R16, R9 \
	ADD R16<<2, R13 \
	ADD R16<<2, R12 \
	SUBS $1, R14 \
	BNE lane \
next: \
	ADD $16, R8 \
	SUBS $1, R7 \
	BNE block

// func scanNEON(a *Scan, bias int32) int
TEXT ·scanNEON(SB), NOSPLIT, $0-24
	BEGIN
	MOVD $0x80, R10
	VDUP R10, V28.B16
	CBZ R7, done

block:
	MOVD R1, R10
	MOVD R6, R11
	VMOV V29.B16, V20.B16
	VMOV V29.B16, V21.B16
	VMOV V29.B16, V22.B16
	VMOV V29.B16, V23.B16

group:
	VLD1R.P 4(R10), [V16.S4]
	VLD1.P 64(R2), [V0.B16, V1.B16, V2.B16, V3.B16]
	VEOR V28.B16, V0.B16, V0.B16 // unsigned to signed
	VEOR V28.B16, V1.B16, V1.B16
	VEOR V28.B16, V2.B16, V2.B16
	VEOR V28.B16, V3.B16, V3.B16
	SDOT(20, 0, 16)
	SDOT(21, 1, 16)
	SDOT(22, 2, 16)
	SDOT(23, 3, 16)
	SUBS $1, R11
	BNE group
	EMIT

done:
	MOVD R9, ret+16(FP)
	RET

// func halfNEON(a *Scan, bias int32) int
TEXT ·halfNEON(SB), NOSPLIT, $0-24
	BEGIN
	MOVD $0x0f, R10
	VDUP R10, V28.B16
	CBZ R7, done

block:
	MOVD R1, R10
	MOVD R6, R11
	VMOV V29.B16, V20.B16
	VMOV V29.B16, V21.B16
	VMOV V29.B16, V22.B16
	VMOV V29.B16, V23.B16

group:
	VLD1R.P 4(R10), [V16.S4]
	VLD1R.P 4(R10), [V17.S4]
	VLD1.P 64(R2), [V0.B16, V1.B16, V2.B16, V3.B16]
	VAND V28.B16, V0.B16, V4.B16
	VAND V28.B16, V1.B16, V5.B16
	VAND V28.B16, V2.B16, V6.B16
	VAND V28.B16, V3.B16, V7.B16
	VUSHR $4, V0.B16, V0.B16
	VUSHR $4, V1.B16, V1.B16
	VUSHR $4, V2.B16, V2.B16
	VUSHR $4, V3.B16, V3.B16
	SDOT(20, 4, 16)
	SDOT(21, 5, 16)
	SDOT(22, 6, 16)
	SDOT(23, 7, 16)
	SDOT(20, 0, 17)
	SDOT(21, 1, 17)
	SDOT(22, 2, 17)
	SDOT(23, 3, 17)
	SUBS $1, R11
	BNE group
	EMIT

done:
	MOVD R9, ret+16(FP)
	RET

// func pickNEON(a *Pick, bias int32)
TEXT ·pickNEON(SB), NOSPLIT, $0-12
	MOVD a+0(FP), R0
	MOVW bias+8(FP), R15
	MOVD Pick_Query(R0), R1
	MOVD Pick_Codes(R0), R2
	MOVD Pick_Rows(R0), R4
	MOVD Pick_Out(R0), R5
	MOVD Pick_Count(R0), R7
	MOVD Pick_Lines(R0), R6
	MOVD Pick_Stride(R0), R8
	MOVD $0x80, R10
	VDUP R10, V28.B16
	CBZ R7, done

row:
	MOVWU.P 4(R4), R10
	MADD R8, R2, R10, R10 // R10*R8 + R2
	MOVD R1, R11
	MOVD R6, R12
	VEOR V20.B16, V20.B16, V20.B16
	VEOR V21.B16, V21.B16, V21.B16

line:
	VLD1.P 64(R10), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R11), [V4.B16, V5.B16, V6.B16, V7.B16]
	VEOR V28.B16, V0.B16, V0.B16
	VEOR V28.B16, V1.B16, V1.B16
	VEOR V28.B16, V2.B16, V2.B16
	VEOR V28.B16, V3.B16, V3.B16
	SDOT(20, 0, 4)
	SDOT(21, 1, 5)
	SDOT(20, 2, 6)
	SDOT(21, 3, 7)
	SUBS $1, R12
	BNE line
	VADD V21.S4, V20.S4, V20.S4
	VADDV V20.S4, V20
	VMOV V20.S[0], R11
	ADDW R15, R11
	MOVW.P R11, 4(R5)
	SUBS $1, R7
	BNE row

done:
	RET

#define RANKBEGIN \
	MOVD a+0(FP), R0 \
	MOVD Rank_Query(R0), R1 \
	MOVD Rank_Base(R0), R2 \
	MOVD Rank_Rows(R0), R4 \
	MOVD Rank_Out(R0), R5 \
	MOVD Rank_Count(R0), R7 \
	MOVD Rank_Stride(R0), R6 \
	LSL $2, R6, R8 \
	LSR $4, R6 \
	CBZ R7, done \
row: \
	MOVWU.P 4(R4), R10 \
	MADD R8, R2, R10, R10 \
	MOVD R1, R11 \
	MOVD R6, R12 \
	VEOR V20.B16, V20.B16, V20.B16 \
	VEOR V21.B16, V21.B16, V21.B16 \
	VEOR V22.B16, V22.B16, V22.B16 \
	VEOR V23.B16, V23.B16, V23.B16 \
line: \
	VLD1.P 64(R10), [V0.S4, V1.S4, V2.S4, V3.S4] \
	VLD1.P 64(R11), [V4.S4, V5.S4, V6.S4, V7.S4]

#define RANKEND \
	SUBS $1, R12 \
	BNE line \
	FADD(20, 20, 21) \
	FADD(22, 22, 23) \
	FADD(20, 20, 22) \
	FADDP(20, 20, 20) \
	FADDP(20, 20, 20) \
	FMOVS.P F20, 4(R5) \
	SUBS $1, R7 \
	BNE row \
done: \
	RET

// func dotNEON(a *Rank)
TEXT ·dotNEON(SB), NOSPLIT, $0-8
	RANKBEGIN
	FMLA(20, 0, 4)
	FMLA(21, 1, 5)
	FMLA(22, 2, 6)
	FMLA(23, 3, 7)
	RANKEND

// func l2NEON(a *Rank)
TEXT ·l2NEON(SB), NOSPLIT, $0-8
	RANKBEGIN
	FSUB(0, 0, 4)
	FSUB(1, 1, 5)
	FSUB(2, 2, 6)
	FSUB(3, 3, 7)
	FMLA(20, 0, 0)
	FMLA(21, 1, 1)
	FMLA(22, 2, 2)
	FMLA(23, 3, 3)
	RANKEND

// func l1NEON(a *Rank)
TEXT ·l1NEON(SB), NOSPLIT, $0-8
	RANKBEGIN
	FABD(0, 0, 4)
	FABD(1, 1, 5)
	FABD(2, 2, 6)
	FABD(3, 3, 7)
	FADD(20, 20, 0)
	FADD(21, 21, 1)
	FADD(22, 22, 2)
	FADD(23, 23, 3)
	RANKEND
