package xgboost

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// TestMath compares expf and logf with those of the C library, for every 4099th
// float, or as TATEGU_TEST_STRIDE says (1: all of them, minutes).
func TestMath(t *testing.T) {
	t.Parallel()
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc to ask the C library with")
	}
	program := filepath.Join(t.TempDir(), "libm")
	if out, err := exec.CommandContext(t.Context(), cc, "-O1", "-o", program, "testdata/libm.c", "-lm").CombinedOutput(); err != nil {
		t.Skipf("gcc does not build a program: %v\n%s", err, out)
	}
	stride := uint64(4099)
	if s := os.Getenv("TATEGU_TEST_STRIDE"); s != "" {
		if stride, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program, strconv.FormatUint(stride, 10))
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	in, table := bufio.NewReaderSize(pipe, 1<<20), newExpTable()
	var want [8]byte
	count, wrong := 0, 0
	for bits := uint64(0); bits < 1<<32; bits += stride {
		if _, err := io.ReadFull(in, want[:]); err != nil {
			t.Fatal(errors.Join(err, cmd.Wait()))
		}
		x := math.Float32frombits(uint32(bits))
		for i, got := range [2]float32{table.expf(x), logf(x)} {
			w := math.Float32frombits(binary.LittleEndian.Uint32(want[4*i:]))
			if math.Float32bits(got) != math.Float32bits(w) && (got == got || w == w) {
				if wrong++; wrong < 10 {
					t.Errorf("%s(%x) = %x, the C library says %x", [2]string{"expf", "logf"}[i], x, got, w)
				}
			}
		}
		count++
	}
	t.Logf("%d floats, %d wrong", count, wrong)
}
