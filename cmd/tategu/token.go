package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/api/cloud"
	"tategu/internal/app"
	"tategu/internal/identity"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Create, list and revoke access tokens"}
	cmd.PersistentFlags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.AddCommand(tokenCreateCommand(), tokenListCommand(), tokenRevokeCommand())
	return cmd
}

func tokenCreateCommand() *cobra.Command {
	var email, role, ttl string
	var projects []string
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Make a token and print it once",
		Example: "  tategu token create --email ann@example.com --project demo --role user",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			g, err := grants(projects, role)
			if err != nil {
				return err
			}
			var answer cloud.CreateTokenResponse
			if err := c.call(cmd.Context(), http.MethodPost, "/tategu/v1/tokens", cloud.CreateTokenRequest{Email: email, Grants: g, TTL: ttl}, &answer); err != nil {
				return err
			}
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), answer.Secret) // alone on stdout, for scripts
			return printLoginLine(cmd)
		},
	}
	cmd.Flags().StringVar(&email, "email", "", "who the token stands for, in the audit trail")
	cmd.Flags().StringSliceVar(&projects, "project", []string{"tategu"}, `project it is good for, repeatable; "*" = every project`)
	cmd.Flags().StringVar(&role, "role", "user", "viewer, user or admin")
	cmd.Flags().StringVar(&ttl, "ttl", "", "lifetime, such as 720h (default 30 days)")
	_ = cmd.MarkFlagRequired("email")                                                                                                           // fails only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "user", "admin"}, cobra.ShellCompDirectiveNoFileComp)) // likewise
	return cmd
}

// printLoginLine tells the operator what to hand over besides the token.
func printLoginLine(cmd *cobra.Command) error {
	if cmd.Flag("server").Value.String() != "" {
		return nil // the certificate of another machine is not ours to vouch for
	}
	cfg, err := configure(cmd)
	if err != nil {
		return err
	}
	state, err := app.ReadState(cfg.Data)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(state.CA)
	if err != nil {
		return fmt.Errorf("read our certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("read our certificate: %s holds no PEM", state.CA)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("read our certificate: %w", err)
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "The token is shown once. To use it:\n  TATEGU_TOKEN=... tategu login https://%s --fingerprint %s\n", state.Public, fingerprint(cert))
	return err
}

func tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tokens (never their secrets)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var answer cloud.ListTokensResponse
			if err := c.call(cmd.Context(), http.MethodGet, "/tategu/v1/tokens", nil, &answer); err != nil {
				return err
			}
			return printTokens(cmd.OutOrStdout(), answer.Tokens)
		},
	}
}

func printTokens(w io.Writer, tokens []identity.Token) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "ID\tKIND\tEMAIL\tGRANTS\tEXPIRES") // a tabwriter reports at Flush
	for _, tok := range tokens {
		g := make([]string, 0, len(tok.Grants))
		for _, p := range slices.Sorted(maps.Keys(tok.Grants)) {
			g = append(g, p+"="+string(tok.Grants[p]))
		}
		expires := "when revoked"
		if !tok.Expires.IsZero() {
			expires = tok.Expires.Local().Format(time.DateTime)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", tok.ID, tok.Kind, tok.Email, strings.Join(g, ","), expires)
	}
	return t.Flush()
}

func tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Revoke a token and all that was made from it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if err := c.call(cmd.Context(), http.MethodDelete, "/tategu/v1/tokens/"+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "revoked "+args[0])
			return err
		},
	}
}
