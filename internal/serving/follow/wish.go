// Package follow decides how an endpoint follows an alias of a model: which deployed
// model is replaced, when a roll-over begins and when it is over. The wish stands in the
// endpoint's labels, what became of it in a State; Decide is a function of both and of
// what is there now, so that any step may be the last one before a crash.
package follow

import (
	"errors"
	"path"
	"regexp"
	"strings"

	"tategu/internal/resource"
)

// Labels of an endpoint that follows. All of them begin with Label.
const (
	Label      = "tategu-follow"       // the alias
	LabelModel = "tategu-follow-model" // id of the model; left out: of the one that the endpoint has
)

// Wish is what the labels of an endpoint ask for.
type Wish struct {
	Alias string
	Model string // id; "" = that of the endpoint's deployed models
	// First is the share, in percent of what is replaced, that a new version begins with;
	// 0 = it gets all at once.
	First int32
}

// FromLabels reads the wish of an endpoint; nil = it follows nothing.
func FromLabels(labels map[string]string) (*Wish, error) {
	w := &Wish{}
	for name, value := range labels {
		if name != Label && !strings.HasPrefix(name, Label+"-") {
			continue
		}
		if err := w.set(name, value); err != nil {
			return nil, resource.Invalid("endpoint.labels", "the label %s is %q: %w", name, value, err).WithHint("docs/guide/serving.md tells what the labels mean")
		}
	}
	if w.Alias == "" && w.Model != "" {
		return nil, resource.Invalid("endpoint.labels", "the label %s goes with %s, which is not set", LabelModel, Label).WithHint("set %s to the alias to follow", Label)
	}
	if w.Alias == "" {
		return nil, nil //nolint:nilnil // no wish is no error
	}
	return w, nil
}

// aliasForm is what the API documents for aliases of versions; numbers are versions.
const aliasForm = `^[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]$`

func (w *Wish) set(name, value string) error {
	switch name {
	case Label:
		if !regexp.MustCompile(aliasForm).MatchString(value) {
			return errors.New("want the alias of a version, such as champion: a version itself does not move")
		}
		w.Alias = value
	case LabelModel:
		if value == "" || strings.ContainsAny(value, "/@") {
			return errors.New("want the id of a model, without project and version")
		}
		w.Model = value
	default:
		return errors.New("there is no such label")
	}
	return nil
}

// Same reports whether two sets of labels follow the same.
func Same(a, b map[string]string) bool { return a[Label] == b[Label] && a[LabelModel] == b[LabelModel] }

// is reports whether a model, by its full name, is the one that is followed.
func (w *Wish) is(model string) bool { return w.Model == "" || path.Base(model) == w.Model }
