//go:build deps

package internal

import (
	_ "cel.dev/cel-go/cel"
	_ "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	_ "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	_ "cloud.google.com/go/iam/apiv1/iampb"
	_ "cloud.google.com/go/longrunning/autogen/longrunningpb"
	_ "cloud.google.com/go/resourcemanager/apiv3/resourcemanagerpb"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/pressly/goose/v3"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "go.uber.org/goleak"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/net/http2"
	_ "golang.org/x/sys/unix"
	_ "google.golang.org/grpc/health"
	_ "google.golang.org/grpc/reflection"
	_ "google.golang.org/genproto/googleapis/cloud/location"
	_ "google.golang.org/genproto/googleapis/api/httpbody"
	_ "google.golang.org/protobuf/testing/protocmp"
	_ "modernc.org/sqlite"
)
