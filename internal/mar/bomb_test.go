package mar_test

import (
	"fmt"
	"strings"
	"testing"

	"tategu/internal/mar"
)

// bomb is YAML of a few lines that are 9^9 values once its aliases are followed.
func bomb(indent string) string {
	var b strings.Builder
	b.WriteString(indent + "a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "%sa%d: &a%d [%s]\n", indent, i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	return b.String()
}

// TestAliases: files whose aliases grow without measure are refused, and say why.
func TestAliases(t *testing.T) {
	t.Parallel()
	if _, err := mar.ParseConfig([]byte(bomb("") + "minWorkers: *a8\n")); err == nil || !strings.Contains(err.Error(), "aliasing") {
		t.Errorf("a model-config.yaml: %v", err)
	}
	const dag = "dag:\n  pre: [m]\n"
	for name, text := range map[string]string{
		"beside it":     bomb("") + "models:\n  m:\n    url: m.mar\n" + dag,
		"in a model":    "models:\n  m:\n    url: m.mar\n" + bomb("    ") + dag,
		"as the models": bomb("") + "models: {m: {url: *a8}}\n" + dag,
		"as the dag":    bomb("") + "models:\n  m:\n    url: m.mar\ndag:\n  pre: *a8\n",
	} {
		if _, err := mar.ParseSpec([]byte(text)); err == nil || !strings.Contains(err.Error(), "aliasing") {
			t.Errorf("a workflow, %s: %v", name, err)
		}
	}
}
