package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
)

// shown is what a model or endpoint shows of the last write: the mark that the
// write put into its labels, and how many versions there are.
type shown struct {
	mark     string // "" = there is none
	versions int
}

// thing is a model or an endpoint with what is known of it.
type thing struct {
	kind, id string
	acked    shown
	maybe    []shown
}

// models writes resources of its own and keeps the operations it was told of.
type models struct {
	*client
	random     *rand.Rand
	things     []*thing
	marks      int
	operations []string
}

func newModels(c *client, random *rand.Rand) *models {
	m := &models{client: c, random: random}
	for i := range 6 {
		m.things = append(m.things, &thing{kind: "models", id: fmt.Sprintf("m%d", i)}, &thing{kind: "endpoints", id: strconv.Itoa(100 + i)})
	}
	return m
}

func (m *models) run(ctx context.Context, drained <-chan struct{}) error {
	for {
		if over, err := isOver(ctx, drained); err != nil {
			return err
		} else if over {
			return m.settleAll(ctx)
		}
		if err := m.step(ctx, m.things[m.random.IntN(len(m.things))]); err != nil && !errors.Is(err, errKilled) {
			return fmt.Errorf("resources: %w", err)
		}
	}
}

// settleAll ends with reading everything: resources and operations.
func (m *models) settleAll(ctx context.Context) error {
	for _, t := range m.things {
		if err := m.settle(ctx, t); err != nil {
			return fmt.Errorf("resources: %w", err)
		}
	}
	for _, name := range m.operations {
		var op struct{ Done bool }
		status, err := m.get(ctx, "/v1/"+name, &op, http.StatusNotFound)
		switch {
		case err != nil:
			return fmt.Errorf("resources: %w", err)
		case status == http.StatusNotFound:
			m.book.isLost("operation %s was returned and there is none", name)
		case !op.Done:
			m.book.problem("operation %s does not end", name)
		}
	}
	return nil
}

func (m *models) step(ctx context.Context, t *thing) error {
	if len(t.maybe) > 0 || m.random.IntN(8) == 0 {
		if err := m.settle(ctx, t); err != nil {
			return err
		}
	}
	switch n := m.random.IntN(10); {
	case t.acked.mark == "":
		return m.create(ctx, t)
	case n < 2:
		return m.write(ctx, t, shown{}, http.MethodDelete, t.path(), nil, true)
	case n < 6 && t.kind == "models" && t.acked.versions < 5:
		return m.addVersion(ctx, t)
	default:
		next := shown{m.mark(), t.acked.versions}
		body := map[string]any{"labels": map[string]string{"mark": next.mark}}
		return m.write(ctx, t, next, http.MethodPatch, t.path()+"?updateMask=labels", body, false)
	}
}

func (t *thing) path() string { return api + t.kind + "/" + t.id }

func (m *models) mark() string {
	m.marks++
	return "w" + strconv.Itoa(m.marks)
}

func (m *models) body(mark string) map[string]any {
	return map[string]any{
		"displayName": "kill", "labels": map[string]string{"mark": mark},
		"containerSpec": map[string]any{"imageUri": "kill/echo", "predictRoute": "/predict", "healthRoute": "/health"},
	}
}

func (m *models) create(ctx context.Context, t *thing) error {
	next := shown{m.mark(), 1}
	if t.kind == "endpoints" {
		body := map[string]any{"displayName": "kill", "labels": map[string]string{"mark": next.mark}}
		return m.write(ctx, t, next, http.MethodPost, api+"endpoints?endpointId="+t.id, body, true)
	}
	return m.write(ctx, t, next, http.MethodPost, api+"models:upload", map[string]any{"modelId": t.id, "model": m.body(next.mark)}, true)
}

func (m *models) addVersion(ctx context.Context, t *thing) error {
	next := shown{m.mark(), t.acked.versions + 1}
	model := m.body(next.mark)
	model["versionAliases"] = []string{"default"} // it is what the model's name then shows
	body := map[string]any{"parentModel": t.path()[len("/v1/"):], "model": model}
	return m.write(ctx, t, next, http.MethodPost, api+"models:upload", body, true)
}

// write does one call; long says that it answers with an operation.
func (m *models) write(ctx context.Context, t *thing, next shown, method, path string, body any, long bool) error {
	t.maybe = append(t.maybe, next)
	var op struct{ Name string }
	if _, err := m.call(ctx, method, path, body, &op); err != nil {
		return err
	}
	if long {
		m.operations = append(m.operations, op.Name)
	}
	m.book.acked.Add(1)
	t.acked, t.maybe = next, nil
	return nil
}

// settle compares what there is with what was acknowledged, or cut off.
func (m *models) settle(ctx context.Context, t *thing) error {
	found, err := m.look(ctx, t)
	if err != nil {
		return err
	}
	switch {
	case found == t.acked, slices.Contains(t.maybe, found):
	case found.mark == "" && t.acked.mark != "":
		m.book.isLost("%s %s: write %s was acknowledged and there is none", t.kind, t.id, t.acked.mark)
	default:
		m.book.isLost("%s %s: shows %+v, acknowledged %+v, cut off %+v", t.kind, t.id, found, t.acked, t.maybe)
	}
	m.book.settled.Add(int64(len(t.maybe)))
	t.acked, t.maybe = found, nil
	return nil
}

func (m *models) look(ctx context.Context, t *thing) (shown, error) {
	var got struct{ Labels map[string]string }
	status, err := m.get(ctx, t.path(), &got, http.StatusNotFound)
	if err != nil || status == http.StatusNotFound {
		return shown{}, err
	}
	found := shown{got.Labels["mark"], 1}
	if t.kind == "endpoints" {
		return found, nil
	}
	var list struct{ Models []struct{ VersionID string } }
	_, err = m.get(ctx, t.path()+":listVersions", &list)
	found.versions = len(list.Models)
	return found, err
}
