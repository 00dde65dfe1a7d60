package serving

import (
	"context"
	"errors"
	"io"
	"net/http"

	"tategu/internal/replica"
	"tategu/internal/serving/sample"
)

// sampleAnswer bounds the answer to a request for samples.
const sampleAnswer = 64 << 20

// checkSamples compares what a server answers with the rows beside its model file.
func checkSamples(ctx context.Context, samples sample.Samples, b replica.Backend, route string) error {
	return samples.Check(ctx, func(ctx context.Context, body []byte) (status int, data []byte, err error) {
		resp, err := b.Do(ctx, &replica.Request{Method: http.MethodPost, Path: route, Header: http.Header{"Content-Type": {"application/json"}}, Body: body})
		if err != nil {
			return 0, nil, err
		}
		data, err = io.ReadAll(io.LimitReader(resp.Body, sampleAnswer))
		return resp.Status, data, errors.Join(err, resp.Body.Close())
	})
}
