package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"tategu/internal/volume"
)

// openVolume looks at the disk of the data directory, which everything that
// writes there shares.
func (m *Main) openVolume(context.Context) (err error) {
	readOnly := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tategu_read_only", Help: "1 since the disk of the data directory failed: nothing is written until a restart.",
	})
	m.volume, err = volume.Open(m.cfg.Data, func(cause error) {
		readOnly.Set(1)
		m.log.Error("READ-ONLY: nothing is written any more", slog.Any("error", cause))
	})
	if err != nil {
		return err
	}
	// Another disk, perhaps: it may be full or broken by itself.
	if m.cacheRoom, err = volume.Open(m.cfg.Cache, nil); err != nil {
		return err
	}
	free := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tategu_data_free_bytes", Help: "Room left on the disk of the data directory.",
	}, func() float64 {
		n, err := m.volume.Free()
		if err != nil {
			return -1
		}
		return float64(n)
	})
	reserve := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tategu_data_reserve_bytes", Help: "Room that is kept for the server's state: with less, what adds to it is refused.",
	})
	reserve.Set(float64(m.volume.Reserve()))
	for _, c := range []prometheus.Collector{readOnly, free, reserve} {
		if err := m.registry.Register(c); err != nil {
			return fmt.Errorf("disk metrics: %w", err)
		}
	}
	return nil
}

// warnings tell people what keeps the server from its whole work.
func (m *Main) warnings() []string {
	var list []string
	if err := m.volume.Writable(); err != nil {
		list = append(list, err.Error())
	} else if err := m.volume.Room(); err != nil {
		list = append(list, "the disk is full: "+err.Error())
	}
	return list
}
