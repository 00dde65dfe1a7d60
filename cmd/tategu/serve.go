package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tategu/internal/app"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Start the server",
		Long: `serve starts the platform on one port. On loopback the operator needs no token;
any other address needs TLS and tokens (see tategu token create).`,
		Example: "  tategu serve\n  tategu serve --listen 0.0.0.0:8443 --public ml.example.com:8443",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := configure(cmd)
			if err != nil {
				return err
			}
			return app.Run(cmd.Context(), cfg, version, cmd.ErrOrStderr(), func(s app.State) {
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), "tategu is ready on http://%s (data in %s)\n", s.Address, cfg.Data)
			})
		},
	}
	setting(cmd, "listen", "address to listen on (default 127.0.0.1:8090)")
	setting(cmd, "public", "HOST:PORT that clients use, when it differs from --listen")
	setting(cmd, "hosts", "further names and IP addresses of this server, comma separated")
	setting(cmd, "cache", "cache directory (default: $XDG_CACHE_HOME/tategu)")
	setting(cmd, "objects", "bucket URL that objects are kept in (default: the data directory)")
	setting(cmd, "project", "default project")
	setting(cmd, "location", "default location")
	setting(cmd, "uv", "path of the uv program")
	setting(cmd, "tls-cert", "certificate file to serve instead of the local CA's")
	setting(cmd, "tls-key", "key file of --tls-cert")
	setting(cmd, "match-listen", "second address, on loopback without TLS, for the SDK's match() of private index endpoints: 127.0.0.1:10000")
	setting(cmd, "log-level", "debug, info, warn or error")
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "tategu "+version)
			return err
		},
	}
}
