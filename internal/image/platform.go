package image

import (
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// machine is what images must be made for: containers are Linux everywhere.
type machine struct {
	arch     string
	variants []string // that run here, the best first; "" = an image that names none
}

func thisMachine() machine {
	m := machine{arch: runtime.GOARCH}
	switch runtime.GOARCH {
	case "amd64":
		m.variants = amd64Variants()
	case "arm64":
		m.variants = []string{"v8", ""}
	case "arm":
		m.variants = []string{"v7", "v6", "v5", ""}
	default:
		m.variants = []string{""}
	}
	return m
}

// amd64Variants are the levels of the x86-64 ABI that this processor has.
func amd64Variants() []string {
	x := cpu.X86
	variants := []string{"v1", ""}
	if !x.HasSSE3 || !x.HasSSSE3 || !x.HasSSE41 || !x.HasSSE42 || !x.HasPOPCNT || !x.HasCX16 {
		return variants
	}
	variants = slices.Insert(variants, 0, "v2")
	if x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA {
		variants = slices.Insert(variants, 0, "v3")
	}
	return variants
}

func (m machine) String() string { return "linux/" + m.arch }

// rank says how well a platform fits: 0 is best, -1 does not run here.
func (m machine) rank(p Platform) int {
	if p.OS != "linux" || p.Architecture != m.arch {
		return -1
	}
	return slices.Index(m.variants, p.Variant)
}

// choose gives the manifests of an index that could run here, the best first.
func (m machine) choose(index Manifest) ([]Descriptor, error) {
	var fit []Descriptor
	offered := make([]string, 0, len(index.Manifests))
	for _, d := range index.Manifests {
		switch {
		case d.Platform == nil && d.ArtifactType == "":
			fit = append(fit, d) // its config, or the index that it is, tells
		case d.Platform == nil:
		case m.rank(*d.Platform) >= 0:
			fit = append(fit, d)
			fallthrough
		default:
			offered = append(offered, d.Platform.String())
		}
	}
	if len(fit) == 0 {
		return nil, m.refuse(offered)
	}
	slices.SortStableFunc(fit, func(a, b Descriptor) int { return m.order(a) - m.order(b) })
	return fit, nil
}

func (m machine) order(d Descriptor) int {
	if d.Platform == nil {
		return len(m.variants)
	}
	return m.rank(*d.Platform)
}

const namedPlatforms = 20

func (m machine) refuse(offered []string) error {
	offered = slices.Compact(offered)
	return resource.Errorf(codes.FailedPrecondition, "the image is for %s, and this machine is %s", strings.Join(offered[:min(len(offered), namedPlatforms)], ", "), m).
		WithHint("build or pull it for %s", m).WithCause(resource.CauseInput)
}
