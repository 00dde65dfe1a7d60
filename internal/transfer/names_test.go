package transfer

import (
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]URL{
		"gs://b":                            {Bucket: "b"},
		"gs://b/":                           {Bucket: "b"},
		"gs://b/a/c":                        {Bucket: "b", Name: "a/c"},
		"gs://b//a":                         {Bucket: "b", Name: "/a"},
		"gs://b/o#1795483700000000":         {Bucket: "b", Name: "o", Generation: 1795483700000000},
		"gs://b/o#17":                       {Bucket: "b", Name: "o#17"},
		"gs://b/o#x#1795483700000000":       {Bucket: "b", Name: "o#x", Generation: 1795483700000000},
		"gs://b/日本 語?":                      {Bucket: "b", Name: "日本 語?"},
		"gs://b/" + strings.Repeat("n", 99): {Bucket: "b", Name: strings.Repeat("n", 99)},
	} {
		if got, err := ParseURL(text); err != nil || got != want {
			t.Errorf("ParseURL(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "b/o", "gs:/b", "gs://", "gs:///o", "gs://*/o", "gs://b#1/o", "s3://b/o"} {
		if got, err := ParseURL(text); err == nil {
			t.Errorf("ParseURL(%q) = %+v", text, got)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"gs://b/o", "gs://b/o#1795483700000000", "gs://b//", "gs://b/#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			return
		}
		again, err := ParseURL(u.String())
		if err != nil || again != u {
			t.Errorf("%q is %+v, and %q is %+v, %v", s, u, u.String(), again, err)
		}
	})
}

func TestLocalPath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "a/b", "a b/ü", "...", "a/..b"} {
		if got, err := localPath(name); err != nil || got == "" {
			t.Errorf("localPath(%q) = %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "/a", "a/", "a//b", "..", "../a", "a/../../b", "a/./b", ".", "a\x00b", strings.Repeat("n", 256), "/"} {
		if got, err := localPath(name); err == nil {
			t.Errorf("localPath(%q) = %q", name, got)
		}
	}
}

func FuzzLocalPath(f *testing.F) {
	for _, s := range []string{"a/b", "../a", "/etc/passwd", "a//b", "a/.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := localPath(name)
		if err == nil && (strings.HasPrefix(path, "/") || strings.HasPrefix(path+"/", "../") || strings.Contains("/"+path+"/", "/../")) {
			t.Errorf("%q became %q", name, path)
		}
	})
}

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{"v1/model.txt", "v1/metrics.json", "v2/"}
	for name, want := range map[string]string{"v1/modle.txt": "v1/model.txt", "v1/metric.json": "v1/metrics.json", "completely/else": "", "v1/model.txt": "v1/model.txt"} {
		if got := nearest(name, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_550_000: "1.6 MB", 999_960: "1.0 MB", 5e12: "5.0 TB", 1<<63 - 1: "9.2 EB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	began := time.Unix(0, 0)
	p := NewProgress(began)
	p.Found(3_000_000)
	p.Found(1_000_000)
	p.Add(1_000_000)
	if got := p.line(began.Add(time.Second)); got != "0 of 2 files  1.0 MB of 4.0 MB  1.0 MB/s" {
		t.Errorf("while sources are found: %q", got)
	}
	p.Planned()
	p.Finished()
	if got := p.line(began.Add(time.Second)); got != "1 of 2 files  1.0 MB of 4.0 MB  1.0 MB/s  3s left" {
		t.Errorf("after: %q", got)
	}
	p.Skipped()
	if got := p.Summary(began.Add(2 * time.Second)); got != "copied 1 file, 1.0 MB in 2s (500.0 kB/s), skipped 1" {
		t.Errorf("at the end: %q", got)
	}
}
