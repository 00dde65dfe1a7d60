package runtime

import (
	"regexp"
	"strings"

	"tategu/internal/resource"
)

// exception is the one that ended a Python program.
type exception struct {
	kind string // "google.api_core.exceptions.Forbidden"
	text string // behind the colon, one line
}

// raised finds the exception of the last traceback in the output. Its line stands
// at the margin, below the indented lines of the traceback; lines that follow are
// more of its text, or what ran at exit.
func raised(tail []string) (exception, bool) {
	head := regexp.MustCompile(`^((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:: (.*))?$`)
	for i := len(tail) - 1; i > 0; i-- {
		m := head.FindStringSubmatch(tail[i])
		if m == nil || !strings.HasPrefix(tail[i-1], "  ") {
			continue
		}
		e := exception{kind: m[1], text: m[2]}
		if e.text == "" && i+1 < len(tail) { // the text begins on a line of its own
			e.text = strings.TrimSpace(tail[i+1])
		}
		return e, true
	}
	return exception{}, false
}

// name is the exception's class without its module.
func (e exception) name() string { return e.kind[strings.LastIndexByte(e.kind, '.')+1:] }

func (e exception) String() string {
	const most = 500
	if e.text == "" {
		return e.kind
	}
	return e.kind + ": " + strings.ToValidUTF8(e.text[:min(len(e.text), most)], "")
}

// pythonRule is a row of the table of exceptions. $1 and so on in hint are groups
// of text.
type pythonRule struct {
	kind   string // regular expression over the whole dotted class
	text   string // regular expression somewhere in the text; "" = any
	reason string
	cause  resource.Cause
	hint   string
}

// pythonRules are tried in order. Only what leaves no doubt has a class besides
// user code.
func pythonRules() []pythonRule {
	const (
		gpu  = "ask for a GPU (set_accelerator_limit of a task, acceleratorCount of a machine spec), or let the program run without"
		lsGS = "`tategu ls -r gs://$1` shows what is there"
		anyK = `(?:\w+\.)*`
	)
	return []pythonRule{
		{`ModuleNotFoundError`, `No module named '([^'.]+)`, "MODULE_NOT_FOUND", resource.CauseUserCode, "add $package to packages_to_install of the component (requirements of a custom job), or use an image that has it"},
		{`ImportError`, `cannot import name '[^']+' from '([^'.]+)`, "IMPORT", resource.CauseUserCode, "the $package that is installed does not have it: name a version that does in packages_to_install"},
		{`MemoryError|` + anyK + `_ArrayMemoryError`, ``, "OUT_OF_MEMORY", resource.CauseResource, "ask for more memory (set_memory_limit of a task, a larger machine type), or give it smaller batches"},
		{anyK + `OutOfMemoryError|RuntimeError`, `CUDA out of memory|CUDA error: out of memory`, "GPU_OUT_OF_MEMORY", resource.CauseResource, "use smaller batches, or a GPU with more memory"},
		{`RuntimeError|AssertionError`, `No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device`, "NO_GPU", resource.CauseResource, gpu},
		{`OSError`, `\[Errno (?:28|122)\]`, "DISK_FULL", resource.CauseResource, "free space on the disk of the data directory, or let the program write less"},
		{`BlockingIOError|OSError`, `\[Errno 11\]`, "PROCESS_LIMIT", resource.CauseResource, "let it start fewer processes and threads (OMP_NUM_THREADS, workers)"},
		{`RuntimeError`, `can't start new thread`, "PROCESS_LIMIT", resource.CauseResource, "let it start fewer processes and threads (OMP_NUM_THREADS, workers)"},
		{`OSError`, `\[Errno 98\]`, "PORT_TAKEN", resource.CauseUserCode, "listen on the port in $$PORT (AIP_HTTP_PORT), which is free for this program"},
		{`FileNotFoundError`, `'(?:[^']*)/gcs/([a-z0-9._-]+)/`, "OBJECT_NOT_FOUND", resource.CauseInput, lsGS + "; objects are fetched when the command, its arguments or its variables name them in full"},
		{`FileNotFoundError`, `'([^']*)'`, "FILE_NOT_FOUND", resource.CauseUserCode, "a program finds its inputs where its arguments say, and objects as /gcs/BUCKET/NAME"},
		{`PermissionError`, ``, "FILE_DENIED", resource.CauseUserCode, "write to the working directory, /tmp, or an output below /gcs"},
		{`google\.(?:api_core|cloud)\.` + anyK + `(?:Forbidden|PermissionDenied)`, ``, "PERMISSION_DENIED", resource.CauseInput, "give the service account of the job the right that is named (roles/storage.objectViewer on the bucket, say), or run it as another one"},
		{`google\.(?:api_core|cloud)\.` + anyK + `Unauthenticated|google\.(?:api_core|cloud)\.` + anyK + `Unauthorized|google\.auth\.exceptions\.RefreshError`, ``, "UNAUTHENTICATED", resource.CauseInput, "leave the credentials to the library: tategu gives every program those of its service account"},
		{`google\.(?:api_core|cloud)\.` + anyK + `NotFound`, ``, "OBJECT_NOT_FOUND", resource.CauseInput, "check the name: `tategu ls` shows buckets and objects, `tategu status` the rest"},
		{
			`ConnectionRefusedError|(?:socket\.)?gaierror|urllib3\.exceptions\.\w+|requests\.exceptions\.(?:ConnectionError|ConnectTimeout|ProxyError)|httpx\.Connect\w+|google\.api_core\.exceptions\.ServiceUnavailable`, ``,
			"SERVICE_UNREACHABLE", resource.CauseDependency, "a service that the program calls cannot be reached from this machine: check its address, and that it runs",
		},
		{`urllib\.error\.URLError`, `\[Errno (?:111|113|101|-2|-3|-5)\]`, "SERVICE_UNREACHABLE", resource.CauseDependency, "a service that the program calls cannot be reached from this machine: check its address, and that it runs"},
		{`lightgbm\.basic\.LightGBMError`, `[Mm]odel (?:file|format)|submodel`, "BAD_MODEL", resource.CauseModel, "save the model again with booster.save_model, and check that the whole file was uploaded"},
		{`onnxruntime\.` + anyK + `(?:InvalidProtobuf|InvalidGraph|NoSuchFile)|safetensors_rust\.SafetensorError|` + anyK + `SafetensorError`, ``, "BAD_MODEL", resource.CauseModel, "export the model again, and check that the whole file was uploaded"},
		// What the server of modelformat/stock says of a pickle.
		{`ModelError`, `^cannot load \S+ with .*No module named '([^'.]+)`, "BAD_MODEL", resource.CauseModel, "the model needs code that its prebuilt image does not have: serve it with an image of your own, or as a custom prediction routine with $package among its requirements"},
		{`ModelError`, `^cannot load \S+ with .*saved by scikit-learn (\d+)\.(\d+)`, "BAD_MODEL", resource.CauseModel, "upload the model with the image sklearn-cpu.$1-$2, or save it again with the version of the image"},
		{`ModelError`, `^cannot load \S+ with |^there is no model\.|^the object in gs://`, "BAD_MODEL", resource.CauseModel, "save the model again (joblib.dump, pickle.dump, Booster.save_model), with the library's version that the image has, and check that the whole file was uploaded"},
		{`RuntimeError`, `PytorchStreamReader failed`, "BAD_MODEL", resource.CauseModel, "save the model again, and check that the whole file was uploaded"},
	}
}

// pythonError judges a program that an exception ended.
func pythonError(e End) (finding, bool) {
	x, ok := raised(e.Tail)
	if e.Code != 1 || !ok {
		return finding{}, false
	}
	for _, rule := range pythonRules() {
		if !regexp.MustCompile(`^(?:` + rule.kind + `)$`).MatchString(x.kind) {
			continue
		}
		text := regexp.MustCompile(rule.text)
		at := text.FindStringSubmatchIndex(x.text)
		if at == nil {
			continue
		}
		hint := string(text.ExpandString(nil, strings.ReplaceAll(rule.hint, "$package", "$${package}"), x.text, at))
		if len(at) > 3 && at[2] >= 0 {
			hint = strings.ReplaceAll(hint, "${package}", packageOf(x.text[at[2]:at[3]]))
		}
		return finding{reason: rule.reason, cause: rule.cause, message: "it ended with " + x.String(), hint: hint}, true
	}
	if !strings.HasSuffix(x.name(), "Error") && !strings.HasSuffix(x.name(), "Exception") {
		return finding{}, false
	}
	return finding{reason: "EXCEPTION", cause: resource.CauseUserCode, message: "it ended with " + x.String()}, true
}

// packageOf is what to install for a module: most packages are named like it.
func packageOf(module string) string {
	known := map[string]string{
		"sklearn": "scikit-learn", "cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "bs4": "beautifulsoup4", "dateutil": "python-dateutil",
		"dotenv": "python-dotenv", "google": "the google-cloud package of that name", "skimage": "scikit-image", "jwt": "pyjwt", "Crypto": "pycryptodome",
		"attr": "attrs", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "serial": "pyserial", "grpc": "grpcio", "faiss": "faiss-cpu",
	}
	if name, ok := known[module]; ok {
		return name
	}
	return module
}
