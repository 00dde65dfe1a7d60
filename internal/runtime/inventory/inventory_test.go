package inventory

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"tategu/internal/runtime"
)

func declared(text string) (Declared, error) {
	var d Declared
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	err := dec.Decode(&d)
	if err == nil {
		err = d.Validate()
	}
	return d, err
}

func TestDeclared(t *testing.T) {
	d, err := declared("{cores: 1.5, memory: 2Gi, gpus: 2, default: {cores: 0.5, memory: 1048576}}")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := Find(t.Context(), d, slog.New(slog.DiscardHandler))
	want := runtime.Inventory{Cores: 1.5, MemoryBytes: 2 << 30, GPUs: []runtime.GPU{{ID: "0", Devices: node("0")}, {ID: "1", Devices: node("1")}}}
	if diff := cmp.Diff(want, inv); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if d.Default != (Default{Cores: 0.5, Memory: 1 << 20}) {
		t.Errorf("default %+v", d.Default)
	}
	d, err = declared("gpus: [{id: GPU-1, name: L4, memory: 24Gi, devices: [/dev/nvidia3]}]")
	if err != nil {
		t.Fatal(err)
	}
	inv, err = Find(t.Context(), d, slog.New(slog.DiscardHandler))
	if diff := cmp.Diff([]runtime.GPU{{ID: "GPU-1", Name: "L4", MemoryBytes: 24 << 30, Devices: []string{"/dev/nvidia3"}}}, inv.GPUs); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if inv.Cores <= 0 || inv.MemoryBytes <= 0 {
		t.Errorf("this machine has %+v", inv)
	}
	d, err = declared("gpus: 0")
	if err != nil {
		t.Fatal(err)
	}
	if inv, err := Find(t.Context(), d, slog.New(slog.DiscardHandler)); err != nil || len(inv.GPUs) != 0 {
		t.Errorf("none declared: %+v, %v", inv, err)
	}
}

func TestDeclaredRefused(t *testing.T) {
	for text, say := range map[string]string{
		"cores: -1":                             "resources.cores is -1",
		"cores: .nan":                           "resources.cores is NaN",
		"memory: 5 GB":                          "is not a size",
		"memory: 8000Ti":                        "", // a large machine
		"memory: 999999999999Gi":                "is not a size",
		"gpus: many":                            "gpus is a number",
		"gpus: -1":                              "gpus is a number",
		"gpus: 1000":                            "gpus is a number",
		"gpus: {id: 0}":                         "gpus is a number",
		"gpus: [{name: L4}]":                    `id is ""`,
		"gpus: [{id: '0,1'}]":                   `id is "0,1"`,
		"gpus: [{id: '0'}, {id: '0'}]":          "twice",
		"gpus: [{id: '0', devices: [nvidia0]}]": "not an absolute path",
		"gpus: [{id: '0', uuid: x}]":            "uuid",
		"default: {cores: -1}":                  "resources.default.cores is -1",
		"gpus: [{id: '0', memory: {a: b}}]":     "is not a size",
		"cores: 0.25":                           "",
	} {
		_, err := declared(text)
		if (err == nil) != (say == "") || err != nil && !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want %q", text, err, say)
		}
	}
}

// The answers of drivers 535 and 550, and of one with unified memory.
func TestNvidiaSMI(t *testing.T) {
	driver := []driver{{uuid: "GPU-b", minor: "7"}}
	got, err := parseSMI("0, GPU-8f6d9e7a-7d5b-1c0e-2f36-0d8c8fb7c0d1, NVIDIA L4, 23034\n1, GPU-b, NVIDIA H200, [N/A]\n", driver)
	want := []runtime.GPU{
		{ID: "GPU-8f6d9e7a-7d5b-1c0e-2f36-0d8c8fb7c0d1", Name: "NVIDIA L4", MemoryBytes: 23034 << 20, Devices: node("0")},
		{ID: "GPU-b", Name: "NVIDIA H200", Devices: node("7")},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := parseSMI("", nil); err != nil || len(got) != 0 {
		t.Errorf("no GPUs: %v, %v", got, err)
	}
	if _, err := parseSMI("No devices were found\n", nil); err == nil {
		t.Error("a sentence was taken for a GPU")
	}
}

func TestDriver(t *testing.T) {
	dir := t.TempDir()
	gpu := filepath.Join(dir, "0000:01:00.0")
	if err := os.Mkdir(gpu, 0o700); err != nil {
		t.Fatal(err)
	}
	text := "Model: \t\t NVIDIA GeForce RTX 3090\nIRQ:   \t\t 158\nGPU UUID: \t GPU-2f0b\nVideo BIOS: \t 94.02\nBus Type: \t PCIe\nDevice Minor: \t 3\nGPU Excluded:\t No\n"
	if err := os.WriteFile(filepath.Join(gpu, "information"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := drivers(dir)
	if len(got) != 1 || got[0] != (driver{uuid: "GPU-2f0b", model: "NVIDIA GeForce RTX 3090", minor: "3"}) {
		t.Errorf("%+v", got)
	}
}

func FuzzDeclared(f *testing.F) {
	f.Add("{cores: 1.5, memory: 2Gi, gpus: [{id: GPU-1, devices: [/dev/nvidia0]}]}")
	f.Add("gpus: 3")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := declared(text)
		if err != nil {
			return
		}
		if d.Memory < 0 || d.Cores < 0 || d.GPUs != nil && len(*d.GPUs) > len(text)+mostGPUs {
			t.Errorf("%+v was accepted", d)
		}
	})
}

func FuzzNvidiaSMI(f *testing.F) {
	f.Add("0, GPU-1, NVIDIA L4, 23034\n", "Device Minor: 3\nGPU UUID: GPU-1\n")
	f.Fuzz(func(t *testing.T, smi, proc string) {
		got, err := parseSMI(smi, []driver{parseDriver(proc)})
		if err != nil {
			return
		}
		for _, g := range got {
			if g.ID == "" || strings.Contains(g.ID, ",") || g.MemoryBytes < 0 {
				t.Errorf("%+v", g)
			}
		}
	})
}
