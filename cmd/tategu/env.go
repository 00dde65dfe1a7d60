package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tategu/internal/app"
	"tategu/internal/resource"
)

func envCommand() *cobra.Command {
	var intercept bool
	var server, format string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the variables that point clients at the server",
		Long: `env prints shell lines for eval. Without --intercept they set the certificates,
credentials and storage variables, and TATEGU_ENDPOINT for

  aiplatform.init(project=os.environ["GOOGLE_CLOUD_PROJECT"],
                  api_endpoint=os.environ["TATEGU_ENDPOINT"], location="us-central1")

(without project the SDK asks the cloud for it, and waits a minute where that is away).

With --intercept the server is also the HTTPS proxy of the shell: programs written
for the cloud reach tategu with no change at all.`,
		Example: "  eval \"$(tategu env)\"\n  eval \"$(tategu env --intercept)\"\n  tategu env --server ml.example.com:8443   # after tategu login",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			vars, err := variables(cmd, server, intercept)
			if err != nil {
				return err
			}
			return printEnv(cmd.OutOrStdout(), format, vars)
		},
	}
	cmd.Flags().BoolVar(&intercept, "intercept", false, "set the proxy too: no change in client code")
	cmd.Flags().StringVar(&server, "server", "", "HOST:PORT of a server that you logged in to")
	cmd.Flags().StringVar(&format, "format", "sh", "sh, fish, dotenv or json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"sh", "fish", "dotenv", "json"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	return cmd
}

func variables(cmd *cobra.Command, server string, intercept bool) ([]app.Variable, error) {
	if server != "" {
		if intercept {
			return nil, resource.Invalid("intercept", "--intercept works on the server's own machine only: its proxy serves loopback")
		}
		l, err := readLogin(server)
		if err != nil {
			return nil, err
		}
		return l.env(), nil
	}
	cfg, err := configure(cmd)
	if err != nil {
		return nil, err
	}
	state, err := app.ReadState(cfg.Data)
	if err != nil {
		return nil, err
	}
	if intercept {
		return state.InterceptEnv(), nil
	}
	return state.DefaultEnv(), nil
}

func printEnv(w io.Writer, format string, vars []app.Variable) error {
	if format == "json" {
		m := map[string]string{}
		for _, v := range vars {
			if v.Value != "" {
				m[v.Name] = v.Value
			}
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(m)
	}
	set := map[string]string{"sh": "export %s=%s\n", "fish": "set -gx %s %s\n", "dotenv": "%s=%s\n"}[format]
	unset := map[string]string{"sh": "unset %s\n", "fish": "set -e %s\n"}[format]
	if set == "" {
		return resource.Invalid("format", "unknown format %q", format).WithHint("use sh, fish, dotenv or json")
	}
	for _, v := range vars {
		var err error
		if v.Value != "" {
			_, err = fmt.Fprintf(w, set, v.Name, quote(v.Value))
		} else if unset != "" {
			_, err = fmt.Fprintf(w, unset, v.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// quote makes a value safe for a POSIX shell.
func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-@%+,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// login is what `tategu login` keeps about a server, below
// $XDG_CONFIG_HOME/tategu/servers/HOST_PORT/.
type login struct {
	Server  string `json:"server"` // HOST:PORT
	Project string `json:"project"`
	dir     string
}

func loginDir(server string) (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration directory: %w", err)
	}
	return filepath.Join(dir, "tategu", "servers", strings.NewReplacer(":", "_", "/", "_").Replace(server)), nil
}

func readLogin(server string) (login, error) {
	dir, err := loginDir(server)
	if err != nil {
		return login{}, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "login.json"))
	if err != nil {
		return login{}, resource.NotFound(server).WithHint("log in first: tategu login https://%s --token ...", server)
	}
	l := login{dir: dir}
	if err := json.Unmarshal(b, &l); err != nil {
		return login{}, fmt.Errorf("read %s: %w", filepath.Join(dir, "login.json"), err)
	}
	return l, nil
}

func (l login) ca() string          { return filepath.Join(l.dir, "ca.pem") }
func (l login) bundle() string      { return filepath.Join(l.dir, "bundle.pem") }
func (l login) credentials() string { return filepath.Join(l.dir, "credentials.json") }

func (l login) env() []app.Variable {
	return []app.Variable{
		{Name: "REQUESTS_CA_BUNDLE", Value: l.bundle()},
		{Name: "SSL_CERT_FILE", Value: l.bundle()},
		{Name: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", Value: l.bundle()},
		{Name: "NODE_EXTRA_CA_CERTS", Value: l.ca()},
		{Name: "GOOGLE_CLOUD_PROJECT", Value: l.Project},
		{Name: "GOOGLE_APPLICATION_CREDENTIALS", Value: l.credentials()},
		{Name: "API_ENDPOINT_OVERRIDE", Value: "https://" + l.Server}, // storage clients; keeps credentials, unlike STORAGE_EMULATOR_HOST
		{Name: "TATEGU_ENDPOINT", Value: l.Server},
	}
}
