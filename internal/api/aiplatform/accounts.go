package aiplatform

import (
	"context"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Accounts says which service accounts exist and who may use them.
type Accounts interface {
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

// mayServe gives the image of a model of project once the caller is known to be
// allowed to run it; "" for a model without one, and for one that cannot be used:
// the transaction reads it again and says what is wrong with the name.
func (s *Standard) mayServe(ctx context.Context, images ImageChecker, project, model string) (string, error) {
	name, err := resource.ParseName(model)
	if err != nil || name.Project() != project {
		return "", nil //nolint:nilerr // see above
	}
	m, err := s.Model(ctx, s.store, model)
	if err != nil {
		return "", nil //nolint:nilerr // see above
	}
	image := m.GetContainerSpec().GetImageUri()
	if image == "" {
		return "", nil
	}
	return image, images.MayRun(ctx, image)
}

// sameImage refuses a model that was given another image than the one that the
// caller was found to be allowed to run.
func sameImage(m *pb.Model, checked string) error {
	if m.GetContainerSpec().GetImageUri() == checked {
		return nil
	}
	return resource.Errorf(codes.Aborted, "%s was changed meanwhile", m.GetName()).WithResource(m.GetName()).WithHint("send the request again")
}
