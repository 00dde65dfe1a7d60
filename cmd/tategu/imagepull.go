package main

import (
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"tategu/internal/imaging"
	"tategu/internal/resource"
)

// loginFlags are of commands that talk to another registry.
type loginFlags struct {
	username      string
	passwordStdin bool
	insecure      bool
}

func (l *loginFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.username, "username", "", "user of the other registry (default: Docker's configuration and helpers are asked)")
	cmd.Flags().BoolVar(&l.passwordStdin, "password-stdin", false, "read the password from standard input")
	cmd.Flags().BoolVar(&l.insecure, "insecure", false, "speak http to the other registry; on loopback it is tried anyway")
}

func (l *loginFlags) login(cmd *cobra.Command) (imaging.Login, error) {
	login := imaging.Login{Username: l.username, Transport: transport(nil)}
	if (l.username == "") != !l.passwordStdin {
		return login, resource.Invalid("username", "--username and --password-stdin go together")
	}
	if l.passwordStdin {
		b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64<<10))
		if err != nil {
			return login, err
		}
		login.Password = strings.TrimRight(string(b), "\r\n")
	}
	return login, nil
}

func (l *loginFlags) reference(s string) (name.Reference, error) {
	var options []name.Option
	if l.insecure {
		options = append(options, name.Insecure)
	}
	ref, err := name.ParseReference(s, options...)
	if err != nil {
		return nil, resource.Invalid("reference", "%v", err)
	}
	return ref, nil
}

func imagePullCommand() *cobra.Command {
	var l loginFlags
	var as, platform string
	var all bool
	cmd := &cobra.Command{
		Use: "pull REFERENCE", Short: "Bring an image from a registry", Args: cobra.ExactArgs(1),
		Long: `pull brings an image from another registry to the server, for Linux on this processor unless
--platform or --all-platforms says otherwise. It keeps its name with the registry's host
unless --name gives one. Credentials are those of docker login, or given here.`,
		Example: "  tategu image pull python:3.12-slim\n  tategu image pull registry.example/team/app:v1 --name team/app:v1",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := images(cmd)
			if err != nil {
				return err
			}
			login, err := l.login(cmd)
			if err != nil {
				return err
			}
			ref, err := l.reference(args[0])
			if err != nil {
				return err
			}
			p, err := imaging.Fetch(cmd.Context(), ref, platform, all, login)
			if err != nil {
				return err
			}
			if as == "" {
				as = pulledName(ref, args[0])
			}
			return put(cmd.Context(), cmd, c, as, p)
		},
	}
	l.add(cmd)
	cmd.Flags().StringVar(&as, "name", "", "NAME[:TAG] of the image at the server")
	cmd.Flags().StringVar(&platform, "platform", "", "OS/ARCH[/VARIANT]")
	cmd.Flags().BoolVar(&all, "all-platforms", false, "all platforms of the image")
	return cmd
}

// pulledName is what an image is kept under: as it was asked for, Docker Hub's in full.
func pulledName(ref name.Reference, asked string) string {
	if ref.Context().RegistryStr() == name.DefaultRegistry {
		return "docker.io/" + ref.Context().RepositoryStr() + ":" + tagOf(ref)
	}
	asked, _, _ = strings.Cut(asked, "@")
	return asked
}

func tagOf(ref name.Reference) string {
	if tag, ok := ref.(name.Tag); ok {
		return tag.TagStr()
	}
	return "latest"
}

func imagePushCommand() *cobra.Command {
	var l loginFlags
	cmd := &cobra.Command{
		Use: "push IMAGE REFERENCE", Short: "Send an image to a registry", Args: cobra.ExactArgs(2), ValidArgsFunction: completeImages,
		Long: `push sends an image of the server to another registry, with all its platforms. Credentials are
those of docker login, or given here.`,
		Example: "  tategu image push team/app:v1 registry.example/team/app:v1",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := images(cmd)
			if err != nil {
				return err
			}
			login, err := l.login(cmd)
			if err != nil {
				return err
			}
			from, err := c.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			to, err := l.reference(args[1])
			if err != nil {
				return err
			}
			d, err := c.Get(cmd.Context(), from)
			if err != nil {
				return err
			}
			p := imaging.Picture{}
			if d.MediaType.IsIndex() {
				p.Index, err = d.ImageIndex()
			} else {
				p.Image, err = d.Image()
			}
			if err != nil {
				return err
			}
			if err := c.Send(cmd.Context(), to, p, login); err != nil {
				return err
			}
			return say(cmd, to, p)
		},
	}
	l.add(cmd)
	return cmd
}
