#!/bin/sh
# Makes pipeline_spec.pb.go from pipeline_spec.binpb, the FileDescriptorSet that
# the PyPI package kfp-pipeline-spec 2.17.0 (Apache-2.0) carries: the Go module
# of the same schema is not served by the module proxy. With REFRESH=1 the
# descriptor is taken anew from the kfp-pipeline-spec in the environment.
# Needs PYTHON with grpcio-tools (and kfp-pipeline-spec for REFRESH).
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
if [ "${REFRESH:-0}" = 1 ]; then
	"$python" - <<'PY'
from google.protobuf import descriptor_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

files, seen = descriptor_pb2.FileDescriptorSet(), set()

def add(file):
    if file.name not in seen:
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(files.file.add())

add(pipeline_spec_pb2.DESCRIPTOR)
with open("pipeline_spec.binpb", "wb") as out:
    out.write(files.SerializeToString(deterministic=True))
PY
fi
go build -o "$tools/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
"$python" -m grpc_tools.protoc --descriptor_set_in=pipeline_spec.binpb \
	--plugin="protoc-gen-go=$tools/protoc-gen-go" --go_out=. --go_opt=paths=source_relative \
	--go_opt=Mpipeline_spec.proto=tategu/internal/pipeline/pipelinespec pipeline_spec.proto
