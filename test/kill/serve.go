package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// serving deploys models and predicts with them.
type serving struct {
	*client
	native, echo string // models
	rows         [][]float64
	scores       []float64 // of rows by the native model
	predicted    int       // answers
}

// golden is a LightGBM model with rows and the library's own scores.
const golden = "internal/modelformat/lightgbm/testdata/golden/"

// deploy makes an endpoint with one model and waits until it is deployed.
func (s *serving) deploy(ctx context.Context, endpoint, model, id string) error {
	_, err := s.call(ctx, http.MethodPost, api+"endpoints?endpointId="+endpoint, map[string]any{"displayName": endpoint}, nil)
	if err != nil {
		return err
	}
	return s.deployTo(ctx, endpoint, model, id)
}

func (s *serving) deployTo(ctx context.Context, endpoint, model, id string) error {
	body := map[string]any{
		"deployedModel": map[string]any{
			"id": id, "model": model,
			"dedicatedResources": map[string]any{"machineSpec": map[string]any{"machineType": "n1-standard-2"}, "minReplicaCount": 1},
		},
		"trafficSplit": map[string]any{"0": 100},
	}
	for {
		var op struct{ Name string }
		// After a kill the same id says whether the first call was done.
		status, err := s.call(ctx, http.MethodPost, api+"endpoints/"+endpoint+":deployModel", body, &op, http.StatusConflict)
		if errors.Is(err, errKilled) {
			s.book.settled.Add(1)
			continue
		}
		if err != nil {
			return err
		}
		s.book.acked.Add(1)
		if status == http.StatusConflict {
			return s.awaitDeployed(ctx, endpoint, id)
		}
		return s.finished(ctx, op.Name)
	}
}

// finished waits for the end of an operation.
func (s *serving) finished(ctx context.Context, name string) error {
	for {
		var op struct {
			Done  bool
			Error *struct{ Message string }
		}
		if _, err := s.get(ctx, "/v1/"+name, &op); err != nil {
			return err
		}
		if op.Error != nil {
			return fmt.Errorf("operation %s failed: %s", name, op.Error.Message)
		}
		if op.Done {
			return nil
		}
		if err := pause(ctx, 30*time.Millisecond); err != nil {
			return err
		}
	}
}

type endpointDetail struct {
	DeployedModels []struct{ ID string }
}

func (s *serving) deployed(ctx context.Context, endpoint, id string) (bool, error) {
	var e endpointDetail
	if _, err := s.get(ctx, api+"endpoints/"+endpoint, &e); err != nil {
		return false, err
	}
	for _, d := range e.DeployedModels {
		if d.ID == id {
			return true, nil
		}
	}
	return false, nil
}

func (s *serving) awaitDeployed(ctx context.Context, endpoint, id string) error {
	for {
		there, err := s.deployed(ctx, endpoint, id)
		if err != nil || there {
			return err
		}
		if err := pause(ctx, 30*time.Millisecond); err != nil {
			return err
		}
	}
}

// undeploy takes a model off; done twice it is not there the second time.
func (s *serving) undeploy(ctx context.Context, endpoint, id string) error {
	for {
		var op struct{ Name string }
		status, err := s.call(ctx, http.MethodPost, api+"endpoints/"+endpoint+":undeployModel", map[string]any{"deployedModelId": id}, &op, http.StatusNotFound)
		if errors.Is(err, errKilled) {
			s.book.settled.Add(1)
			continue
		}
		if err != nil || status == http.StatusNotFound {
			return err
		}
		s.book.acked.Add(1)
		return s.finished(ctx, op.Name)
	}
}

// churn deploys and undeploys on an endpoint of its own.
func (s *serving) churn(ctx context.Context, drained <-chan struct{}) error {
	for n := 1; ; n++ {
		if over, err := isOver(ctx, drained); over {
			return err
		}
		id, model := strconv.Itoa(5000+n), s.echo
		if n%2 == 0 {
			model = s.native
		}
		if err := s.deployTo(ctx, "902", model, id); err != nil {
			return fmt.Errorf("deploy %s: %w", id, err)
		}
		if there, err := s.deployed(ctx, "902", id); err != nil {
			return err
		} else if !there {
			s.book.isLost("deployed model %s was acknowledged and is not on its endpoint", id)
		}
		if err := s.undeploy(ctx, "902", id); err != nil {
			return fmt.Errorf("undeploy %s: %w", id, err)
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
}

// predict asks both models all the time. Only a kill may keep an answer back: as
// soon as the server is ready, every prediction works.
func (s *serving) predict(ctx context.Context, drained <-chan struct{}) error {
	for n := 0; ; n++ {
		if over, err := isOver(ctx, drained); over {
			return err
		}
		err := s.ask(ctx, n)
		if err != nil && !errors.Is(err, errKilled) {
			return fmt.Errorf("predict: %w", err)
		}
		if err := pause(ctx, 15*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *serving) ask(ctx context.Context, n int) error {
	row := n % len(s.rows)
	want, endpoint := s.scores[row], "900"
	if n%2 == 1 {
		endpoint, want = "901", s.rows[row][0]
	}
	var got struct{ Predictions []json.RawMessage }
	_, err := s.call(ctx, http.MethodPost, api+"endpoints/"+endpoint+":predict", map[string]any{"instances": [][]float64{s.rows[row]}}, &got)
	if err != nil {
		return err
	}
	if len(got.Predictions) != 1 {
		return fmt.Errorf("endpoint %s: %d predictions for one row", endpoint, len(got.Predictions))
	}
	value, err := first(got.Predictions[0])
	if err != nil || math.Abs(value-want) > 1e-12 {
		s.book.problem("endpoint %s, row %d: %s, want %v", endpoint, row, got.Predictions[0], want)
	}
	s.predicted++
	return nil
}

// first is a number, or the first one of a list.
func first(text json.RawMessage) (float64, error) {
	var list []float64
	if json.Unmarshal(text, &list) == nil && len(list) > 0 {
		return list[0], nil
	}
	var number float64
	return number, json.Unmarshal(text, &number)
}
