package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"tategu/internal/api/gcs"
	"tategu/internal/api/registry"
	"tategu/internal/resource"
	"tategu/internal/transfer"
)

func gcCommand() *cobra.Command {
	var req gcs.CollectRequest
	var untagged string
	cmd := &cobra.Command{
		Use: "gc", Short: "Free what storage no longer needs, and check what it holds", Args: cobra.NoArgs,
		Long: `gc asks the server to execute lifecycle rules and to remove content that no object names,
uploads that expired and soft-deleted objects whose time has come; of images, blobs that no
manifest names, and with --untagged manifests that no tag names. The server does the same
by itself from time to time. --verify reads every content against its CRC32C and names the
objects that are damaged; the exit code is 1 if there are any. It needs an administrator of
every project.`,
		Example: "  tategu gc --dry-run\n  tategu gc --verify",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var answer gcs.CollectResponse
			if err := c.call(cmd.Context(), http.MethodPost, gcs.CollectPath, req, &answer); err != nil {
				return err
			}
			var images registry.CollectResponse
			of := registry.CollectRequest{DryRun: req.DryRun, Verify: req.Verify, Age: req.Age, Untagged: untagged}
			if err := c.call(cmd.Context(), http.MethodPost, registry.CollectPath, of, &images); err != nil {
				return err
			}
			err = printCollected(cmd.OutOrStdout(), req, answer)
			return errors.Join(err, printImages(cmd.OutOrStdout(), of, images))
		},
	}
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "only say what would be removed; lifecycle rules are left out")
	cmd.Flags().BoolVar(&req.Verify, "verify", false, "read every content against its checksum")
	cmd.Flags().StringVar(&req.Age, "age", "", "leave unnamed content that is younger (default 24h, at least 1h)")
	cmd.Flags().StringVar(&untagged, "untagged", "", "remove image manifests without a tag that are older (default: as the server is configured)")
	return cmd
}

func printImages(w io.Writer, req registry.CollectRequest, a registry.CollectResponse) error {
	verb := "removed"
	if req.DryRun {
		verb = "would remove"
	}
	lines := []string{fmt.Sprintf("images: %s %s without a tag, %s without a manifest, %s: %s", verb,
		counted(int64(a.Manifests), "manifest"), counted(int64(a.Blobs), "blob"), counted(int64(a.Uploads), "expired upload"), transfer.Size(a.Bytes))}
	if req.Verify {
		lines = append(lines, fmt.Sprintf("images: checked %s, %s: %d damaged", counted(int64(a.Checked), "blob"), transfer.Size(a.CheckedBytes), a.Damaged))
	}
	for _, d := range a.Damages {
		lines = append(lines, string(d.Blob)+": "+d.Error)
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	if a.Damaged > 0 {
		return resource.Errorf(15, "%s of images damaged", counted(int64(a.Damaged), "blob")).WithHint("push or import the images again, and check the disk")
	}
	return nil
}

func printCollected(w io.Writer, req gcs.CollectRequest, a gcs.CollectResponse) error {
	verb := "removed"
	if req.DryRun {
		verb = "would remove"
	}
	lines := []string{fmt.Sprintf("%s %s without an object, %s, %s, %s: %s", verb, counted(int64(a.Contents), "content"),
		counted(int64(a.Uploads), "expired upload"), counted(int64(a.Objects), "soft-deleted object"), counted(int64(a.Events), "old event"), transfer.Size(a.Bytes))}
	if !req.DryRun {
		lines = append(lines, fmt.Sprintf("lifecycle rules removed %s, changed %d and aborted %s",
			counted(int64(a.Deleted), "object"), a.Changed, counted(int64(a.Aborted), "upload")))
	}
	if req.Verify {
		lines = append(lines, fmt.Sprintf("checked %s, %s: %d damaged", counted(int64(a.Checked), "object"), transfer.Size(a.CheckedBytes), a.Damaged))
	}
	for _, d := range a.Damages {
		lines = append(lines, d.Object+": "+d.Error)
	}
	if more := a.Damaged - len(a.Damages); more > 0 {
		lines = append(lines, "and "+strconv.Itoa(more)+" more")
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	if a.Damaged > 0 {
		return resource.Errorf(15, "%s damaged", counted(int64(a.Damaged), "object")).WithHint("restore them from a backup, and check the disk")
	}
	return nil
}
