package console

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/pipeline"
)

// phase is how a task or a run is, as pages tell it. Those that a person should see
// first come first.
type phase int

const (
	failed phase = iota
	running
	queued // it was handed to the runtime and waits for room on the machine
	waiting
	cancelled
	succeeded
	taken // from the cache, or from the run that this one goes on with
	notRun
	phases // how many there are
)

// none is the phase of a step that the run has not come to.
const none phase = -1

// String is the phase as a class of the style sheet.
func (p phase) String() string {
	if p < 0 || p >= phases {
		return "none"
	}
	return [phases]string{"failed", "running", "queued", "waiting", "cancelled", "succeeded", "taken", "notrun"}[p]
}

// Label is the phase in words.
func (p phase) Label() string {
	if p < 0 || p >= phases {
		return "Not reached"
	}
	return [phases]string{"Failed", "Running", "Queued", "Waiting", "Cancelled", "Succeeded", "Taken over", "Not run"}[p]
}

// lower is the phase within a sentence.
func (p phase) lower() string { return strings.ToLower(p.Label()) }

func (p phase) done() bool { return p >= cancelled || p == failed }

func phaseNamed(name string) phase {
	for p := range phases {
		if p.String() == name {
			return p
		}
	}
	return none
}

// phaseOf is how a task is; waits says that its program waits for room.
func phaseOf(s pipeline.State, waits bool) phase {
	switch s {
	case pipeline.Failed:
		return failed
	case pipeline.Running:
		if waits {
			return queued
		}
		return running
	case pipeline.Pending:
		return waiting
	case pipeline.Cancelled:
		return cancelled
	case pipeline.Succeeded:
		return succeeded
	case pipeline.Skipped:
		return taken
	case pipeline.NotTriggered:
		return notRun
	default:
		return none
	}
}

// phaseOfRun is how a run is.
func phaseOfRun(s pb.PipelineState) phase {
	switch s {
	case pb.PipelineState_PIPELINE_STATE_FAILED:
		return failed
	case pb.PipelineState_PIPELINE_STATE_RUNNING, pb.PipelineState_PIPELINE_STATE_CANCELLING:
		return running
	case pb.PipelineState_PIPELINE_STATE_SUCCEEDED:
		return succeeded
	case pb.PipelineState_PIPELINE_STATE_CANCELLED:
		return cancelled
	default:
		return waiting
	}
}

// span is a duration as people read it; "" for none.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(1, d.Milliseconds()))
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
}

// amount writes a number with its thousands apart.
func amount(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// clip shortens a text to most characters.
func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// firstLine is what of a message fits a line.
func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return clip(line, 300)
}

// shell quotes a word for a shell where that is needed.
func shell(word string) string {
	if word != "" && strings.IndexFunc(word, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./=:@%+,", r)
	}) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// byTime orders what has not started last.
func byTime(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		if a.IsZero() {
			return 1
		}
		return -1
	}
	return a.Compare(b)
}

func or(texts ...string) string { return cmp.Or(texts...) }
