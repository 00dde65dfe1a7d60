package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "Create, list and delete keys of service accounts",
		Long: `A key lets a program outside of the server act as a service account, and sign URLs.
Whoever has the file is the account until the key is deleted: where a program can
run as a task, or a person can log in, do that instead.`,
	}
	cmd.PersistentFlags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.AddCommand(keyCreateCommand(), keyListCommand(), keyDeleteCommand())
	return cmd
}

// accountKey is what the API says of a key (google.iam.admin.v1.ServiceAccountKey).
type accountKey struct {
	Name           string    `json:"name"`
	PrivateKeyData []byte    `json:"privateKeyData"`
	KeyType        string    `json:"keyType"`
	ValidAfterTime time.Time `json:"validAfterTime"`
}

// keysPath names the account's project where the address tells it, so that the
// call is in the audit trail of that project.
func keysPath(account string) string {
	project, ok := identity.ServiceAccountProject(account)
	if !ok || project == "" {
		project = "-"
	}
	return "/v1/projects/" + url.PathEscape(project) + "/serviceAccounts/" + url.PathEscape(account) + "/keys"
}

func keyCreateCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "create SERVICE_ACCOUNT", Short: "Make a key and give its file, once",
		Example: "  tategu key create uploader@demo.iam.tategu.internal --out uploader.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			file, done, err := keyOutput(cmd, out) // before a key exists that nobody could keep
			if err != nil {
				return err
			}
			var k accountKey
			if err := c.call(cmd.Context(), http.MethodPost, keysPath(args[0]), struct{}{}, &k); err != nil {
				return done(err)
			}
			_, err = file.Write(k.PrivateKeyData)
			if err := done(err); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "key %s; the file is shown once. Delete it with:\n  tategu key delete %s %s\n", path.Base(k.Name), args[0], path.Base(k.Name))
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write, which must not exist (default: standard output)")
	return cmd
}

// keyOutput opens where the file goes; done ends it, and removes it after an error.
func keyOutput(cmd *cobra.Command, out string) (w io.Writer, done func(error) error, err error) {
	if out == "" {
		return cmd.OutOrStdout(), func(err error) error { return err }, nil
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("write the key file: %w", err)
	}
	return f, func(err error) error {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(out) // the first error is what is told
		}
		return err
	}, nil
}

func keyListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list SERVICE_ACCOUNT", Short: "List the keys of a service account", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var answer struct {
				Keys []accountKey `json:"keys"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, keysPath(args[0]), nil, &answer); err != nil {
				return err
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(t, "ID\tTYPE\tCREATED") // a tabwriter reports at Flush
			for _, k := range answer.Keys {
				_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", path.Base(k.Name), k.KeyType, k.ValidAfterTime.Local().Format(time.DateTime))
			}
			return t.Flush()
		},
	}
}

func keyDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete SERVICE_ACCOUNT KEY", Short: "Delete a key: what it signed is refused from now on", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "" {
				return resource.Invalid("KEY", "the key's id is empty").WithHint("`tategu key list %s` shows the ids", args[0])
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var none json.RawMessage
			if err := c.call(cmd.Context(), http.MethodDelete, keysPath(args[0])+"/"+url.PathEscape(args[1]), nil, &none); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "deleted "+args[1])
			return err
		},
	}
}
