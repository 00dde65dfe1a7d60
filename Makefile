# Every target a stranger needs. `make demo` and `make test` install what they need.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -s -w -X main.version=$(VERSION)
SHARED    ?= ../shared
VENV      := $(CURDIR)/.venv
UV        := $(VENV)/uv/bin/uv
PYTHON    ?= python3.11
CLIENTS   := $(VENV)/clients
TOOLS     := $(CURDIR)/.tools
# -race needs a C compiler; without one the tests run without it, and say so.
RACE      := $(shell command -v gcc >/dev/null 2>&1 && echo -race)
GOTEST    := CGO_ENABLED=$(if $(RACE),1,0) $(TOOLS)/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg

export TATEGU_SHARED := $(abspath $(SHARED))

# The libraries that tests, benchmarks and peers load tell nobody of it.
export ORT_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: build test test-go test-buckets test-clients test-browser test-otherclients test-debian test-loader test-slow lint fmt generate bench demo clean \
	conformance-driver conformance-gcs conformance-kfp conformance-registry conformance-containers conformance-launch conformance-sdk kill-loop mutate faults fuzz bench-start bench-recover bench-storage bench-containers bench-zygote bench-pipelines bench-scale upgrade-fixture

build: bin/tategu bin/tategu-runner

# The small wrapper is packed into the binary (docs/adr/0013).
WRAPPER := internal/runtime/process/wrapper.gz
# Generated code of clients and messages is called once a request: without inlining it
# is 2.3 MB smaller. grpc's own tracing pages are not served.
SMALL := -tags embedwrapper,grpcnotrace $(foreach p,github.com/aws github.com/Azure github.com/AzureAD cloud.google.com/go/aiplatform,-gcflags='$(p)/...=-l')

.PHONY: bin/tategu bin/tategu-runner $(WRAPPER)
bin/tategu: $(WRAPPER)
	CGO_ENABLED=0 go build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o $@ ./cmd/tategu

# Serves ONNX models (docs/adr/0021). It loads libraries, so it is linked dynamically,
# without cgo all the same.
bin/tategu-runner:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/tategu-runner

$(WRAPPER):
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/wrapper ./cmd/wrapper
	gzip -9nc bin/wrapper > $@.new && mv $@.new $@ && rm bin/wrapper

## The main job, end to end, on real input; its features step is built by cargo where that is installed.
demo: build $(UV)
	PATH="$(dir $(UV)):$$PATH" bin/tategu demo

## Icons that look alike: rendered in Rust, embedded by a network that a pipeline trains, indexed, searched. Needs npm and cargo;
## PAGE= is what it writes, FLAGS="--families tabler bootstrap" takes fewer.
.PHONY: similar-drawings
similar-drawings: PAGE ?= $(CURDIR)/similar.html
similar-drawings: FLAGS ?=
similar-drawings: build $(UV)
	PATH="$(dir $(UV)):$$PATH" bin/tategu demo --example examples/similar-drawings --features '' -- --page "$(abspath $(PAGE))" $(FLAGS)

## Unit and port suites, then unmodified clients.
test: build $(TOOLS)/.built $(CLIENTS)/.built
	@$(if $(RACE),,echo 'make test: no gcc found, so the race detector is OFF (install gcc to have it)')
	@if [ ! -d "$(SHARED)/conformance" ]; then echo 'make test: $(SHARED)/conformance is absent: tests over its cases are skipped'; fi
	$(MAKE) test-go
	$(MAKE) test-clients
	$(MAKE) test-browser
	$(MAKE) kill-loop ROUNDS=5
	$(MAKE) batch-kills KILLS=3
	$(MAKE) vector-kills KILLS=5
	$(MAKE) mutate N=1500
	$(MAKE) faults
	$(MAKE) debug-loop GATHER_MS=500 WORK_MS=200

test-go: $(TOOLS)/.built $(CLIENTS)/.built $(VENV)/pgvector/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_TEST_PYTHON=$(CLIENTS)/bin/python TATEGU_TEST_PGVECTOR=$(VENV)/pgvector $(GOTEST) -- $(RACE) -shuffle=on -timeout 20m ./...

## The bucket adapter against an S3 server, and against tategu as the GCS service.
test-buckets: build $(TOOLS)/versitygw
	TATEGU_BIN=$(CURDIR)/bin/tategu TATEGU_TEST_VERSITYGW=$(TOOLS)/versitygw go test -count=1 -v -run TestServices ./internal/blob/bucket

# Of the images, only the one that cargo builds in a moment: conformance-containers has all.
test-clients: build $(CLIENTS)/.built $(VENV)/datadog/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python -m pytest -q -rs -p no:cacheprovider test/clients
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python -m pytest -q -rs -p no:cacheprovider test/containers/test_images.py -k rust

## Pages in Debian's Chromium (apt-get install chromium fonts-dejavu-core); skipped with the reason without it.
test-browser: build $(CLIENTS)/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python -m pytest -q -rs -p no:cacheprovider test/browser

## Everything that is too long, or needs root, for `make test`.
test-slow: build $(TOOLS)/.built $(CLIENTS)/.built
	for i in 1 2 3; do $(MAKE) test-go; done
	$(MAKE) test-buckets
	$(MAKE) kill-loop
	$(MAKE) batch-kills
	$(MAKE) vector-kills
	$(MAKE) mutate
	$(MAKE) mutate-specs
	$(MAKE) fuzz
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu PYTHON=$(CLIENTS)/bin/python test/secondhost/run
	$(MAKE) test-otherclients
	$(MAKE) conformance-containers
	$(MAKE) conformance-launch
	$(MAKE) test-loader
	$(MAKE) test-drawings
	$(MAKE) test-torchserve
	$(MAKE) conformance-torchserve
	$(MAKE) test-debian
	$(MAKE) test-docker

## Python and the package manager in an image of Debian packages, where mmdebstrap is installed.
test-debian: bin/debian.tar
	@[ -s bin/debian.tar ] || { echo 'test-debian: skipped, mmdebstrap is not installed or this is not root'; exit 0; }; \
	TATEGU_TEST_DEBIAN=$(CURDIR)/bin/debian.tar go test -count=1 -run TestDebian ./internal/runtime/process

# Made once; empty where it cannot be made.
bin/debian.tar:
	mkdir -p bin
	if command -v mmdebstrap >/dev/null && [ "$$(id -u)" = 0 ]; then \
	mmdebstrap --quiet --variant=minbase --include=python3,python3-pip bookworm bin/new-debian.tar && mv bin/new-debian.tar $@; else touch $@; fi

## The docker adapter against a dockerd and a Podman of its own, where they are installed (root).
.PHONY: test-docker
test-docker:
	$(PYTHON) test/engines/run $(RACE)

## Programs, the queue, warm starts and TorchServe workers on a real GPU; TORCH is a Python whose torch reaches it.
.PHONY: test-gpu
test-gpu: TORCH ?= $(PYTHON)
test-gpu: build $(UV)
	PATH="$(dir $(UV)):$$PATH" TATEGU_TEST_TORCH="$(TORCH)" TATEGU_TEST_TORCHSERVE="$(TORCH)" go test -count=1 -run 'CUDA|GPU' ./internal/runtime/process ./internal/torchserve
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(TORCH) test/gpu/check.py

## The storage clients for Go, Node and Java, and those of aiplatform for Go and Rust, unmodified.
test-otherclients: build
	TATEGU_BIN=$(CURDIR)/bin/tategu $(PYTHON) test/otherclients/run.py

## kill -9 of the server, zygotes, wrappers and programs at seeded moments under a mixed load.
kill-loop: ROUNDS ?= 50
kill-loop: SEED ?= 1
kill-loop: build $(UV)
	PATH="$(dir $(UV)):$$PATH" CGO_ENABLED=0 go run -trimpath ./test/kill -bin bin/tategu -rounds $(ROUNDS) -seed $(SEED)

## kill -9 of workers and server while batch prediction writes files and tables of SQLite and PostgreSQL.
.PHONY: batch-kills
batch-kills: KILLS ?= 20
batch-kills: SEED ?= 1
batch-kills: build $(CLIENTS)/.built
	TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/batch/kills.py --kills $(KILLS) --seed $(SEED)

## kill -9 of the server while datapoints of an index are upserted, removed and merged.
.PHONY: vector-kills
vector-kills: KILLS ?= 50
vector-kills: SEED ?= 1
vector-kills: build $(CLIENTS)/.built
	TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/vector/kills.py --kills $(KILLS) --seed $(SEED)

## Seeded changes of valid requests, and of pipelines; only answers that a client may get.
mutate: N ?= 10000
mutate: SEED ?= 1
mutate: build
	CGO_ENABLED=0 go run -trimpath ./test/mutate -binary bin/tategu -n $(N) -seed $(SEED)

## As many mutated pipelines, sent to a server that runs what it accepts; then pipelines at each of their bounds.
.PHONY: mutate-specs
mutate-specs: N ?= 10000
mutate-specs: SEED ?= 1
mutate-specs: build
	CGO_ENABLED=0 go run -trimpath ./test/mutate -binary bin/tategu -n 0 -specs $(N) -send -seed $(SEED)

## Real faults, each with the cause and the next step that a person is told.
faults: build $(UV) $(CLIENTS)/.built
	PATH="$(dir $(UV)):$$PATH" CGO_ENABLED=0 go run -trimpath ./test/fault -binary bin/tategu -python $(CLIENTS)/bin/python

## A task in Python and one in Rust fail, are debugged, corrected and finished, by commands and by the SDK.
.PHONY: debug-loop
debug-loop: GATHER_MS ?= 2000
debug-loop: WORK_MS ?= 500
debug-loop: build $(UV) $(CLIENTS)/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/debug/loop.py --gather-ms $(GATHER_MS) --work-ms $(WORK_MS)

## Every fuzz target in turn; what fails is kept in testdata/fuzz.
fuzz: FUZZTIME ?= 20s
fuzz:
	CGO_ENABLED=0 go run -trimpath ./test/fuzz -time $(FUZZTIME)

conformance-driver: DIR ?= $(SHARED)/conformance/sdk
conformance-driver: build $(CLIENTS)/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/conformance/driver.py --dir "$(DIR)"

conformance-gcs: DIR ?= $(SHARED)/conformance/gcs
conformance-gcs: build $(CLIENTS)/.built
	TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/conformance/gcs.py --dir "$(DIR)"

## Compiled pipelines, beside kfp.local where it can run them.
conformance-kfp: DIR ?= $(SHARED)/conformance/kfp
conformance-kfp: ONLY ?=
conformance-kfp: build $(CLIENTS)/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/conformance/pipelines.py --dir "$(DIR)" --only "$(ONLY)"

## Pipelines that old and new versions of kfp compile, each in an environment of its own.
.PHONY: conformance-kfp-versions
conformance-kfp-versions: build $(UV) $(CLIENTS)/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/conformance/versions.py --folder $(CURDIR)/.venv-kfp --python $(PYTHON)

## The OCI distribution specification's own suite, fetched as a Go module.
conformance-registry: build
	TATEGU_BIN=$(CURDIR)/bin/tategu $(PYTHON) test/conformance/registry.py

## Images made without Docker, as model server, job and step; and the clients that push and pull them.
conformance-containers: build $(CLIENTS)/.built $(TOOLS)/crane bin/debian.tar
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu TATEGU_TEST_CRANE=$(TOOLS)/crane \
	TATEGU_TEST_DEBIAN="$$(find $(CURDIR)/bin/debian.tar -size +0)" \
	$(CLIENTS)/bin/python -m pytest -q -rs -p no:cacheprovider test/containers

## Components of google-cloud-pipeline-components, compiled by it unmodified, in an environment of its own:
## it needs another release of the client than the other tests.
conformance-launch: build $(VENV)/components/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(VENV)/components/bin/python -m pytest -q -rs -p no:cacheprovider test/launch

## The README of examples/rust-tract under load; cargo builds Tract once (minutes), and is skipped where it is missing.
test-loader: build $(CLIENTS)/.built $(VENV)/rust-tract/.built
	TATEGU_BIN=$(CURDIR)/bin/tategu TATEGU_TEST_TARGET=$(VENV)/tract TATEGU_TEST_EXAMPLE_PYTHON=$(VENV)/rust-tract/bin/python $(CLIENTS)/bin/python -m pytest -q -rsP -p no:cacheprovider test/loader

## The README of examples/similar-drawings with three families; npm fetches them, cargo builds the renderer, uv JAX. Skipped where one is missing.
.PHONY: test-drawings
test-drawings: build $(CLIENTS)/.built
	cd examples/similar-drawings && { command -v cargo >/dev/null || exit 0; cargo test --quiet --locked; }
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu CARGO_TARGET_DIR=$(CURDIR)/examples/similar-drawings/target $(CLIENTS)/bin/python -m pytest -q -rsP -p no:cacheprovider test/drawings

conformance-sdk: DIR ?= $(SHARED)/conformance/sdk
conformance-sdk: ONLY ?=
conformance-sdk: build $(CLIENTS)/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/conformance/sdk.py --dir "$(DIR)" --only "$(ONLY)"

## TorchServe's own Postman collections, unmodified, under newman; newman and the stock workers are installed on
## first use. Torch is Debian's (apt-get install python3-torch); where it is absent this is skipped and says so.
.PHONY: conformance-torchserve
conformance-torchserve: DIR ?= $(SHARED)/conformance/torchserve
conformance-torchserve: ONLY ?=
conformance-torchserve: build $(CLIENTS)/.built $(VENV)/newman/.built $(VENV)/torchserve/.built
	TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python test/conformance/torchserve.py --dir "$(DIR)" --only "$(ONLY)" \
	--newman $(VENV)/newman/node_modules/.bin/newman --python $(VENV)/torchserve/bin/python

## The README of examples/drawing-classifier, with torch on CPUs, and every default handler beside the stock TorchServe in Java;
## skipped with the reason where torch (or java, torchvision) is absent.
.PHONY: test-torchserve
test-torchserve: build $(CLIENTS)/.built $(VENV)/torchserve/.built
	TATEGU_BIN=$(CURDIR)/bin/tategu TATEGU_TEST_TORCHSERVE=$(VENV)/torchserve/bin/python \
	$(CLIENTS)/bin/python -m pytest -q -rs -p no:cacheprovider test/torchserve
	@$(VENV)/torchserve/bin/python -c 'import torch' 2>/dev/null || { echo 'the rest of test-torchserve: skipped, no torch is installed that $(VENV)/torchserve sees'; exit 0; }; \
	export PATH="$(dir $(UV)):$$PATH" TATEGU_TEST_TORCHSERVE=$(VENV)/torchserve/bin/python; \
	go test -count=1 -timeout 20m ./internal/torchserve/... && \
	TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python -m pytest -q -rs -p no:cacheprovider test/clients/test_torchmodels.py

## A small data directory of a released schema, for the upgrade test (see CONTRIBUTING.md).
upgrade-fixture: $(CLIENTS)/.built
	TATEGU_BIN="$(abspath $(BINARY))" $(CLIENTS)/bin/python test/upgrade/fixture.py --out test/durability/testdata/schema-$(SCHEMA).tar.gz

bench: bench-start bench-recover bench-storage

bench-start: build
	$(PYTHON) bench/start/start.py --binary bin/tategu

# The other server is built by its own go.mod; where that cannot be fetched, its column is left out.
bench-storage: build
	cd bench/storage && CGO_ENABLED=0 go build -o $(CURDIR)/bin/bench-storage .
	cd bench/storage/fakegcs && CGO_ENABLED=0 go build -o $(CURDIR)/bin/fake-gcs-server github.com/fsouza/fake-gcs-server || rm -f $(CURDIR)/bin/fake-gcs-server
	bin/bench-storage -tategu bin/tategu $(if $(DIR),-dir "$(DIR)") -fake "$$(ls bin/fake-gcs-server 2>/dev/null || true)"

## Start of a program in a container, beside bubblewrap, runc and docker, and the build of an image beside docker's.
bench-containers: N ?= 20
bench-containers: build
	CGO_ENABLED=0 go run -tags embedwrapper ./bench/containers -tategu bin/tategu -n $(N)

## What the start of a Python component costs; IMPORT= and PACKAGES= load more.
bench-zygote: N ?= 20
bench-zygote: IMPORT ?= json
bench-zygote: build
	CGO_ENABLED=0 go run -tags embedwrapper ./bench/zygote -tategu bin/tategu -n $(N) -import $(IMPORT) $(if $(UV),-uv $(UV)) $(PACKAGES)

## What a task of a pipeline costs, beside kfp.local and a loop of a shell; ROUNDS=, FLAGS=--short.
bench-pipelines: ROUNDS ?= 10
bench-pipelines: build $(CLIENTS)/.built bin/kfplocal/.built
	PATH="$(dir $(UV)):$$PATH" TATEGU_BIN=$(CURDIR)/bin/tategu \
	$(CLIENTS)/bin/python -W ignore::FutureWarning bench/pipelines/pipelines.py --local bin/kfplocal/bin/python --rounds $(ROUNDS) $(FLAGS)

# kfp.local runs pip in its own environment, so it has one.
bin/kfplocal/.built: test/requirements.txt | $(UV)
	$(UV) venv --quiet --allow-existing --seed --python $(PYTHON) bin/kfplocal
	$(UV) pip install --quiet --python bin/kfplocal/bin/python "$$(grep '^kfp==' test/requirements.txt)"
	touch $@

## A loop of many tasks, many runs at once, many runs stored: tasks a second, memory, fairness, lists.
bench-scale: TASKS ?= 10000
bench-scale: RUNS ?= 100
bench-scale: STORED ?= 10000
bench-scale: build
	CGO_ENABLED=0 go run -trimpath ./bench/scale -tategu bin/tategu -tasks $(TASKS) -runs $(RUNS) -stored $(STORED)

## What an answer of a model costs, beside the Python servers a team would write or take; ROUNDS=, ONLY=proxy,lgbm.
.PHONY: bench-serving
bench-serving: ROUNDS ?= 2
bench-serving: ONLY ?= proxy,image,zero,lgbm,onnx,sklearn
bench-serving: build $(VENV)/serving/.built
	CGO_ENABLED=0 go build -trimpath -o bin/bench-serving ./bench/serving
	PATH="$(dir $(UV)):$$PATH" taskset -c 1 bin/bench-serving -tategu bin/tategu -venvs $(VENV)/serving -rounds $(ROUNDS) -only $(ONLY) $(if $(QUICK),-knee=false) $(if $(BASE),-base $(BASE))

## A TorchServe of tategu beside the one in Java (java on the PATH, torch as test-torchserve), the same workers and archive.
.PHONY: bench-torchserve
bench-torchserve: ROUNDS ?= 3
bench-torchserve: build $(VENV)/torchserve/.built
	CGO_ENABLED=0 go build -trimpath -o bin/bench-torchserve ./bench/torchserve
	taskset -c 1 bin/bench-torchserve -tategu bin/tategu -venv $(VENV)/torchserve -rounds $(ROUNDS)

# Each peer has an environment of its own; one that does not install is left out by name.
$(VENV)/serving/.built: $(wildcard bench/serving/peers/*.txt) | $(UV)
	for p in fastapi bentoml litserve mlserver cpr; do \
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)/serving/$$p && rm -f $(VENV)/serving/$$p/skipped && \
	$(UV) pip install --quiet --python $(VENV)/serving/$$p/bin/python -r bench/serving/peers/$$p.txt 2> $(VENV)/serving/$$p/log || \
	tail -n 1 $(VENV)/serving/$$p/log > $(VENV)/serving/$$p/skipped; done
	touch $@

## Vector search beside hnswlib, faiss, usearch and ScaNN, in turns on one core. FLAGS="--quick --rounds 2" and fewer SETS take minutes.
.PHONY: bench-vector
bench-vector: SETS ?= words-60k,words-341k,clusters128-60k,clusters768-20k
bench-vector: FLAGS ?=
bench-vector: $(VENV)/vector/.built
	CGO_ENABLED=0 go build -trimpath -o bin/bench-vector ./bench/vector
	$(VENV)/vector/bin/python bench/vector/bench.py --tategu bin/bench-vector --data bin/vector-data --sets $(SETS) $(FLAGS)

## Vector search through the API: builds, FindNeighbors over gRPC and REST at a constant rate, memory of a million datapoints; ROWS=, SECONDS=, MILLION=0.
.PHONY: bench-vector-api
bench-vector-api: ROWS ?= 100000
bench-vector-api: SECONDS ?= 10
bench-vector-api: MILLION ?= 1000000
bench-vector-api: build
	CGO_ENABLED=0 go build -trimpath -o bin/bench-vector-api ./bench/vectorapi
	bin/bench-vector-api -tategu bin/tategu -rows $(ROWS) -seconds $(SECONDS) -million $(MILLION) $(if $(DIR),-dir "$(DIR)")

$(VENV)/vector/.built: bench/vector/peers.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)/vector
	CFLAGS="-O3 -march=native" $(UV) pip install --quiet --python $(VENV)/vector/bin/python --refresh-package hnswlib --no-binary hnswlib -r $<
	touch $@

## Batch prediction beside a script of numpy, LightGBM and pyarrow, and beside a small endpoint.
.PHONY: bench-batch
bench-batch: ROWS ?= 1000000
bench-batch: ROUNDS ?= 3
bench-batch: build $(CLIENTS)/.built
	TATEGU_BIN=$(CURDIR)/bin/tategu $(CLIENTS)/bin/python bench/batch/bench.py --rows $(ROWS) --rounds $(ROUNDS)

bench-recover: RUNS ?= 10000
bench-recover: build
	$(PYTHON) bench/recover/recover.py --binary bin/tategu --runs $(RUNS)

lint: $(TOOLS)/.built
	$(TOOLS)/gofumpt -l $$(git ls-files '*.go' | grep -v -e pipelinespec/ -e _templ.go -e '[.]pb[.]go$$') | tee /dev/stderr | (! grep -q .)
	cd internal/api/console && was="$$(cat *_templ.go)" && $(TOOLS)/templ generate -log-level error && [ "$$(cat *_templ.go)" = "$$was" ] || { echo 'the pages were not compiled from their templates: commit what was generated now'; exit 1; }
	$(TOOLS)/golangci-lint run ./...
	go run ./cmd/tategu compat | diff -u docs/compat.md - || (echo 'docs/compat.md is stale: run make generate'; exit 1)

fmt: $(TOOLS)/.built
	$(TOOLS)/gofumpt -w $$(git ls-files '*.go' | grep -v -e pipelinespec/ -e _templ.go -e '[.]pb[.]go$$')
	$(TOOLS)/templ fmt internal/api/console

generate: $(TOOLS)/.built
	cd internal/api/console && $(TOOLS)/templ generate -log-level error
	go test -count=1 ./internal/wire/apiv1 -run TestUpToDate -update
	go run ./cmd/tategu compat > docs/compat.md

# Tools and Python environments: built once, again when their pins change.
$(TOOLS)/.built: tools/go.mod tools/go.sum
	mkdir -p $(TOOLS)
	cd tools && CGO_ENABLED=0 go build -o $(TOOLS)/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint mvdan.cc/gofumpt gotest.tools/gotestsum github.com/a-h/templ/cmd/templ
	touch $@

$(TOOLS)/versitygw: test/s3/go.mod test/s3/go.sum
	cd test/s3 && CGO_ENABLED=0 go build -o $@ github.com/versity/versitygw/cmd/versitygw

$(TOOLS)/crane: test/containers/crane/go.mod test/containers/crane/go.sum
	cd test/containers/crane && CGO_ENABLED=0 go build -o $@ github.com/google/go-containerregistry/cmd/crane

$(UV):
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'

$(CLIENTS)/.built: test/requirements.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(CLIENTS)
	$(UV) pip install --quiet --python $(CLIENTS)/bin/python -r test/requirements.txt
	touch $@

$(VENV)/rust-tract/.built: examples/rust-tract/requirements.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)/rust-tract
	$(UV) pip install --quiet --python $(VENV)/rust-tract/bin/python -r examples/rust-tract/requirements.txt
	touch $@

$(VENV)/newman/.built:
	mkdir -p $(VENV)/newman
	npm install --silent --no-audit --no-fund --prefix $(VENV)/newman newman@6.2.2
	touch $@

# The stock workers of TorchServe. Debian's torch is for its own Python, whose packages a .pth file adds; where
# another torch is to be used, install it into the environment.
$(VENV)/torchserve/.built: test/torchserve/requirements.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)/torchserve
	$(UV) pip install --quiet --python $(VENV)/torchserve/bin/python -r test/torchserve/requirements.txt
	$(UV) pip install --quiet --python $(VENV)/torchserve/bin/python --no-deps captum==0.7.0
	if [ -d /usr/lib/python3/dist-packages/torch ]; then \
	echo /usr/lib/python3/dist-packages > "$$($(VENV)/torchserve/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/debian.pth"; fi
	touch $@

# Datadog's check has pins of its own.
$(VENV)/pgvector/.built: test/pgvector.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)/pgvector
	$(UV) pip install --quiet --python $(VENV)/pgvector/bin/python -r test/pgvector.txt
	touch $@

$(VENV)/datadog/.built: test/datadog.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)/datadog
	$(UV) pip install --quiet --python $(VENV)/datadog/bin/python -r test/datadog.txt
	touch $@

$(VENV)/components/.built: test/launch/requirements.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)/components
	$(UV) pip install --quiet --python $(VENV)/components/bin/python -r test/launch/requirements.txt
	touch $@

clean:
	rm -rf bin .tools .venv .demo
