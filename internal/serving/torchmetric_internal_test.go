package serving

import (
	"strings"
	"testing"
)

func TestMergeMetrics(t *testing.T) {
	t.Parallel()
	got := string(mergeMetrics(map[int]string{
		1:  "# HELP a A.\n# TYPE a counter\na 1.0\n# HELP b B.\n# TYPE b gauge\nb{x=\"y z\",} 2.0\nb{x=\"{\",} 3.0",
		0:  "# HELP b B.\n# TYPE b gauge\n# HELP a A.\n# TYPE a counter\na 4.0\n",
		10: "",
		11: "stray 1.0\n\n# odd\n# HELP c C.\n# TYPE c gauge\n",
	}))
	const want = "# HELP b B.\n# TYPE b gauge\nb{tategu_replica=\"1\",x=\"y z\",} 2.0\nb{tategu_replica=\"1\",x=\"{\",} 3.0\n" +
		"# HELP a A.\n# TYPE a counter\na{tategu_replica=\"0\",} 4.0\na{tategu_replica=\"1\",} 1.0\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// FuzzMergeMetrics: every line of a replica that is kept has its number.
func FuzzMergeMetrics(f *testing.F) {
	f.Add("# HELP a A.\n# TYPE a counter\na{b=\"c\",} 1.0\na 2.0\n", "# HELP a A.\n")
	f.Add("#\n# HELP\n# HELP x\n{\n x", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		for line := range strings.Lines(string(mergeMetrics(map[int]string{0: a, 1: b}))) {
			if !strings.HasPrefix(line, "#") && strings.ContainsAny(line, "{ ") && !strings.Contains(line, replicaLabel) {
				t.Errorf("a line of nobody's: %q", line)
			}
		}
	})
}
