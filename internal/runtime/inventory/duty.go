package inventory

import (
	"context"
	"encoding/csv"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dutyEvery is how often the driver is asked at most: it takes a part of a second.
const dutyEvery = 5 * time.Second

// Duty tells how busy the machine's GPUs are, as the driver says it of its last sample
// period: the share of the time in which one of its kernels ran. The zero value is ready.
type Duty struct {
	mu    sync.Mutex
	asked time.Time
	busy  map[string]float64
	err   error
}

// Busy gives that, from 0 to 1, by the UUID and by the index of a GPU, and when it was
// read: what was read less than five seconds before now is given again. An error says
// why it is not known.
func (d *Duty) Busy(ctx context.Context, now time.Time) (busy map[string]float64, read time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked.IsZero() || now.Sub(d.asked) >= dutyEvery {
		d.busy, d.err = readDuty(ctx)
		d.asked = now
	}
	return d.busy, d.asked, d.err
}

func readDuty(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=index,uuid,utilization.gpu", "--format=csv,noheader,nounits").Output()
	if err != nil {
		return nil, fmt.Errorf("ask nvidia-smi how busy GPUs are: %w", err)
	}
	return parseDuty(string(out))
}

// parseDuty reads a line for each GPU. One that does not tell (in parts, or old) is
// left out.
func parseDuty(text string) (map[string]float64, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace, r.FieldsPerRecord = true, 3
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read how busy GPUs are: %w", err)
	}
	busy := map[string]float64{}
	for _, row := range rows {
		percent, err := strconv.ParseUint(strings.TrimSpace(row[2]), 10, 8)
		if err != nil || percent > 100 {
			continue
		}
		for _, id := range row[:2] {
			busy[strings.TrimSpace(id)] = float64(percent) / 100
		}
	}
	return busy, nil
}
