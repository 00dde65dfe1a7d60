package process_test

import (
	"fmt"
	"strings"
	"testing"

	"tategu/internal/runtime"
)

// TestWarmComponent: a kfp component that is forked writes what one that is started
// writes, with /gcs mounted and by the hook.
func TestWarmComponent(t *testing.T) {
	t.Parallel()
	for name, noMounts := range map[string]bool{"mounted": false, "hook": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, files := pythonConfig(t, map[string]string{"gs://in/data": "row\n"})
			cfg.NoMounts, cfg.Zygotes = noMounts, zygoteDir(cfg)
			r := open(t, cfg)
			component := func(id string) runtime.Workload {
				input := `{"inputs":{"parameterValues":{"rows":2},"artifacts":{"data":{"artifacts":[{"name":"d","type":{"schemaTitle":"system.Dataset"},"uri":"gs://in/data"}]}}},
"outputs":{"parameters":{"Output":{"outputFile":"/gcs/ID/run/Output"}},"artifacts":{"model":{"artifacts":[{"name":"m","type":{"schemaTitle":"system.Model"},"uri":"gs://ID/run/model"}]}},
"outputFile":"/gcs/ID/run/executor_output.json"}}`
				return runtime.Workload{
					ID: id, Image: "python:3.11", Publish: true, Dirs: []string{"/gcs/" + id + "/run"}, Fetch: []string{"gs://in/data"},
					Command: []string{"python3", "-m", "kfp.dsl.executor_main", "--component_module_path", runtime.ScriptPath},
					Args:    []string{"--executor_input", strings.ReplaceAll(input, "ID", id), "--function_to_execute", "train"},
					Python:  &runtime.Python{Version: "3.11", Packages: []string{"--no-deps kfp==2.17.0", "typing-extensions>=3.7.4,<5"}, Script: component},
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
			if text := output(t, cfg, last); strings.Contains(text, "Warning") || !strings.Contains(text, "[KFP Executor") {
				t.Errorf("output %s", text)
			}
		})
	}
}
