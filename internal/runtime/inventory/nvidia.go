package inventory

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	"google.golang.org/grpc/codes"
)

// lookLimit bounds a driver that hangs.
const lookLimit = 20 * time.Second

// query is what nvidia-smi is asked; the manual page lists the names.
func query() []string {
	return []string{"--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"}
}

// look finds the GPUs that the driver shows to us. Without nvidia-smi what the
// driver says in /proc counts, where it has a device node: in a container all GPUs
// of the machine are listed there, and only ours have nodes.
func look(ctx context.Context) ([]runtime.GPU, error) {
	driver := drivers("/proc/driver/nvidia/gpus")
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		var out []runtime.GPU
		for _, d := range driver {
			if len(node(d.minor)) > 0 && d.uuid != "" {
				out = append(out, runtime.GPU{ID: d.uuid, Name: d.model, Devices: node(d.minor)})
			}
		}
		return out, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, smi, query()...).Output()
	if err != nil {
		said := strings.TrimSpace(string(out))
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && said == "" {
			said = strings.TrimSpace(string(exit.Stderr))
		}
		return nil, resource.Errorf(codes.FailedPrecondition, "look for GPUs: %s: %v: %s", smi, err, said).
			WithHint("mend the driver, or declare resources: {gpus: ...} in tategu.yaml (0 where there are none)")
	}
	return parseSMI(string(out), driver)
}

// parseSMI reads the answer to query. CUDA counts by speed where nvidia-smi counts
// by bus, so a GPU is named by its UUID.
func parseSMI(text string, driver []driver) ([]runtime.GPU, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace, r.FieldsPerRecord, r.LazyQuotes = true, 4, true
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the answer of nvidia-smi: %w", err)
	}
	out := make([]runtime.GPU, 0, len(rows))
	for _, row := range rows {
		g := runtime.GPU{ID: strings.TrimSpace(row[1]), Name: strings.TrimSpace(row[2]), Devices: node(strings.TrimSpace(row[0]))}
		if g.ID == "" || strings.ContainsAny(g.ID, ", \n\x00") {
			return nil, fmt.Errorf("read the answer of nvidia-smi: %q is not the UUID of a GPU", row[1])
		}
		// Unified memory is told as "[N/A]".
		if n, err := strconv.ParseInt(strings.TrimSpace(row[3]), 10, 32); err == nil && n > 0 {
			g.MemoryBytes = n << 20
		}
		for _, d := range driver {
			if d.uuid == g.ID {
				g.Devices = node(d.minor)
			}
		}
		out = append(out, g)
	}
	return out, nil
}

// driver is what the kernel's driver says of one GPU.
type driver struct{ uuid, model, minor string }

func drivers(dir string) []driver {
	files, err := filepath.Glob(filepath.Join(dir, "*", "information"))
	if err != nil {
		return nil // the pattern is ours
	}
	var out []driver
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			out = append(out, parseDriver(string(b)))
		}
	}
	return out
}

func parseDriver(text string) driver {
	var d driver
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "Model":
			d.model = value
		case "GPU UUID":
			d.uuid = value
		case "Device Minor":
			d.minor = value
		}
	}
	return d
}

// node is the device node of a minor number, where it exists.
func node(minor string) []string {
	if _, err := strconv.ParseUint(minor, 10, 16); err != nil {
		return nil
	}
	path := "/dev/nvidia" + minor
	if st, err := os.Stat(path); err != nil || st.Mode()&fs.ModeCharDevice == 0 {
		return nil
	}
	return []string{path}
}
