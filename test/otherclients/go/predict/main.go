// Command predict drives the unmodified cloud.google.com/go/aiplatform against an
// endpoint of a running server, over gRPC (it has no REST client of this service):
//
//	go run ./predict http://127.0.0.1:8090 ENDPOINT '[[1, 2]]' '[0.5]'
//
// The last two are instances and the predictions that they have. It prints a line a
// check and "N passed, N failed".
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	aiplatform "cloud.google.com/go/aiplatform/apiv1"
	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

type probe struct {
	client    *aiplatform.PredictionClient
	endpoint  string
	instances []any
	want      []any
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: go run ./predict BASE_URL ENDPOINT INSTANCES PREDICTIONS")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := probe{endpoint: os.Args[2]}
	if err := json.Unmarshal([]byte(os.Args[3]), &p.instances); err != nil {
		panic(err)
	}
	if err := json.Unmarshal([]byte(os.Args[4]), &p.want); err != nil {
		panic(err)
	}
	passed, failed := 0, 0
	var err error
	p.client, err = aiplatform.NewPredictionClient(ctx, option.WithEndpoint(strings.TrimPrefix(os.Args[1], "http://")), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		panic(err)
	}
	for _, check := range []struct {
		name string
		run  func(context.Context) error
	}{{"predict", p.predict}, {"raw predict", p.raw}, {"stream raw predict", p.stream}, {"direct predict", p.direct}} {
		if err := check.run(ctx); err != nil {
			failed++
			fmt.Printf("fail  go %s: %v\n", check.name, err)
			continue
		}
		passed++
		fmt.Printf("ok    go %s\n", check.name)
	}
	if err := p.client.Close(); err != nil {
		panic(err)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func (p *probe) compare(got []any) error {
	if !reflect.DeepEqual(got, p.want) {
		return fmt.Errorf("got %v, want %v", got, p.want)
	}
	return nil
}

func (p *probe) predict(ctx context.Context) error {
	instances, err := structpb.NewList(p.instances)
	if err != nil {
		return err
	}
	answer, err := p.client.Predict(ctx, &aiplatformpb.PredictRequest{Endpoint: p.endpoint, Instances: instances.GetValues()})
	if err != nil {
		return err
	}
	return p.compare((&structpb.ListValue{Values: answer.GetPredictions()}).AsSlice())
}

func (p *probe) body() *httpbody.HttpBody {
	return &httpbody.HttpBody{ContentType: "application/json", Data: []byte(`{"instances":` + os.Args[3] + `}`)}
}

func (p *probe) answer(data []byte) error {
	var got struct{ Predictions []any }
	if err := json.Unmarshal(data, &got); err != nil {
		return fmt.Errorf("%w: %s", err, data)
	}
	return p.compare(got.Predictions)
}

func (p *probe) raw(ctx context.Context) error {
	answer, err := p.client.RawPredict(ctx, &aiplatformpb.RawPredictRequest{Endpoint: p.endpoint, HttpBody: p.body()})
	if err != nil {
		return err
	}
	return p.answer(answer.GetData())
}

func (p *probe) stream(ctx context.Context) error {
	s, err := p.client.StreamRawPredict(ctx, &aiplatformpb.StreamRawPredictRequest{Endpoint: p.endpoint, HttpBody: p.body()})
	if err != nil {
		return err
	}
	var data []byte
	for {
		part, err := s.Recv()
		if err == io.EOF {
			return p.answer(data)
		}
		if err != nil {
			return err
		}
		data = append(data, part.GetData()...)
	}
}

// direct is not served: the answer has to say so by name.
func (p *probe) direct(ctx context.Context) error {
	_, err := p.client.DirectPredict(ctx, &aiplatformpb.DirectPredictRequest{Endpoint: p.endpoint})
	if !strings.Contains(fmt.Sprint(err), "DirectPredict") {
		return fmt.Errorf("got %v", err)
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unimplemented {
		return fmt.Errorf("code %v", s.Code())
	}
	return nil
}
