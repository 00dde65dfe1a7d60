package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tategu/bench/harness"
	"tategu/internal/load"
)

// platform is the tategu under test. All of its callers have a token: permission is
// checked at each request.
type platform struct {
	*process

	options options
	data    string
	address string
	token   string
}

const location = "projects/tategu/locations/us-central1"

// startPlatform starts a binary of tategu under a name.
func startPlatform(ctx context.Context, o options, name, binary string) (*platform, error) {
	s := &platform{options: o, data: filepath.Join(o.folder, name)}
	config := filepath.Join(o.folder, name+".yaml")
	text := fmt.Sprintf("images:\n  - match: echo\n    command: [%q, echo]\n", o.self)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var err error
	argv := []string{binary, "serve", "--data", s.data, "--listen", "127.0.0.1:0", "--config", config}
	if s.process, err = start(ctx, o, name, o.folder, nil, argv...); err != nil {
		return nil, err
	}
	s.mark = filepath.Join(s.data, "workloads")
	if s.address, err = harness.Listens(ctx, s.log, s.done); err != nil {
		return s, err
	}
	secret, err := command(ctx, "", binary, "token", "create", "--email", "bench@example.com", "--role", "user", "--data", s.data).Output()
	if err != nil {
		return s, fmt.Errorf("make a token: %w", err)
	}
	s.token = strings.TrimSpace(string(secret))
	return s, nil
}

// close ends the server, and the programs that it leaves running on purpose.
func (s *platform) close() error {
	pids := s.tree()
	err := s.stop()
	for _, pid := range pids[1:] {
		_ = syscall.Kill(pid, syscall.SIGKILL) // most have ended
	}
	return err
}

// call sends JSON as the operator and reads the answer.
func (s *platform) call(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func (s *platform) post(ctx context.Context, path string, body map[string]any, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPost, path, "application/json", text, out)
}

// upload puts a directory into a bucket and gives its URI.
func (s *platform) upload(ctx context.Context, name, dir string) (string, error) {
	bucket := "bench-" + name
	if err := s.post(ctx, "/storage/v1/b?project=tategu", map[string]any{"name": bucket}, nil); err != nil {
		return "", err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return "", err
		}
		path := "/upload/storage/v1/b/" + bucket + "/o?uploadType=media&name=" + url.QueryEscape("model/"+f.Name())
		if err := s.call(ctx, http.MethodPost, path, "application/octet-stream", text, nil); err != nil {
			return "", err
		}
	}
	return "gs://" + bucket + "/model", nil
}

// deploy makes a model and an endpoint of the same name, and gives that one's name.
func (s *platform) deploy(ctx context.Context, id, image, artifact string, resources map[string]any) (string, error) {
	model := map[string]any{"displayName": id}
	if image != "" {
		model["containerSpec"] = map[string]any{"imageUri": image}
	}
	if artifact != "" {
		model["artifactUri"] = artifact
	}
	if err := s.operate(ctx, "/v1/"+location+"/models:upload", map[string]any{"modelId": id, "model": model}); err != nil {
		return "", err
	}
	endpoint := location + "/endpoints/" + id
	if err := s.operate(ctx, "/v1/"+location+"/endpoints?endpointId="+id, map[string]any{"displayName": id}); err != nil {
		return "", err
	}
	resources["machineSpec"] = map[string]any{"machineType": "n1-standard-1"}
	deployed := map[string]any{"model": location + "/models/" + id, "dedicatedResources": resources}
	return endpoint, s.operate(ctx, "/v1beta1/"+endpoint+":deployModel", map[string]any{"deployedModel": deployed, "trafficSplit": map[string]any{"0": 100}})
}

// replicated deploys a model to one replica.
func (s *platform) replicated(ctx context.Context, id, image, artifact string) (string, error) {
	return s.deploy(ctx, id, image, artifact, map[string]any{"minReplicaCount": 1, "maxReplicaCount": 1})
}

// through is an endpoint as what is asked.
func (s *platform) through(endpoint, method, contentType string, bodies [][]byte) (*load.Endpoint, error) {
	return load.NewEndpoint(load.EndpointConfig{
		Address: s.address, Path: "/v1/" + endpoint + ":" + method, ContentType: contentType, Bodies: bodies,
		Token: func(context.Context) (string, error) { return s.token, nil },
	})
}

// operate starts a long-running operation and waits for its end.
func (s *platform) operate(ctx context.Context, path string, body map[string]any) error {
	var op struct {
		Name  string
		Done  bool
		Error *struct{ Message string }
	}
	if err := s.post(ctx, path, body, &op); err != nil {
		return err
	}
	for !op.Done {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.call(ctx, http.MethodGet, "/v1beta1/"+op.Name, "application/json", nil, &op); err != nil {
			return err
		}
	}
	if op.Error != nil {
		return errors.New(op.Error.Message)
	}
	return nil
}

// replica finds the address of the program of an endpoint's model.
func (s *platform) replica(endpoint string) (string, error) {
	id := []byte("AIP_ENDPOINT_ID=" + filepath.Base(endpoint))
	for _, pid := range s.tree()[1:] {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			continue
		}
		variables := bytes.Split(text, []byte{0})
		if !slices.ContainsFunc(variables, func(v []byte) bool { return bytes.Equal(v, id) }) {
			continue
		}
		for _, v := range variables {
			if port, ok := bytes.CutPrefix(v, []byte("AIP_HTTP_PORT=")); ok {
				return "127.0.0.1:" + string(port), nil
			}
		}
	}
	return "", errors.New("no program of endpoint " + endpoint + " is there")
}

// idle waits until no replica of an endpoint's model is left.
func (s *platform) idle(ctx context.Context, endpoint string) error {
	limit := time.Now().Add(time.Minute)
	for {
		var e struct {
			DeployedModels []struct {
				Status struct{ AvailableReplicaCount int }
			}
		}
		if err := s.call(ctx, http.MethodGet, "/v1beta1/"+endpoint, "application/json", nil, &e); err != nil {
			return err
		}
		if len(e.DeployedModels) > 0 && e.DeployedModels[0].Status.AvailableReplicaCount == 0 {
			return nil
		}
		if time.Now().After(limit) {
			return errors.New("it is not idle after a minute")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deployed gives the id of an endpoint's deployed model; "" where it is not to be had.
func (s *platform) deployed(ctx context.Context, endpoint string) string {
	var e struct{ DeployedModels []struct{ ID string } }
	if err := s.call(ctx, http.MethodGet, "/v1beta1/"+endpoint, "application/json", nil, &e); err != nil || len(e.DeployedModels) == 0 {
		return ""
	}
	return e.DeployedModels[0].ID
}
