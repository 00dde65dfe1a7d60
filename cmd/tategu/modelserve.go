package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tategu/internal/modelcache"
	"tategu/internal/resource"
)

func jsonLine(cmd *cobra.Command, v any) error { return json.NewEncoder(cmd.OutOrStdout()).Encode(v) }

func modelServeCommand() *cobra.Command {
	var listen string
	var hosts []string
	var interval time.Duration
	cmd := &cobra.Command{
		Use: "serve", Short: "Tell programs of this machine where a model's files are, and when its alias moves", Args: cobra.NoArgs,
		Long: `serve answers GET /models/MODEL@ALIAS with the version, its directory in the cache of this machine
and an ETag. With ?wait=30s and If-None-Match it holds the request until the alias has moved and the
new files are here (200), or the time is over (304). It brings files as pull does, with the
credentials of this command. What it told of, the newest and the one before it of each name, stays
on disk until it ends. While the server is away it gives the last good answer and says so in
"stale"; it starts without the server, too.`,
		Example: `  tategu model serve
  curl -i 'http://127.0.0.1:8095/models/ranker@champion'
  curl -i 'http://127.0.0.1:8095/models/ranker@champion?wait=60s' -H 'If-None-Match: "3-5f0c..."'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loader, err := modelLoader(cmd, interval)
			if err != nil {
				return err
			}
			if err := checkListen(listen, hosts); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return serveModels(cmd, listen, modelcache.NewRoute(loader, hosts, log))
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8095", "address to listen on")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "further names and addresses that requests may be for")
	intervalFlag(cmd, &interval)
	return cmd
}

// checkListen refuses an address of the network that no host is named for: whoever
// reaches it is answered.
func checkListen(listen string, hosts []string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return resource.Invalid("listen", "listen address %q: %v", listen, err).WithHint("write HOST:PORT, such as 127.0.0.1:8095")
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) && len(hosts) == 0 {
		return resource.Invalid("listen", "%q is an address of the network, where anyone may ask", listen).
			WithHint("listen on 127.0.0.1, or name with --host what requests may be for")
	}
	return nil
}

func serveModels(cmd *cobra.Command, listen string, route *modelcache.Route) error {
	var config net.ListenConfig
	ln, err := config.Listen(cmd.Context(), "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w; name another address with --listen", err)
	}
	server := &http.Server{Handler: route, ReadHeaderTimeout: 20 * time.Second, IdleTimeout: 3 * time.Minute, MaxHeaderBytes: 64 << 10}
	group, ctx := errgroup.WithContext(cmd.Context())
	group.Go(func() error { return route.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(last)
	})
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "models are on http://%s/models/\n", ln.Addr())
	return errors.Join(err, group.Wait())
}
