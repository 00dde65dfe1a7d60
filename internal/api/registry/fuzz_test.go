package registry

import "testing"

// FuzzContentRange: what is read lies within what there can be, and is written so.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"0-0", "0-99", "5-1", "-1", "1-", "", "0-9223372036854775807", "0-99999999999999999999", "+1-2", "bytes 0-1/2", "1-2-3", " 1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, length, err := parseContentRange(s)
		if err == nil && (first < 0 || length < 1 || first+(length-1) < first) {
			t.Errorf("%q is %d bytes from %d", s, length, first)
		}
	})
}

// FuzzRange: an answer is always a part of the blob.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=0-1,3-4", "bytes=-0", "bytes=99999999999999999999-", "lines=1-2", "bytes= 1-2 "} {
		f.Add(s, int64(10))
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			return
		}
		offset, length, ok, err := parseRange(s, size)
		if ok && (err != nil || offset < 0 || length < 1 || offset+length > size) {
			t.Errorf("%q of %d bytes: %d from %d, %v", s, size, length, offset, err)
		}
	})
}
