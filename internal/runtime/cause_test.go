package runtime_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// judged is one case: the end of a program, and what has to come of it.
type judged struct {
	end    runtime.End
	cause  resource.Cause
	reason string
	say    string // in the message
	next   string // in the hint
}

// python is the end of a Python program by an exception.
func python(lines ...string) runtime.End {
	tail := []string{"Traceback (most recent call last):", `  File "/work/train.py", line 3, in <module>`, "    load()"}
	return runtime.End{Code: 1, Tail: append(tail, lines...)}
}

func said(code int, lines ...string) runtime.End { return runtime.End{Code: code, Tail: lines} }

func ends() map[string]judged {
	const user, input, res, dep, model, platform = resource.CauseUserCode, resource.CauseInput, resource.CauseResource, resource.CauseDependency, resource.CauseModel, resource.CausePlatform
	return map[string]judged{
		"code":           {said(3, "no"), user, "EXIT_CODE", "failed", ""},
		"stopped":        {runtime.End{Code: 143, Signal: "SIGTERM", Stopped: true}, input, "STOPPED", "stopped", ""},
		"not started":    {runtime.End{Code: -1, Error: "map /gcs: no"}, platform, "NOT_STARTED", "map /gcs", ""},
		"own group":      {runtime.End{Code: 137, Signal: "SIGKILL", Killed: true, Own: true, Memory: 64 << 20}, res, "OUT_OF_MEMORY", "64 MiB", "set_memory_limit"},
		"child killed":   {runtime.End{Code: 1, Killed: true, Own: true}, res, "OUT_OF_MEMORY", "more memory than it asked for", "ask for more"},
		"machine":        {runtime.End{Code: 137, Signal: "SIGKILL", Killed: true}, res, "OUT_OF_MEMORY", "machine's memory", "smaller batches"},
		"other's memory": {runtime.End{Code: 2, Killed: true}, user, "EXIT_CODE", "failed", ""},
		"killed":         {runtime.End{Code: 137, Signal: "SIGKILL"}, user, "KILLED", "SIGKILL", "who ended it"},
		"by its shell":   {said(137), user, "KILLED", "SIGKILL", ""},
		"segfault":       {runtime.End{Code: 139, Signal: "SIGSEGV"}, user, "CRASHED", "SIGSEGV", "PYTHONFAULTHANDLER"},
		"instructions":   {runtime.End{Code: 132, Signal: "SIGILL"}, user, "CRASHED", "SIGILL", "processor"},

		"missing":      {runtime.End{Code: -1, Refused: runtime.RefusedMissing, Program: "trian"}, input, "COMMAND_NOT_FOUND", `"trian" on this machine`, "tategu.yaml"},
		"in the image": {runtime.End{Code: -1, Refused: runtime.RefusedMissing, Program: "/run", Image: "app:1"}, input, "COMMAND_NOT_FOUND", "in the image app:1", "tategu image inspect app:1"},
		"loader":       {runtime.End{Code: -1, Refused: runtime.RefusedLoader, Program: "/run", Image: "app:1"}, input, "LOADER_NOT_FOUND", "not what runs it", "statically"},
		"script":       {runtime.End{Code: -1, Refused: runtime.RefusedLoader, Program: "/run", Loader: "/bin/bash -e", Image: "app:1"}, input, "LOADER_NOT_FOUND", "/bin/bash", "install bash"},
		"no right":     {runtime.End{Code: -1, Refused: runtime.RefusedDenied, Program: "/run", Image: "app:1", User: "1000:1000"}, input, "NOT_EXECUTABLE", "user 1000:1000", "chmod a+x"},
		"format":       {runtime.End{Code: -1, Refused: runtime.RefusedFormat, Program: "/run"}, input, "WRONG_FORMAT", "not a program", "#!/bin/sh"},
		"too long":     {runtime.End{Code: -1, Refused: runtime.RefusedArguments}, input, "ARGUMENTS_TOO_LONG", "longer", "bucket"},
		"directory":    {runtime.End{Code: -1, Refused: runtime.RefusedDirectory, Program: "/run", Image: "app:1"}, input, "DIRECTORY_NOT_FOUND", "working directory", "image"},

		"rust panic":    {said(101, "working", "", "thread 'main' (12) panicked at src/main.rs:27:16:", "index out of bounds: the len is 3 but the index is 3", "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"), user, "PANIC", "panicked at src/main.rs:27:16: index out of bounds", "RUST_BACKTRACE=1"},
		"rust abort":    {runtime.End{Code: 134, Signal: "SIGABRT", Tail: []string{"thread 'worker' panicked at src/lib.rs:1:2:", "no", "stack backtrace:", "   0: rust_begin_unwind"}}, user, "PANIC", "src/lib.rs:1:2: no", ""},
		"old rust":      {said(101, "thread 'main' panicked at 'no rows', src/main.rs:2:5"), user, "PANIC", "src/main.rs:2:5: no rows", ""},
		"rust disk":     {said(101, "thread 'main' panicked at src/main.rs:2:5:", `called Result::unwrap() on an Err value: Os { code: 28, message: "No space left on device" }`), res, "DISK_FULL", "No space left", "free space"},
		"rust code":     {said(101, "thread 'main' panicked at"), user, "EXIT_CODE", "failed", ""},
		"go":            {said(2, "panic: runtime error: index out of range [3] with length 3", "", "goroutine 1 [running]:", "panic({0x1, 0x2})", "\t/go/src/runtime/panic.go:1 +0x1", "main.trend(...)", "\t/src/main.go:10 +0x1d", "exit status 2"), user, "PANIC", "/src/main.go:10: runtime error: index out of range", ""},
		"go's own word": {said(2, "panic: at the disco", "usage: x"), user, "EXIT_CODE", "failed", ""},

		"exception":    {python("ValueError: no rows"), user, "EXCEPTION", "ValueError: no rows", ""},
		"no text":      {python("my.pkg.OddError"), user, "EXCEPTION", "my.pkg.OddError", ""},
		"lines after":  {python("ValueError: no rows", "and more of it", "atexit: bye"), user, "EXCEPTION", "ValueError: no rows", ""},
		"other code":   {runtime.End{Code: 2, Tail: python("MemoryError").Tail}, user, "EXIT_CODE", "failed", ""},
		"only printed": {said(1, "Error: MemoryError", "MemoryError: x"), user, "EXIT_CODE", "failed", ""},
		"module":       {python("ModuleNotFoundError: No module named 'sklearn.linear_model'"), user, "MODULE_NOT_FOUND", "sklearn", "scikit-learn to packages_to_install"},
		"name":         {python("ImportError: cannot import name 'x' from 'pandas.core' (/site/pandas/core.py)"), user, "IMPORT", "cannot import", "the pandas that is installed"},
		"memory":       {python("MemoryError"), res, "OUT_OF_MEMORY", "MemoryError", "set_memory_limit"},
		"numpy memory": {python("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array"), res, "OUT_OF_MEMORY", "7.45 GiB", ""},
		"cuda memory":  {python("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"), res, "GPU_OUT_OF_MEMORY", "CUDA out of memory", "smaller batches"},
		"driver":       {python("RuntimeError: Found no NVIDIA driver on your system."), res, "NO_GPU", "driver", "set_accelerator_limit"},
		"disk":         {python("OSError: [Errno 28] No space left on device: '/tmp/x'"), res, "DISK_FULL", "No space", "free space"},
		"threads":      {python("RuntimeError: can't start new thread"), res, "PROCESS_LIMIT", "thread", "OMP_NUM_THREADS"},
		"port":         {python("OSError: [Errno 98] Address already in use"), user, "PORT_TAKEN", "in use", "$PORT (AIP_HTTP_PORT)"},
		"object":       {python("FileNotFoundError: [Errno 2] No such file or directory: '/data/workloads/w/gcs/b/in/x.csv'"), input, "OBJECT_NOT_FOUND", "x.csv", "`tategu ls -r gs://b`"},
		"mounted":      {python("FileNotFoundError: [Errno 2] No such file or directory: '/gcs/b/in/x.csv'"), input, "OBJECT_NOT_FOUND", "x.csv", "`tategu ls -r gs://b`"},
		"file":         {python("FileNotFoundError: [Errno 2] No such file or directory: 'x.csv'"), user, "FILE_NOT_FOUND", "x.csv", "/gcs/BUCKET/NAME"},
		"forbidden":    {python("google.api_core.exceptions.Forbidden: 403 GET http://h/b/x: no access"), input, "PERMISSION_DENIED", "403", "roles/storage.objectViewer"},
		"gone":         {python("google.cloud.exceptions.NotFound: 404 GET http://h/b/x"), input, "OBJECT_NOT_FOUND", "404", "tategu ls"},
		"refused":      {python("ConnectionRefusedError: [Errno 111] Connection refused"), dep, "SERVICE_UNREACHABLE", "refused", "address"},
		"requests":     {python("requests.exceptions.ConnectionError: HTTPConnectionPool(host='h', port=1)"), dep, "SERVICE_UNREACHABLE", "HTTPConnectionPool", ""},
		"urllib":       {python("urllib.error.URLError: <urlopen error [Errno 111] Connection refused>"), dep, "SERVICE_UNREACHABLE", "refused", ""},
		"pickle":       {python("ModelError: cannot load gs://b/m/model.pkl with scikit-learn 1.6.1 of the image sklearn-cpu.1-6: UnpicklingError: pickle data was truncated"), model, "BAD_MODEL", "truncated", "whole file"},
		"old pickle":   {python("ModelError: cannot load gs://b/m/model.pkl with scikit-learn 1.6.1 of the image sklearn-cpu.1-6: ValueError: node array (it was saved by scikit-learn 1.2.2)"), model, "BAD_MODEL", "node array", "sklearn-cpu.1-2"},
		"own code":     {python("ModelError: cannot load gs://b/m/model.pkl with scikit-learn 1.6.1 of the image sklearn-cpu.1-6: ModuleNotFoundError: No module named 'shop.features'"), model, "BAD_MODEL", "shop", "shop among its requirements"},
		"own error":    {python("ModelError: no rows"), user, "EXCEPTION", "no rows", ""},
		"bad model":    {python("lightgbm.basic.LightGBMError: Model format error, expect a tree here. met xx"), model, "BAD_MODEL", "Model format", "save_model"},

		"shell":          {said(127, "sh: 1: trian: not found"), input, "COMMAND_NOT_FOUND", "trian", "install trian"},
		"bash":           {said(127, "/run.sh: line 3: trian: command not found"), input, "COMMAND_NOT_FOUND", "trian", "install trian"},
		"env":            {said(127, "env: ‘trian’: No such file or directory"), input, "COMMAND_NOT_FOUND", "trian", ""},
		"library":        {said(127, "/run: error while loading shared libraries: libgomp.so.1: cannot open shared object file"), input, "LIBRARY_NOT_FOUND", "libgomp.so.1", "install"},
		"glibc":          {said(1, "/run: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /run)"), input, "LIBRARY_NOT_FOUND", "GLIBC_2.38", "statically"},
		"not executable": {said(126, "sh: 1: ./run.sh: Permission denied"), input, "NOT_EXECUTABLE", "./run.sh", "chmod a+x"},
		"architecture":   {said(126, "sh: 1: ./run: Exec format error"), input, "WRONG_FORMAT", "Exec format", "processor"},
		"said 127":       {said(127, "nothing of use"), user, "EXIT_CODE", "failed", ""},
		"onnx model":     {said(65, "level=INFO", "tategu-runner: model.onnx cannot be served: Protobuf parsing failed."), model, "MODEL_NOT_LOADED", "model.onnx cannot be served", "onnxruntime"},
		"onnx library":   {said(69, "tategu-runner: load ONNX Runtime: no such file"), dep, "LIBRARY_NOT_FOUND", "load ONNX Runtime", "onnx.library"},
		"65 of others":   {said(65, "bad data"), user, "EXIT_CODE", "failed", ""},
		"dd":             {said(1, "dd: error writing 'x': No space left on device", "1+0 records in", "0+0 records out"), res, "DISK_FULL", "No space", "free space"},
		"long ago":       {said(1, "dd: No space left on device", "a", "b", "c", "d", "e", "f"), user, "EXIT_CODE", "failed", ""},
		"rust":           {runtime.End{Code: 134, Signal: "SIGABRT", Tail: []string{"memory allocation of 80000000000 bytes failed"}}, res, "OUT_OF_MEMORY", "80000000000", "set_memory_limit"},
		"pip inside":     {said(1, "ERROR: Could not find a version that satisfies the requirement six==0.0.1 (from versions: 1.0, 1.1)", "ERROR: No matching distribution found for six==0.0.1"), input, "UNKNOWN_VERSION", "six==0.0.1", "packages_to_install"},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, tc := range ends() {
		exit := runtime.Judge(tc.end)
		if exit.Cause != tc.cause || exit.Reason != tc.reason || !strings.Contains(exit.Message, tc.say) || !strings.Contains(exit.Hint, tc.next) {
			t.Errorf("%s:\n got %q %s %q; %q\nwant %q %s %q; %q", name, exit.Cause, exit.Reason, exit.Message, exit.Hint, tc.cause, tc.reason, tc.say, tc.next)
		}
		if exit.Code != tc.end.Code || exit.Signal != tc.end.Signal {
			t.Errorf("%s: the exit is another one: %+v", name, exit)
		}
	}
	if exit := runtime.Judge(runtime.End{Tail: []string{"MemoryError"}}); !exit.OK() || exit.Cause != "" || exit.Reason != "" {
		t.Errorf("a good end: %+v", exit)
	}
}

// TestPackageError: what uv 0.13 and pip 23 print, as they print it.
func TestPackageError(t *testing.T) {
	t.Parallel()
	const pipDown = `WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('<HTTPConnection object>: Failed to establish a new connection: [Errno 111] Connection refused')': /simple/six/`
	tests := map[string]struct {
		lines  []string
		cause  resource.Cause
		reason string
		say    string
	}{
		"uv version":     {[]string{"error: No solution found when resolving dependencies", "  cause: Because there is no version of six==0.0.0.1 and you require six==0.0.0.1, we can conclude that your requirements are unsatisfiable."}, resource.CauseInput, "UNKNOWN_VERSION", "six==0.0.0.1"},
		"uv range":       {[]string{"  cause: Because only six<=1.17.0 is available and you require six>99, we can conclude that your requirements are unsatisfiable."}, resource.CauseInput, "UNKNOWN_VERSION", "six"},
		"uv name":        {[]string{"error: No solution found", "  ╰─▶ Because no-such was not found in the package registry and you require no-such, we can conclude that your requirements are unsatisfiable."}, resource.CauseInput, "UNKNOWN_PACKAGE", "no-such"},
		"uv conflict":    {[]string{"  cause: Because you require numpy==1.26.4 and numpy>2, we can conclude that your requirements are unsatisfiable."}, resource.CauseInput, "CONFLICT", "exclude each other"},
		"uv requirement": {[]string{"error: Failed to parse: `not a requirement !`", "  cause: Expected one of `@`, `(`"}, resource.CauseInput, "BAD_REQUIREMENT", "not a requirement !"},
		"uv refused":     {[]string{"error: Request failed after 3 retries in 7.8s", "  cause: Failed to fetch: http://127.0.0.1:9/simple/six/", "  cause: tcp connect error", "  cause: Connection refused (os error 111)"}, resource.CauseDependency, "INDEX_UNREACHABLE", "cannot be reached"},
		"uv dns":         {[]string{"  cause: error sending request for url (http://no-such-host.invalid/simple/six/)", "  cause: dns error"}, resource.CauseDependency, "INDEX_UNREACHABLE", "cannot be reached"},
		"uv denied":      {[]string{"  cause: HTTP status client error (401 Unauthorized) for url (http://h/simple/six/)"}, resource.CauseInput, "INDEX_DENIED", "let us in"},
		"uv build":       {[]string{"  × Failed to build `six==1.0`", "  ├─▶ The build backend returned an error"}, resource.CauseDependency, "BUILD_FAILED", "six==1.0"},
		"pip version":    {[]string{"ERROR: Could not find a version that satisfies the requirement six==0.0.0.1 (from versions: 0.9.0, 0.9.1)", "ERROR: No matching distribution found for six==0.0.0.1"}, resource.CauseInput, "UNKNOWN_VERSION", "six==0.0.0.1"},
		"pip name":       {[]string{"ERROR: Could not find a version that satisfies the requirement no-such (from versions: none)"}, resource.CauseInput, "UNKNOWN_PACKAGE", "no-such"},
		"pip refused":    {[]string{pipDown, "ERROR: Could not find a version that satisfies the requirement six (from versions: none)", "ERROR: No matching distribution found for six"}, resource.CauseDependency, "INDEX_UNREACHABLE", "cannot be reached"},
		"disk":           {[]string{"error: failed to copy: No space left on device (os error 28)"}, resource.CauseResource, "DISK_FULL", "disk"},
		"unknown":        {[]string{"error: something odd"}, resource.CauseDependency, "PACKAGES", "could not be installed"},
	}
	for name, tc := range tests {
		err := runtime.PackageError("install six", tc.lines)
		if err.Cause != tc.cause || err.Reason != tc.reason || !strings.Contains(err.Message, tc.say) || err.Hint == "" {
			t.Errorf("%s: got %q %s %q; %q", name, err.Cause, err.Reason, err.Message, err.Hint)
		}
	}
}

// FuzzJudge: whatever a program prints, its end is judged in bounds, and never as
// the platform's or the model's fault by the program's own choice of exit code.
func FuzzJudge(f *testing.F) {
	for _, tc := range ends() {
		f.Add(tc.end.Code, tc.end.Signal, strings.Join(tc.end.Tail, "\n"), tc.end.Killed, tc.end.Own)
	}
	f.Fuzz(func(t *testing.T, code int, signal, output string, killed, own bool) {
		lines := strings.Split(strings.ToValidUTF8(output, ""), "\n")
		exit := runtime.Judge(runtime.End{Code: code, Signal: signal, Tail: lines, Killed: killed, Own: own})
		switch {
		case exit.Code != code || exit.OK() != (code == 0):
			t.Fatalf("another exit: %+v", exit)
		case exit.OK() != (exit.Cause == ""), !exit.OK() && exit.Reason == "", exit.Message == "":
			t.Fatalf("an end without a verdict: %+v", exit)
		case exit.Cause == resource.CausePlatform:
			t.Fatalf("a program that ran is not the platform's fault: %+v", exit)
		case len(exit.Message) > 2000 || len(exit.Hint) > 2000 || utf8.ValidString(signal) && !utf8.ValidString(exit.Message+exit.Hint):
			t.Fatalf("out of bounds: %d and %d bytes", len(exit.Message), len(exit.Hint))
		}
		err := exit.Err("it")
		if len(err.Error()) > 16<<10 || err.GRPCStatus().Message() == "" {
			t.Fatalf("an error of %d bytes", len(err.Error()))
		}
		packages := runtime.PackageError("install", lines)
		if packages.Cause == "" || packages.Hint == "" || len(packages.Message) > 2000 {
			t.Fatalf("packages: %+v", packages)
		}
	})
}
