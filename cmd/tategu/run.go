package main

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"tategu/internal/resource"
)

// Exit codes of run besides the program's own; those of docker run and timeout(1).
const (
	exitOurs      = 125 // the program did not run
	exitTimeout   = 124
	exitCancelled = 130
)

// runFlags are the flags of run.
type runFlags struct {
	project, location      string
	name, account, output  string
	image, python          string
	folder                 string
	folderLimit, memory    string
	env, with, requirement []string
	cpu, gpu               int
	timeout                time.Duration
	detach, quiet, port    bool
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [ARGS...] | run [flags] -- COMMAND [ARGS...]",
		Short: "Run an image, or a command with the files of this folder, as a job",
		Long: `run submits a custom job, shows its output as it is made, and ends with the program's own exit
code. Ctrl-C cancels the job; once more leaves it alone.

With an IMAGE it runs that, as docker run does: ARGS replace the image's default arguments.

After -- comes a command. The files of this folder (--folder) travel with it and are its working
directory. A .py file, and python itself, run in a Python environment, with the packages of --with
and --requirements; other programs, of the folder or of the server's machine, run as they are;
with --image they run in that image. What .tateguignore names stays behind, or else what .gitignore
names. A folder that did not change is not sent again.

Write results below /gcs/BUCKET, or to AIP_MODEL_DIR (--output): the working directory goes with the
job. Exit codes: the program's own, 124 after --timeout, 125 when it did not run, 130 when cancelled.`,
		Example: `  tategu run -- python train.py --epochs 3
  tategu run --with numpy --with 'pandas<3' --python 3.12 -- train.py
  tategu run --gpu 1 --image team/cuda:v1 -- ./train.sh
  tategu run --output gs://models/today -- ./target/release/train --rows 1000
  tategu run team/batch:v2 --day 2026-01-01
  tategu run --detach --name nightly -- python train.py`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return asOurs(stopped(cmd, f.run(cmd, args, cmd.ArgsLenAtDash() == 0)))
		},
		ValidArgsFunction: completeFirstImage,
	}
	f.add(cmd)
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
}

// add defines what run and image run share.
func (f *runFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.SetInterspersed(false) // what follows the image is the program's
	s.StringVar(&f.project, "project", "", "project of the job (default: the server's)")
	s.StringVar(&f.location, "location", "", "location of the job (default: the server's)")
	s.StringVar(&f.name, "name", "", "display name of the job (default: the program's)")
	s.StringArrayVarP(&f.env, "env", "e", nil, "variable NAME=VALUE, or NAME for its value here (repeatable)")
	s.IntVar(&f.cpu, "cpu", 0, "cores")
	s.StringVar(&f.memory, "memory", "", "memory, such as 8G")
	s.IntVar(&f.gpu, "gpu", 0, "GPUs")
	s.StringVar(&f.account, "service-account", "", "service account to run as (default: the project's)")
	s.StringVar(&f.image, "image", "", "image to run the command after -- in")
	s.StringVar(&f.python, "python", "", "version of Python of the command after --, such as 3.12")
	s.StringArrayVar(&f.with, "with", nil, "pip requirement of the Python environment (repeatable)")
	s.StringArrayVarP(&f.requirement, "requirements", "r", nil, "requirements file of the Python environment (repeatable)")
	s.StringVar(&f.folder, "folder", "", "folder whose files are the working directory, or none (default: this one for a command, none for an image)")
	s.StringVar(&f.folderLimit, "folder-limit", "256M", "most bytes that the folder may have")
	s.BoolVar(&f.port, "port", false, "give the program a free port, in the variable PORT, and show its address")
	s.StringVar(&f.output, "output", "", "gs://BUCKET/PREFIX that AIP_MODEL_DIR and its siblings are below")
	s.DurationVar(&f.timeout, "timeout", 0, "end the job when it has run so long, such as 2h")
	s.BoolVarP(&f.detach, "detach", "d", false, "print the job's name and do not wait for it")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing of tategu's own; the job's log alone is shown")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exit{code: exitOurs, err: err} })
	_ = cmd.RegisterFlagCompletionFunc("image", completeImages) // fails only for an unknown flag
}

// stopped makes one end of all that a signal broke off before anything was made.
func stopped(cmd *cobra.Command, err error) error {
	if _, ok := errors.AsType[*exit](err); ok || err == nil || cmd.Context().Err() == nil {
		return err
	}
	return &exit{code: exitCancelled, err: errors.New("stopped; nothing was started")}
}

// asOurs keeps the program's exit codes apart from those of our own errors.
func asOurs(err error) error {
	if _, ok := err.(*exit); ok || err == nil { //nolint:errorlint // it is made here, and not wrapped
		return err
	}
	return &exit{code: exitOurs, err: err}
}

// completeFirstImage offers images, and files where no image fits: the rest of the
// line is the program's, and so is all of it after a dash.
func completeFirstImage(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, _ := completeImages(cmd, args, typed)
	return names, cobra.ShellCompDirectiveDefault
}

func (f *runFlags) run(cmd *cobra.Command, args []string, isCommand bool) error {
	o, err := f.order(args, isCommand)
	if err != nil {
		return err
	}
	spec, err := f.spec(o)
	if err != nil {
		return err
	}
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	r := &runner{cmd: cmd, c: c, quiet: f.quiet}
	r.parent = "projects/" + or(f.project, c.project) + "/locations/" + or(f.location, c.location)
	container := spec.WorkerPoolSpecs[0].GetContainerSpec()
	if container.ImageUri, err = r.pack(o, or(f.project, c.project)); err != nil {
		return err
	}
	if err := r.create(resource.KindCustomJobs, &pb.CustomJob{DisplayName: or(f.name, o.title()), JobSpec: spec}); err != nil {
		return err
	}
	r.say("job %s", r.name)
	if f.detach {
		return r.print(r.name + "\n")
	}
	return r.follow()
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// spec is the job, but for its image.
func (f *runFlags) spec(o order) (*pb.CustomJobSpec, error) {
	machine, err := f.machine()
	if err != nil {
		return nil, err
	}
	container := &pb.ContainerSpec{Command: o.command, Args: o.args}
	for _, e := range f.env {
		name, value, given := strings.Cut(e, "=")
		if !given {
			value, given = os.LookupEnv(name)
		}
		if name == "" || !given {
			return nil, resource.Invalid("env", "--env %s gives no value, and there is none in this environment", e).WithHint("write --env NAME=VALUE")
		}
		container.Env = append(container.Env, &pb.EnvVar{Name: name, Value: value})
	}
	if f.port {
		container.Env = append(container.Env, &pb.EnvVar{Name: "PORT", Value: "$(PORT)"})
	}
	spec := &pb.CustomJobSpec{
		ServiceAccount: f.account,
		WorkerPoolSpecs: []*pb.WorkerPoolSpec{{
			ReplicaCount: 1, MachineSpec: machine, Task: &pb.WorkerPoolSpec_ContainerSpec{ContainerSpec: container},
		}},
	}
	if f.output != "" {
		if !strings.HasPrefix(f.output, "gs://") {
			return nil, resource.Invalid("output", "--output %s is not a gs:// URI", f.output).WithHint("write gs://BUCKET/PREFIX")
		}
		spec.BaseOutputDirectory = &pb.GcsDestination{OutputUriPrefix: f.output}
	}
	if f.timeout < 0 {
		return nil, resource.Invalid("timeout", "--timeout %s is less than nothing", f.timeout)
	}
	if f.timeout > 0 {
		spec.Scheduling = &pb.Scheduling{Timeout: durationpb.New(f.timeout)}
	}
	return spec, nil
}

// machine asks for what the flags name. The API has no fields for cores and memory;
// a custom machine type says both.
func (f *runFlags) machine() (*pb.MachineSpec, error) {
	if f.cpu < 0 || f.gpu < 0 {
		return nil, resource.Invalid("cpu", "--cpu and --gpu are numbers of 0 or more")
	}
	m := &pb.MachineSpec{AcceleratorCount: int32(min(f.gpu, 1<<20))}
	if f.memory == "" && f.cpu == 0 {
		return m, nil
	}
	memory, err := size("memory", or(f.memory, "0"))
	if err != nil {
		return nil, err
	}
	m.MachineType = "custom-" + strconv.Itoa(f.cpu) + "-" + strconv.FormatInt((memory+1<<20-1)>>20, 10)
	return m, nil
}

// size reads bytes as people write them: 512M, 8G, 1.5GiB; 1024 to the K.
func size(flag, text string) (int64, error) {
	m := regexp.MustCompile(`^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$`).FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, resource.Invalid(flag, "--%s %.40q is not a size", flag, text).WithHint("write it as 512M or 8G")
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n > 1<<30 {
		return 0, resource.Invalid(flag, "--%s %.40q is too large", flag, text)
	}
	return int64(n * float64(int64(1)<<(10*strings.Index(" KMGT", or(m[2], " "))))), nil
}
