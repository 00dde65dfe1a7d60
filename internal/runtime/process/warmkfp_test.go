package process_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"tategu/internal/runtime"
)

// lookingComponent is component, which also tells what it finds of what kfp's executor, and
// its rehearsal in the zygote, may change.
var lookingComponent = strings.Replace(component, "    import os\n", `    import atexit, locale, logging, os, signal, sys, threading, warnings
    shown = {
        "handlers": [(type(h).__name__, h.stream is sys.stdout, h.formatter._fmt) for h in logging.root.handlers],
        "all handlers": len([r for r in logging._handlerList if r() is not None]), "level": logging.root.level,
        "names": sorted(n for n in vars(sys.modules["__main__"]) if not n.startswith("__")), "main": sys.modules["__main__"].__file__,
        "path": sys.path, "argv": sys.argv, "loaded": [m for m in sys.modules if "rehearsal" in m or "tategu" in m],
        "importers": sorted(p for p in sys.path_importer_cache if "rehearsal" in p), "bytecode": sys.dont_write_bytecode,
        "streams": (sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__, sys.stdout.name, sys.stderr.name),
        "files": sorted(os.listdir()), "filters": warnings.filters, "locale": locale.setlocale(locale.LC_ALL),
        "signals": [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)],
        "threads": threading.active_count(), "exit functions": atexit._ncallbacks(),
    }
    for name, value in shown.items():
        model.metadata[name] = repr(value)
`, 1)

// news keeps what is logged.
type news struct {
	mu   sync.Mutex
	text strings.Builder
}

func (n *news) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *news) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// TestWarmComponent: a kfp component that is forked writes what one that is started
// writes, with /gcs mounted and by the hook.
func TestWarmComponent(t *testing.T) {
	t.Parallel()
	for name, noMounts := range map[string]bool{"mounted": false, "hook": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, files := pythonConfig(t, map[string]string{"gs://in/data": "row\n"})
			cfg.NoMounts, cfg.Zygotes = noMounts, zygoteDir(cfg)
			var log news
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			r := open(t, cfg)
			component := func(id string) runtime.Workload {
				input := `{"inputs":{"parameterValues":{"rows":2},"artifacts":{"data":{"artifacts":[{"name":"d","type":{"schemaTitle":"system.Dataset"},"uri":"gs://in/data"}]}}},
"outputs":{"parameters":{"Output":{"outputFile":"/gcs/ID/run/Output"}},"artifacts":{"model":{"artifacts":[{"name":"m","type":{"schemaTitle":"system.Model"},"uri":"gs://ID/run/model"}]}},
"outputFile":"/gcs/ID/run/executor_output.json"}}`
				return runtime.Workload{
					ID: id, Image: "python:3.11", Publish: true, Dirs: []string{"/gcs/" + id + "/run"}, Fetch: []string{"gs://in/data"},
					Command: []string{"python3", "-m", "kfp.dsl.executor_main", "--component_module_path", runtime.ScriptPath},
					Args:    []string{"--executor_input", strings.ReplaceAll(input, "ID", id), "--function_to_execute", "train"},
					Python:  &runtime.Python{Version: "3.11", Packages: []string{"--no-deps kfp==2.17.0", "typing-extensions>=3.7.4,<5"}, Script: lookingComponent},
				}
			}
			exit := runToEnd(t, r, component("cold"))
			needIndex(t, exit)
			if !exit.OK() {
				t.Fatalf("%+v", exit)
			}
			last := ""
			for i := 0; r.Starts().Warm == 0; i++ {
				last = fmt.Sprintf("warm-%d", i)
				if exit := runToEnd(t, r, component(last)); !exit.OK() || i > 500 {
					t.Fatalf("%+v", exit)
				}
			}
			for _, object := range []string{"model", "executor_output.json"} {
				cold, warm := files.Content("gs://cold/run/"+object), files.Content("gs://"+last+"/run/"+object)
				if cold == "" || strings.ReplaceAll(cold, "cold", "ID") != strings.ReplaceAll(warm, last, "ID") {
					t.Errorf("%s\ncold %s\nwarm %s", object, cold, warm)
				}
			}
			if text := log.String(); !strings.Contains(text, "(rehearsal)") || strings.Contains(text, "left to the programs") {
				t.Errorf("the executor was not rehearsed: %s", text)
			}
			if text := output(t, cfg, last); strings.Contains(text, "Warning") || !strings.Contains(text, "[KFP Executor") {
				t.Errorf("output %s", text)
			}
		})
	}
}
