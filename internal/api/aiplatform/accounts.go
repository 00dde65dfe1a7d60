package aiplatform

import (
	"context"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Accounts says which service accounts exist and who may use them, and who may do what.
type Accounts interface {
	Authorizer
	// ServiceAccount gives the project and the canonical address of an account.
	ServiceAccount(ctx context.Context, email string) (project, canonical string, err error)
	// ActAs answers whether p may run something as an account.
	ActAs(ctx context.Context, p identity.Principal, email string) error
}

// RunAs gives the service account that a workload of project runs as: the one
// asked for, once the caller is known to be allowed to use it, or the project's
// default.
func RunAs(ctx context.Context, accounts Accounts, project, asked string) (string, error) {
	if asked == "" {
		return identity.DefaultServiceAccount(project), nil
	}
	if err := accounts.ActAs(ctx, identity.FromContext(ctx), asked); err != nil {
		return "", err
	}
	_, canonical, err := accounts.ServiceAccount(ctx, asked)
	return canonical, err
}

// parts is what a model is made of.
type parts struct{ image, artifact string }

// mayServe gives the image and the artifact of a model of project once the caller is
// known to be allowed to run the one and read the other; nothing for a model that cannot
// be used: the transaction reads it again and says what is wrong with the name.
func (s *Standard) mayServe(ctx context.Context, may ModelChecker, project, model string) (parts, error) {
	name, err := resource.ParseName(model)
	if err != nil || name.Project() != project {
		return parts{}, nil //nolint:nilerr // see above
	}
	m, err := s.Model(ctx, s.store, model)
	if err != nil {
		return parts{}, nil //nolint:nilerr // see above
	}
	return checkServed(ctx, may, m.GetContainerSpec().GetImageUri(), m.GetArtifactUri())
}

func checkServed(ctx context.Context, may ModelChecker, image, artifact string) (parts, error) {
	if image != "" {
		if err := may.MayRun(ctx, image); err != nil {
			return parts{}, err
		}
	}
	if artifact != "" {
		if err := may.MayRead(ctx, artifact); err != nil {
			return parts{}, err
		}
	}
	return parts{image, artifact}, nil
}

// sameServed refuses a model that was made of something else than what the caller was
// found to be allowed to use.
func sameServed(m *pb.Model, checked parts) error {
	if (parts{m.GetContainerSpec().GetImageUri(), m.GetArtifactUri()}) == checked {
		return nil
	}
	return resource.Errorf(codes.Aborted, "%s was changed meanwhile", m.GetName()).WithResource(m.GetName()).WithHint("send the request again")
}
