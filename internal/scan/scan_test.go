package scan_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"tategu/internal/scan"
)

func TestIntegers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text     string
		signed   int64
		unsigned uint64
		s, u     bool
	}{
		{"0", 0, 0, true, true},
		{"-0", 0, 0, true, true},
		{" 42", 42, 42, true, true},
		{"-7", -7, 0, true, false},
		{"3.0", 3, 3, true, true},
		{"1e3", 1000, 1000, true, true},
		{"3.5", 0, 0, false, false},
		{"9007199254740993", 9007199254740993, 9007199254740993, true, true}, // no double
		{"9223372036854775807", math.MaxInt64, math.MaxInt64, true, true},
		{"9223372036854775808", 0, 1 << 63, false, true},
		{"-9223372036854775808", math.MinInt64, 0, true, false},
		{"18446744073709551615", 0, math.MaxUint64, false, true},
		{"18446744073709551616", 0, 0, false, false},
		{"1e300", 0, 0, false, false},
		{"01", 0, 0, false, false},
		{`"1"`, 0, 0, false, false},
		{"", 0, 0, false, false},
		{"-", 0, 0, false, false},
	} {
		s := scan.Scanner{Data: []byte(tt.text)}
		if v, ok := s.Integer(); v != tt.signed || ok != tt.s {
			t.Errorf("%q: Integer = %d, %t", tt.text, v, ok)
		}
		s = scan.Scanner{Data: []byte(tt.text)}
		if v, ok := s.Unsigned(); v != tt.unsigned || ok != tt.u {
			t.Errorf("%q: Unsigned = %d, %t", tt.text, v, ok)
		}
	}
}

func TestSyntaxErrorsTellWhere(t *testing.T) {
	t.Parallel()
	s := scan.Scanner{Data: []byte(`[1, 2`)}
	err := s.Skip()
	bad, ok := errors.AsType[*scan.SyntaxError](err)
	if !ok || bad.At != 5 {
		t.Errorf("error = %v, want one at byte 5", err)
	}
	if s = (scan.Scanner{Data: []byte(strings.Repeat("[", 1000))}); s.Skip() == nil {
		t.Error("nesting has no bound")
	}
}

// FuzzScanner: what is skipped as a value and is JSON to the standard library is so as
// a whole, and numbers are the same numbers.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5,-3e-7,null,true,"x\né"]}`, `12345678901234567890`, `-0.1e+5`, `"\\"`, `[NaN,Infinity,-Infinity]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := scan.Scanner{Data: data}
		raw, err := s.Raw()
		if valid := json.Valid(data); valid && err != nil && !strings.Contains(err.Error(), "nesting") && !strings.Contains(err.Error(), "want a value") {
			t.Fatalf("%q is valid JSON: %v", data, err) // "a value": a number beyond a double
		} else if valid && err == nil && s.End() != nil {
			t.Fatalf("%q: %q is not all of it", data, raw)
		}
		var number json.Number
		if json.Unmarshal(data, &number) != nil || len(data) == 0 || data[0] == '"' || strings.HasPrefix(strings.TrimSpace(string(data)), "n") {
			return
		}
		want, _ := number.Float64()
		if s = (scan.Scanner{Data: data}); json.Valid(data) {
			if v, ok := s.Digits(); ok && v != want {
				t.Fatalf("%q is %v, want %v", data, v, want)
			}
		}
		s = scan.Scanner{Data: data}
		if v, ok := s.Integer(); ok && !strings.ContainsAny(number.String(), ".eE") { // these are whole as doubles
			exact, fine := new(big.Rat).SetString(number.String())
			if fine && exact.Cmp(new(big.Rat).SetInt64(v)) != 0 {
				t.Fatalf("%q is %d", data, v)
			}
		}
	})
}
