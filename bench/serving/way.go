package main

import (
	"context"
	"fmt"
	"time"

	"tategu/internal/load"
)

// way is one through a server to a replica that costs next to nothing.
type way struct {
	replica string // its own address
	proxied *contestant
}

// ways deploys that replica to each server under measurement, the binary under test
// first. Its CPU alone is counted.
func (b *bench) ways(ctx context.Context, id, method, contentType string, body []byte) ([]way, error) {
	var all []way
	for _, at := range []struct {
		title  string
		server *platform
	}{{"through tategu (its CPU)", b.server}, {"through the older one", b.older}} {
		if at.server == nil {
			continue
		}
		endpoint, err := at.server.replicated(ctx, id, "echo", "")
		if err != nil {
			return nil, err
		}
		address, err := at.server.replica(endpoint)
		if err != nil {
			return nil, err
		}
		far, err := at.server.through(endpoint, method, contentType, [][]byte{body})
		if err != nil {
			return nil, err
		}
		all = append(all, way{address, &contestant{name: at.title, target: far, server: at.server.process, own: true, shared: true}})
	}
	return all, nil
}

// beside gives each its turns with what stands for no way at all.
func (b *bench) beside(ctx context.Context, title string, without *contestant, ways []way) error {
	all := append(make([]*contestant, 0, 1+len(ways)), without)
	for _, w := range ways {
		all = append(all, w.proxied)
	}
	if some := b.turns(ctx, all); len(some) < len(ways)+1 {
		return errTurns
	}
	table(title, all)
	return nil
}

// proxy measures what the way through the server costs: a replica that costs next to
// nothing, asked through its endpoint and at its own port.
func (b *bench) proxy(ctx context.Context) ([]string, error) {
	body := []byte(`{"instances":[[0.25,0.5,0.75,1.0,0.25,0.5,0.75,1.0,0.25,0.5,0.75,1.0,0.25,0.5,0.75,1.0,0.25,0.5,0.75,1.0]]}`)
	ways, err := b.ways(ctx, "1001", "predict", "", body)
	if err != nil {
		return nil, err
	}
	near, err := load.NewEndpoint(load.EndpointConfig{Address: ways[0].replica, Path: "/predict", Bodies: [][]byte{body}})
	if err != nil {
		return nil, err
	}
	direct := &contestant{name: "the replica, direct", target: near, server: b.server.process, shared: true}
	if err := b.beside(ctx, "proxy, a replica that costs next to nothing", direct, ways); err != nil {
		return nil, err
	}
	cost, _ := lowest(ways[0].proxied, func(r round) time.Duration { return r.cpu })
	with, _ := lowest(ways[0].proxied, func(r round) time.Duration { return r.alone })
	without, _ := lowest(direct, func(r round) time.Duration { return r.alone })
	return []string{fmt.Sprintf("proxy_cpu_us=%.0f proxy_added_p50_us=%.0f", micros(cost), micros(with-without))}, nil
}

// image sends a megabyte to rawPredict, beside a splice in front of the same replica.
func (b *bench) image(ctx context.Context) ([]string, error) {
	picture := make([]byte, 1<<20)
	for i := range picture {
		picture[i] = byte(i * 7919 >> 3)
	}
	ways, err := b.ways(ctx, "1002", "rawPredict", "image/jpeg", picture)
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := b.start(ctx, "splice", b.folder, nil, b.self, "splice", listen, ways[0].replica)
	if err != nil {
		return nil, err
	}
	if err := p.answers(ctx, "http://"+listen+"/", 10*time.Second); err != nil {
		return nil, err
	}
	near, err := load.NewEndpoint(load.EndpointConfig{Address: listen, Path: "/predict", ContentType: "image/jpeg", Bodies: [][]byte{picture}})
	if err != nil {
		return nil, err
	}
	spliced := &contestant{name: "through a splice (its CPU)", target: near, server: p, own: true}
	if err := b.beside(ctx, "an image of 1 MB by rawPredict", spliced, ways); err != nil {
		return nil, err
	}
	with, _ := lowest(ways[0].proxied, func(r round) time.Duration { return r.alone })
	without, _ := lowest(spliced, func(r round) time.Duration { return r.alone })
	return []string{fmt.Sprintf("image_vs_splice=%.2fx", float64(with)/float64(without))}, nil
}
