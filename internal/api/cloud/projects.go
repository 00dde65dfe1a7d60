package cloud

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/resourcemanager/apiv3/resourcemanagerpb"
	locationpb "google.golang.org/genproto/googleapis/cloud/location"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// getProject answers by id and by number. An id that was never used is a project
// from now on.
func (s *Service) getProject(ctx context.Context, req *resourcemanagerpb.GetProjectRequest) (*resourcemanagerpb.Project, error) {
	id, ok := strings.CutPrefix(req.GetName(), "projects/")
	if !ok {
		return nil, resource.Invalid("name", "%.120q is not a project's name", req.GetName()).WithHint("write projects/PROJECT")
	}
	p, err := s.authority.Project(ctx, id)
	if err != nil {
		return nil, err
	}
	return projectMessage(p), nil
}

func projectMessage(p identity.Project) *resourcemanagerpb.Project {
	return &resourcemanagerpb.Project{
		Name: "projects/" + p.Number, ProjectId: p.ID, DisplayName: p.ID,
		State: resourcemanagerpb.Project_ACTIVE, CreateTime: timestamppb.New(p.Created), UpdateTime: timestamppb.New(p.Created),
	}
}

// searchProjects gives all projects that the caller has a role in, on one page.
func (s *Service) searchProjects(ctx context.Context, req *resourcemanagerpb.SearchProjectsRequest) (*resourcemanagerpb.SearchProjectsResponse, error) {
	if req.GetQuery() != "" {
		return nil, resource.Unimplemented("the query of SearchProjects")
	}
	projects, err := s.authority.Projects(ctx, identity.FromContext(ctx))
	if err != nil {
		return nil, err
	}
	resp := &resourcemanagerpb.SearchProjectsResponse{}
	for _, p := range projects {
		resp.Projects = append(resp.Projects, projectMessage(p))
	}
	return resp, nil
}

// projectV1 is the form of cloudresourcemanager v1, which exists over REST only.
type projectV1 struct {
	ProjectNumber  string    `json:"projectNumber"`
	ProjectID      string    `json:"projectId"`
	LifecycleState string    `json:"lifecycleState"`
	Name           string    `json:"name"`
	CreateTime     time.Time `json:"createTime"`
}

func projectJSON(p identity.Project) projectV1 {
	return projectV1{ProjectNumber: p.Number, ProjectID: p.ID, LifecycleState: "ACTIVE", Name: p.ID, CreateTime: p.Created.UTC()}
}

func (s *Service) getProjectV1(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("project")
	if id, method, ok := strings.Cut(id, ":"); ok && !strings.Contains(id, ".") { // example.com:name is an id
		return resource.Unimplemented("google.cloud.resourcemanager.v1.Projects: method " + strconv.Quote(method[:min(len(method), 80)]))
	}
	if _, err := s.authorize(r.Context(), r, id, "resourcemanager.projects.get"); err != nil {
		return err
	}
	p, err := s.authority.Project(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, projectJSON(p))
}

func (s *Service) listProjectsV1(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authorize(r.Context(), r, "", identity.Public)
	if err != nil {
		return err
	}
	projects, err := s.authority.Projects(r.Context(), caller)
	if err != nil {
		return err
	}
	answer := struct {
		Projects []projectV1 `json:"projects"`
	}{[]projectV1{}}
	for _, p := range projects {
		answer.Projects = append(answer.Projects, projectJSON(p))
	}
	return writeJSON(w, answer)
}

// getLocation accepts every location: they are names, and all mean this server.
func (s *Service) getLocation(_ context.Context, req *locationpb.GetLocationRequest) (*locationpb.Location, error) {
	n, err := resource.ParseName(req.GetName())
	if err != nil {
		return nil, err
	}
	if n.Collection() != "locations" || n.Project() == "" {
		return nil, resource.Invalid("name", "%.120q is not a location's name", req.GetName()).WithHint("write projects/PROJECT/locations/%s", s.cfg.Location)
	}
	return &locationpb.Location{Name: n.String(), LocationId: n.ID(), DisplayName: n.ID()}, nil
}

func (s *Service) listLocations(ctx context.Context, req *locationpb.ListLocationsRequest) (*locationpb.ListLocationsResponse, error) {
	l, err := s.getLocation(ctx, &locationpb.GetLocationRequest{Name: req.GetName() + "/locations/" + s.cfg.Location})
	if err != nil {
		return nil, err
	}
	return &locationpb.ListLocationsResponse{Locations: []*locationpb.Location{l}}, nil
}
