package main

import (
	"context"
	"net/http"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func goarch() string { return runtime.GOARCH }

// foreign is a processor that this one is not.
func foreign() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// The causes, as users read them.
const (
	input      = "input"
	userCode   = "user code"
	badModel   = "model"
	resources  = "resource"
	dependency = "dependency"
	platform   = "platform"
)

// faults is the table.
func faults() []fault {
	out := programs()
	out = append(out, packages()...)
	out = append(out, images()...)
	return append(out, models()...)
}

func programs() []fault {
	return []fault{
		{"command", inJob("none"), input, "COMMAND_NOT_FOUND", []string{"/nonexistent/program"}, []string{"full path"}},
		{"command in a shell", inJob("sh", "trian --fast"), input, "COMMAND_NOT_FOUND", []string{"trian", "exit code 127"}, []string{"install trian", "tategu logs"}},
		{"no right in a shell", inJob("sh", "echo true > x; ./x"), input, "NOT_EXECUTABLE", []string{"./x", "exit code 126"}, []string{"chmod a+x"}},
		{"exit code", inJob("sh", "echo no rows today; exit 3"), userCode, "EXIT_CODE", []string{"exit code 3", "no rows today"}, []string{"tategu logs"}},
		{"killed", inJob("sh", "echo working; kill -9 $$"), userCode, "KILLED", []string{"SIGKILL", "working"}, []string{"who ended it"}},
		{"crash", inJob("sh", "kill -SEGV $$"), userCode, "CRASHED", []string{"SIGSEGV", "exit code 139"}, []string{"PYTHONFAULTHANDLER"}},
		{"timeout", func(ctx context.Context, w *world) ([]shown, error) {
			return w.job(ctx, spec{image: "sh", command: []string{"echo so far; sleep 60"}, timeout: "1s"})
		}, userCode, "TIMEOUT", []string{"1s", "so far"}, []string{"scheduling.timeout"}},
		{"exception", inPython("raise ValueError('no rows')"), userCode, "EXCEPTION", []string{"ValueError: no rows", "Traceback"}, []string{"tategu logs"}},
		{"module", inPython("import sklearn_of_the_moon"), userCode, "MODULE_NOT_FOUND", []string{"sklearn_of_the_moon"}, []string{"packages_to_install"}},
		{"file", inPython("open('rows.csv')"), userCode, "FILE_NOT_FOUND", []string{"rows.csv"}, []string{"/gcs/BUCKET/NAME"}},
		{"object", inPython("open('/gcs/" + bucket + "/rows.csv')"), input, "OBJECT_NOT_FOUND", []string{"rows.csv"}, []string{"tategu ls -r gs://" + bucket}},
		{"python's memory", inPython("x = bytearray(1 << 60)"), resources, "OUT_OF_MEMORY", []string{"MemoryError"}, []string{"set_memory_limit"}},
		{"a service is down", inPython("import urllib.request as r; r.urlopen('http://127.0.0.1:1/')"), dependency, "SERVICE_UNREACHABLE", []string{"Connection refused"}, []string{"address"}},
		{"bucket denied", denied, input, "PERMISSION_DENIED", []string{"403", "secret"}, []string{"roles/storage.objectViewer"}},
		{"full disk", fullDisk, resources, "DISK_FULL", []string{"o space left"}, []string{"free space"}},
		{"no GPU", func(ctx context.Context, w *world) ([]shown, error) {
			return w.job(ctx, spec{image: "sh", command: []string{"true"}, gpus: 64})
		}, resources, "", []string{"64 GPUs"}, nil},
		{"more memory than there is", inTask(map[string]any{"image": "sh", "command": []string{"true"}, "resources": map[string]any{"resourceMemoryLimit": "900Ti"}}), resources, "", []string{"memory", "this machine"}, nil},
		{"task", inTask(map[string]any{"image": "sh", "command": []string{"echo it is me; exit 4"}}), userCode, "EXIT_CODE", []string{"exit code 4", "it is me"}, []string{"tategu logs run-", "/train"}},
		{"output", func(ctx context.Context, w *world) ([]shown, error) {
			return w.run(ctx, map[string]any{"image": "sh", "command": []string{"echo forgot"}}, map[string]any{"parameters": map[string]any{"score": map[string]any{"parameterType": "NUMBER_DOUBLE"}}})
		}, userCode, "BAD_OUTPUT", []string{`"score" was not written`, "forgot"}, []string{"tategu logs"}},
		{"parameter", wrongParameter, input, "", []string{"rounds"}, nil},
	}
}

func packages() []fault {
	return []fault{
		{"index down", inPackages("tiny", closedIndex), dependency, "INDEX_UNREACHABLE", []string{"tiny", "cannot be reached"}, []string{"reachable"}},
		{"package", inPackages("nosuch", goodIndex), input, "UNKNOWN_PACKAGE", []string{"nosuch"}, []string{"packages_to_install"}},
		{"version", inPackages("tiny==9", goodIndex), input, "UNKNOWN_VERSION", []string{"tiny"}, []string{"another version"}},
	}
}

func images() []fault {
	entry := v1.Config{Entrypoint: []string{"/program"}}
	plain := v1.Config{Entrypoint: []string{"/program"}, User: "1000"}
	return []fault{
		{"image", inJob("team/nothing:v1", "true"), input, "", []string{"team/nothing:v1"}, []string{"tategu image pull"}},
		{"image of another processor", inImage(image{layer: theProgram(0o755), arch: foreign(), config: entry}), input, "", []string{foreign()}, []string{"linux/" + goarch()}},
		{"image is damaged", inImage(image{layer: random(1 << 20), config: entry, after: damage}), platform, "", []string{"damaged in the data directory"}, []string{"check the disk"}},
		{"image is no tar", inImage(image{layer: garbage, config: entry}), input, "", []string{"not a whole tar"}, []string{"build the image again"}},
		{"image without the command", inImage(image{layer: theProgram(0o755), config: v1.Config{Entrypoint: []string{"/prog"}}}), input, "COMMAND_NOT_FOUND", []string{`"/prog"`}, []string{"tategu image inspect"}},
		{"image without the right", inImage(image{layer: theProgram(0o700), config: plain}), input, "NOT_EXECUTABLE", []string{"1000"}, []string{"chmod a+x"}},
		{"image without the interpreter", inImage(image{layer: oneFile("#!/bin/nothing\n"), config: entry}), input, "LOADER_NOT_FOUND", []string{"/bin/nothing"}, []string{"install nothing"}},
		{"image with something else", inImage(image{layer: oneFile("hello\n"), config: entry}), input, "WRONG_FORMAT", []string{"not a program"}, []string{"#!/bin/sh"}},
		{"image on a full disk", fullCache, resources, "DISK_FULL", []string{"no space left"}, []string{"free space"}},
		{"memory", outOfMemory, resources, "OUT_OF_MEMORY", []string{"64 MiB", "SIGKILL"}, []string{"set_memory_limit"}},
		{"registry down", inPull(0), dependency, "", []string{"connection refused"}, []string{"reaches 127.0.0.1:1"}},
		{"registry denies", inPull(http.StatusForbidden), input, "", []string{"fetch"}, []string{"docker login"}},
		{"registry lacks it", inPull(http.StatusNotFound), input, "", []string{"fetch"}, []string{"the name and the tag"}},
	}
}

func models() []fault {
	program := func(mode string, env map[string]string) model {
		return model{image: "program", args: []string{mode}, env: env, predict: "/predict", timeout: "3s"}
	}
	return []fault{
		{"model file", inFile("cut/model.txt", aModel[:len(aModel)-len("end of trees\n")]), badModel, "", []string{"gs://" + bucket + "/cut/model.txt", "is missing"}, nil},
		{"model version", inFile("v9/model.txt", strings.Replace(aModel, "version=v4", "version=v9", 1)), badModel, "", []string{`line 2: version "v9" is not supported`}, nil},
		{"no model", inFile("none/readme.md", "# nothing"), badModel, "", []string{"no LightGBM text model"}, []string{"save_model"}},
		{"model image", inModel(model{image: "team/nothing:v1", predict: "/predict"}), input, "", []string{"team/nothing:v1"}, []string{"tategu image pull"}},
		{"port", inModel(program("sleep", nil)), userCode, "PORT_NEVER_OPENED", []string{"I do not listen"}, []string{"AIP_HTTP_PORT", "deploymentTimeout", "tategu logs"}},
		{"health", inModel(program("serve", map[string]string{"HEALTH": "bad"})), userCode, "HEALTH_ROUTE_FAILS", []string{"500"}, []string{"healthRoute"}},
		{"replica ends", inModel(program("exit", nil)), userCode, "EXIT_CODE", []string{"exit code 5", "no weights here"}, []string{"tategu logs"}},
		{"predict route", wrongRoute, userCode, "PREDICT_ROUTE", []string{"404", "/invocations"}, []string{"predictRoute"}},
		{"rows", badRows, input, "", []string{"not valid JSON"}, []string{"errors_stats"}},
		{"no rows", noRows, input, "", []string{"gs://" + bucket + "/nothing.jsonl"}, nil},
	}
}
