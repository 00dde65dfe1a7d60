package main

import "github.com/spf13/cobra"

// imageRunCommand is run, for those who look for it here.
func imageRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run [flags] IMAGE [ARGS...]", Short: "Run an image as a job: the same as tategu run IMAGE",
		Long: `run is tategu run IMAGE: it submits a custom job of the image, shows its output, and ends with the
program's exit code. ARGS replace the image's default arguments. With --port the program gets a
free port in the variable PORT, and its address on the server's machine is shown; one that listens
on a port of its own is reached there, since the network is the machine's. What is to answer
predictions is better uploaded as a model and deployed.`,
		Example: "  tategu image run team/batch:v2 --day 2026-01-01\n  tategu image run --port team/server:v1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return asOurs(stopped(cmd, f.run(cmd, args, cmd.ArgsLenAtDash() == 0)))
		},
		ValidArgsFunction: completeFirstImage,
	}
	f.add(cmd)
	return cmd
}
