package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/api/admin"
	"tategu/internal/app"
	"tategu/internal/backup"
	"tategu/internal/resource"
	"tategu/internal/transfer"
)

func backupCommand() *cobra.Command {
	var verify bool
	cmd := &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy the whole server into a directory while it runs",
		Long: `backup asks the running server to copy its state, objects, logs, certificates and keys
into DIR, which is a directory of the server's machine. The copy is of one moment. Into the
directory of an earlier backup it copies what is new only, and replaces that one when it is
whole. A backup holds secrets: keep it as you keep the data directory. It needs an
administrator of every project.

--verify reads a backup against what was written; no server is needed.`,
		Example: "  tategu backup /mnt/backup/tategu\n  tategu backup --verify /mnt/backup/tategu",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			show := shower(cmd.ErrOrStderr())
			if verify {
				m, err := app.VerifyBackup(cmd.Context(), dir, show)
				if err != nil {
					return err
				}
				return printBackup(cmd.OutOrStdout(), "sound: the backup", dir, m)
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			r, err := c.do(cmd.Context(), http.MethodPost, admin.BackupPath, nil, admin.BackupRequest{Directory: dir})
			if err != nil {
				return err
			}
			defer func() { _ = r.Close() }() // read to its end
			m, err := follow(r, show)
			if err != nil {
				return err
			}
			return printBackup(cmd.OutOrStdout(), "made a backup", dir, m)
		},
	}
	cmd.Flags().BoolVar(&verify, "verify", false, "check the backup in DIR instead of making one")
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to; DIR is a directory of its machine")
	return cmd
}

// follow reads the server's progress to its end.
func follow(r io.Reader, show func(backup.Progress)) (backup.Manifest, error) {
	for in := json.NewDecoder(r); ; {
		var e admin.BackupEvent
		switch err := in.Decode(&e); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return backup.Manifest{}, resource.Errorf(14, "the server ended before the backup was made").WithHint("see the server's log; an earlier backup is whole")
		case err != nil:
			return backup.Manifest{}, err
		case e.Error != "":
			return backup.Manifest{}, errors.New(e.Error)
		case e.Manifest != nil:
			return *e.Manifest, nil
		case e.Progress != nil:
			show(*e.Progress)
		}
	}
}

// shower prints progress, at most twice a second.
func shower(w io.Writer) func(backup.Progress) {
	progress := make(chan backup.Progress, 1)
	progress <- backup.Progress{}
	var last time.Time
	return func(p backup.Progress) {
		<-progress // one at a time
		defer func() { progress <- p }()
		if time.Since(last) < 500*time.Millisecond {
			return
		}
		last = time.Now()
		line := fmt.Sprintf("%s: %s of %s", p.Phase, transfer.Size(p.Done), transfer.Size(p.Total))
		if p.Contents > 0 {
			line += fmt.Sprintf(", %d contents", p.Contents)
		}
		_, _ = fmt.Fprintln(w, line) // progress is for people
	}
}

func printBackup(w io.Writer, what, dir string, m backup.Manifest) error {
	_, err := fmt.Fprintf(w, "%s of %s in %s: %s of state, %d contents of %s\nit holds secrets: the keys of the server's certificates and tokens\n",
		what, m.Created.Local().Format(time.DateTime), dir, transfer.Size(m.State.Size), m.Contents, transfer.Size(m.Bytes))
	if err != nil || len(m.Damaged) == 0 {
		return err
	}
	return resource.Errorf(15, "%d contents could not be read as they were written, and are not in the backup:\n  %s", len(m.Damaged), strings.Join(m.Damaged, "\n  ")).
		WithHint("restore them from an earlier backup, and check the disk")
}

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore DIR",
		Short: "Make a data directory of a backup",
		Long: `restore makes the data directory named by --data, which must be missing or empty, of the
backup in DIR, and checks every byte on the way. Either all of it is there in the end or
nothing. With --objects the objects go into that bucket, which no data directory may use yet. Start a server on it with tategu serve --data; work that ran when the backup was
made is taken up again.`,
		Example: "  tategu restore /mnt/backup/tategu --data /var/lib/tategu",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := configure(cmd)
			if err != nil {
				return err
			}
			m, err := app.Restore(cmd.Context(), cfg, args[0], shower(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "restored to %s: start it with `tategu serve --data %s`\n", cfg.Data, cfg.Data); err != nil {
				return err
			}
			return printBackup(cmd.OutOrStdout(), "the backup", args[0], m)
		},
	}
	setting(cmd, "objects", "bucket URL that the objects go into (default: the data directory)")
	return cmd
}
