package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// operate starts a long-running operation and waits for its end. req may be nil, and so
// may response, which gets what the operation ends with.
func (c *client) operate(ctx context.Context, method, path string, req proto.Message, response any) error {
	var body any
	if req != nil {
		text, err := protojson.Marshal(req)
		if err != nil {
			return err
		}
		body = json.RawMessage(text)
	}
	var op struct {
		Name     string          `json:"name"`
		Done     bool            `json:"done"`
		Response json.RawMessage `json:"response"`
		Error    *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := c.call(ctx, method, path, body, &op); err != nil {
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !op.Done {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := c.call(ctx, http.MethodGet, "/v1beta1/"+op.Name, nil, &op); err != nil {
			return err
		}
	}
	if op.Error != nil {
		return &answerError{text: op.Error.Message}
	}
	if response == nil {
		return nil
	}
	return json.Unmarshal(op.Response, response)
}
