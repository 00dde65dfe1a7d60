package serving

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tategu/internal/modelformat"
	"tategu/internal/replica"
)

const (
	torchMetrics = "/metrics"      // of TorchServe, which has a port of its own for it
	metricsLimit = 5 * time.Second // beyond it a replica is left out
	replicaLabel = "tategu_replica"
)

// measured asks every replica for the metrics of its TorchServe, and gives them as one text
// of Prometheus', with a label that tells replicas apart. One that does not answer is
// left out, and a comment says so.
func (d *deployment) measured(ctx context.Context, route string) (*modelformat.TorchAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, metricsLimit)
	defer cancel()
	m := d.manager
	var mu sync.Mutex
	texts, missing := map[int]string{}, map[int]error{}
	err := d.set.Each(ctx, func(ctx context.Context, index int, b replica.Backend) error {
		text, err := m.metrics(ctx, b, route)
		mu.Lock()
		defer mu.Unlock()
		if texts[index] = text; err != nil {
			missing[index] = err
		}
		return nil // it goes on with predictions
	})
	answer := &modelformat.TorchAnswer{Status: http.StatusOK, ContentType: "text/plain; version=0.0.4; charset=utf-8", Body: mergeMetrics(texts)}
	for index, err := range missing {
		answer.Body = fmt.Appendf(answer.Body, "# replica %d did not answer: %s\n", index, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return answer, err
}

func (m *manager) metrics(ctx context.Context, b replica.Backend, route string) (string, error) {
	resp, err := b.Do(ctx, m.request(http.MethodGet, route, nil, nil))
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 4*modelformat.MaxTorchState))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	var answer modelformat.TorchAnswer
	if err := json.Unmarshal(data, &answer); err != nil || resp.Status != http.StatusOK || answer.Status != http.StatusOK {
		return "", fmt.Errorf("it answered %d: %.200s", resp.Status, data)
	}
	return string(answer.Body), nil
}

// mergeMetrics makes one text of those of replicas: the lines of a metric stand together,
// and each has the replica's number as a label. Metrics without a line are left out.
func mergeMetrics(texts map[int]string) []byte {
	type family struct {
		head  []string
		lines []string
	}
	var order []*family
	byName := map[string]*family{}
	for _, index := range slices.Sorted(maps.Keys(texts)) {
		var at *family
		for line := range strings.Lines(texts[index]) {
			line = strings.TrimSuffix(line, "\n")
			switch words := strings.SplitN(line, " ", 4); {
			case line == "":
			case words[0] == "#" && len(words) > 2 && words[1] == "HELP":
				if at = byName[words[2]]; at == nil {
					at = &family{head: []string{line}}
					byName[words[2]], order = at, append(order, at)
				}
			case words[0] == "#":
				if at != nil && len(at.head) == 1 {
					at.head = append(at.head, line)
				}
			case at != nil:
				at.lines = append(at.lines, labelled(line, index))
			}
		}
	}
	var b bytes.Buffer
	for _, f := range order {
		if len(f.lines) > 0 {
			b.WriteString(strings.Join(slices.Concat(f.head, f.lines), "\n") + "\n")
		}
	}
	return b.Bytes()
}

// labelled adds the number of a replica to the labels of a line.
func labelled(line string, index int) string {
	end := strings.IndexAny(line, "{ ")
	if end < 0 {
		return line
	}
	label := replicaLabel + `="` + strconv.Itoa(index) + `",`
	if line[end] == '{' {
		return line[:end+1] + label + line[end+1:]
	}
	return line[:end] + "{" + label + "}" + line[end:]
}
